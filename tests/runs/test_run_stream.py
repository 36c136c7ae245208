"""Photographs decoded ahead of their use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from patchword.errors import PatchwordError
from patchword.runs.pipeline import decoded, read_ahead

PHOTOGRAPHS = [(f"{number}.jpg", Path(f"{number}.jpg")) for number in range(12)]


def pixels_of(path: Path) -> np.ndarray:
    return np.full((1, 1, 3), int(path.stem), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_photograph_comes_in_order(threads: int) -> None:
    are_read = [threading.Event() for _ in PHOTOGRAPHS]

    def read(path: Path) -> np.ndarray:
        number = int(path.stem)
        if threads > 1 and number % 3 == 0:  # some take longer than the ones after them
            assert are_read[number + 1].wait(200)
        are_read[number].set()
        return pixels_of(path)

    found = list(decoded(PHOTOGRAPHS, read=read, ahead=3, threads=threads))
    assert [(each.name, each.path) for each in found] == PHOTOGRAPHS
    assert [int(each.pixels[0, 0, 0]) for each in found if isinstance(each.pixels, np.ndarray)] == list(range(12))


def test_the_sum_of_a_files_bytes_comes_with_it_whether_it_can_be_decoded_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (first, second) = decoded([("a", tmp_path / "a"), ("b", tmp_path / "b")])
    assert first.content == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert isinstance(first.pixels, PatchwordError)
    assert second.content is None


@pytest.mark.parametrize("error", [PatchwordError("cannot read 3.jpg"), OSError("gone\nfor good"), MemoryError()])
def test_a_broken_photograph_ends_nothing(error: Exception) -> None:
    def read(path: Path) -> np.ndarray:
        if path.stem == "3":
            raise error
        return pixels_of(path)

    found = list(decoded(PHOTOGRAPHS, read=read))
    broken = [(each.name, str(each.pixels)) for each in found if isinstance(each.pixels, PatchwordError)]
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

    stream = decoded(PHOTOGRAPHS, read=read, ahead=2)
    next(stream)
    assert not stalled.wait(0.5)  # an unbounded reader gets through all twelve in far less
    stream.close()


def test_leaving_early_ends_the_thread() -> None:
    stream = decoded(PHOTOGRAPHS, read=pixels_of, ahead=1)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patchword-decode")]


def test_an_unexpected_error_reaches_the_caller() -> None:
    def read(path: Path) -> np.ndarray:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        list(decoded(PHOTOGRAPHS, read=read))


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_tasks_are_taken_as_needed(threads: int) -> None:
    taken = []

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(40):
            taken.append(number)
            yield lambda number=number: number

    results = read_ahead(tasks(), ahead=threads, threads=threads)
    first = [next(results) for _ in range(5)]
    assert first == list(range(5))
    assert len(taken) <= 5 + 2 * threads
    assert list(results) == list(range(5, 40))
