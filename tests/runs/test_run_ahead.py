"""Things that are made ahead of their use: in order, a few at a time, errors in their turn."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice, repeat

import pytest

from patchword.runs.pipeline import read_ahead


def made_ahead(items: Iterable[int], *, count: int) -> Generator[int, None, None]:
    """Items of an iterator, which only one thread may use; -1 at its end."""
    return read_ahead(repeat(partial(next, iter(items), -1)), ahead=count)


def test_everything_comes_in_order() -> None:
    assert list(islice(made_ahead(range(50), count=3), 51)) == [*range(50), -1]
    assert list(read_ahead([])) == []


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
