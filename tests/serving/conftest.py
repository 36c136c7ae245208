"""One application of Toytown's miniatures for the tests that share it, and a client of it in this process."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from patchword.config.serve import ServeConfig
from patchword.serving.app import create_app

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def app() -> FastAPI:
    return create_app(ServeConfig())


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def scene() -> bytes:
    """A picture of blocks of colour as a PNG, 64 x 48 pixels."""
    return encoded(np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()
