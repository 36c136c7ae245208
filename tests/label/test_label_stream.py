"""Photographs decoded ahead of their use."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from patchword.errors import PatchwordError
from patchword.label.stream import decoded

PATHS = [Path(f"{number}.jpg") for number in range(12)]


def pixels_of(path: Path) -> np.ndarray:
    return np.full((1, 1, 3), int(path.stem), dtype=np.uint8)


def test_every_photograph_comes_in_order() -> None:
    found = list(decoded(PATHS, read=pixels_of, ahead=3))
    assert [path for path, _ in found] == PATHS
    assert [int(pixels[0, 0, 0]) for _, pixels in found if isinstance(pixels, np.ndarray)] == list(range(12))


@pytest.mark.parametrize("error", [PatchwordError("cannot read 3.jpg"), OSError("gone\nfor good"), MemoryError()])
def test_a_broken_photograph_ends_nothing(error: Exception) -> None:
    def read(path: Path) -> np.ndarray:
        if path.stem == "3":
            raise error
        return pixels_of(path)

    found = list(decoded(PATHS, read=read))
    broken = [(path.name, str(pixels)) for path, pixels in found if isinstance(pixels, PatchwordError)]
    assert len(found) == 12
    assert [name for name, _ in broken] == ["3.jpg"]
    assert "3.jpg" in broken[0][1]
    assert "\n" not in broken[0][1]


def test_only_a_few_wait_decoded() -> None:
    begun: list[Path] = []
    stalled = threading.Event()

    def read(path: Path) -> np.ndarray:
        begun.append(path)
        if len(begun) > 1 + 2 + 1:  # one in hand, two waiting, one being read
            stalled.set()
        return pixels_of(path)

    stream = decoded(PATHS, read=read, ahead=2)
    next(stream)
    assert not stalled.wait(0.5)  # an unbounded reader gets through all twelve in far less
    stream.close()


def test_leaving_early_ends_the_thread() -> None:
    stream = decoded(PATHS, read=pixels_of, ahead=1)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "patchword-decode"]


def test_an_unexpected_error_reaches_the_caller() -> None:
    def read(path: Path) -> np.ndarray:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        list(decoded(PATHS, read=read))
