"""Stores in memory are emptied after each test."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()
