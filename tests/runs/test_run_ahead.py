"""Things that are made ahead of their use: in order, a few at a time, errors in their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from patchword.runs.pipeline import made_ahead


def test_everything_comes_in_order() -> None:
    assert list(made_ahead(range(50), count=3)) == list(range(50))
    assert list(made_ahead([], count=1)) == []


def test_no_more_wait_than_may() -> None:
    made: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 3:
                enough.set()
            yield number

    with closing(made_ahead(items(), count=2)) as ahead:
        assert next(ahead) == 0
        assert enough.wait(200)  # one is used, two wait, one is about to
        assert len(made) == 4
        assert [next(ahead) for _ in range(9)] == list(range(1, 10))


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = made_ahead(items(), count=5)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_who_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with closing(made_ahead(iter(int, 1), count=1)) as ahead:
        assert next(ahead) == 0
    assert threading.active_count() == before
