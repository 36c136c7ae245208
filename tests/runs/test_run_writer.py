"""What is written in a thread behind its maker."""

from __future__ import annotations

import threading

import pytest

from patchword.runs.pipeline import Writer


def test_everything_is_written_in_order_and_elsewhere() -> None:
    written: list[tuple[int, str]] = []
    with Writer(lambda item: written.append((item, threading.current_thread().name)), waiting=2) as writer:
        for item in range(20):
            writer.put(item)
    assert written == [(item, "patchword-write") for item in range(20)]


def test_only_a_few_wait() -> None:
    go_on, full = threading.Event(), threading.Event()
    handed: list[int] = []

    def make(writer: Writer[int]) -> None:
        for item in range(10):
            writer.put(item)
            handed.append(item)
            if len(handed) > 1 + 2:  # one being written, two waiting
                full.set()

    def write(item: int) -> None:
        go_on.wait()

    with Writer(write, waiting=2) as writer:
        maker = threading.Thread(target=make, args=(writer,))
        maker.start()
        assert not full.wait(0.3)  # an unbounded queue takes all ten in far less
        go_on.set()
        maker.join()
    assert handed == list(range(10))


def test_the_first_error_ends_the_work_and_reaches_the_maker() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 3:
            raise ZeroDivisionError("a defect")
        written.append(item)

    def make() -> None:
        with Writer(write, waiting=1) as writer:
            for item in range(1000):
                writer.put(item)

    with pytest.raises(ZeroDivisionError, match="a defect"):
        make()
    assert written == [0, 1, 2]


def test_an_error_of_the_last_item_is_not_lost() -> None:
    def write(item: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Writer(write) as writer:
        writer.put(1)


def test_an_interruption_loses_nothing_that_was_handed_over() -> None:
    written: list[int] = []
    go_on = threading.Event()

    def write(item: int) -> None:
        go_on.wait()
        written.append(item)

    def make() -> None:
        with Writer(write, waiting=3) as writer:
            for item in range(3):
                writer.put(item)
            threading.Timer(0.05, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make()
    assert written == [0, 1, 2]
