"""What a run says while it goes on: how far it is, how fast, how long it will take."""

from __future__ import annotations

import io
import re
import sys
import time
import types

import pytest

from patchword.runs.progress import Progress, duration, rate


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_soon_and_then_every_half_minute() -> None:
    clock, stream = _Clock(), io.StringIO()
    with Progress(100, "labelling", "images", stream=stream, clock=clock) as progress:
        for _ in range(100):
            clock.now += 1
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "labelling: 5 of 100 images, 1.0 images a second, 1 min 35 s left",
        "labelling: 35 of 100 images, 1.0 images a second, 1 min 05 s left",
        "labelling: 65 of 100 images, 1.0 images a second, 35 s left",
        "labelling: 95 of 100 images, 1.0 images a second, 5 s left",
    ]


def test_a_bar_fits_a_line_of_80_letters_and_its_clock_starts_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clock, terminal = _Clock(), _Terminal()
    with Progress(12_345, "segmenting", stream=terminal, clock=clock) as progress:
        for _ in range(4):
            clock.now += 1
            progress.advance(3000)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    (last,) = {line for line in plain.splitlines() if "12000" in line}
    assert last.split("12000/12345 ")[1] == "0:00:04 3000 images a second  0 s left"
    assert len(last) == 80


def test_a_notebook_has_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    clock, stream = _Clock(), io.StringIO()
    with Progress(3, "labelling", stream=stream, clock=clock) as progress:
        for note in ("a long note", "", ""):
            clock.now += 1
            progress.note = note
            progress.advance()
        clock.now += 0.5
    first, *others = stream.getvalue().removesuffix("\n").split("\r")[1:]
    assert first == "labelling: 1 of 3 images, 1.0 images a second, 2 s left, a long note"
    assert [line.rstrip() for line in others] == [
        "labelling: 2 of 3 images, 1.0 images a second, 1 s left",
        "labelling: 3 of 3 images, 1.0 images a second, 0 s left",
        "labelling: 3 of 3 images, 0.86 images a second, 0 s left",
    ]
    assert len(others[0]) == len(first), "nothing of the longer line is left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (3600, "1 h 00 min"), (7320, "2 h 02 min"), (90_000, "1 d 01 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"), [(0.0521, "0.052"), (1, "1.0"), (3.14, "3.1"), (9.97, "10"), (123.4, "123")]
)
def test_rates(per_second: float, text: str) -> None:
    assert rate(per_second) == f"{text} images a second"


def test_what_an_earlier_run_did_says_nothing_about_the_speed() -> None:
    clock, stream = _Clock(), io.StringIO()
    with Progress(100, "labelling", already=80, stream=stream, clock=clock) as progress:
        clock.now += 40
        progress.advance(10)
    assert stream.getvalue() == "labelling: 90 of 100 images, 0.25 images a second, 40 s left\n"


def test_what_is_skipped_says_nothing_about_the_speed_either_and_a_note_ends_the_line() -> None:
    clock, stream = _Clock(), io.StringIO()
    with Progress(100, "training", "steps", stream=stream, clock=clock) as progress:
        progress.skip(40)
        clock.now += 30
        progress.note = "loss 1.5"
        progress.advance(30)
    assert stream.getvalue() == "training: 70 of 100 steps, 1.0 steps a second, 30 s left, loss 1.5\n"


def test_a_terminal_sees_a_bar_only_when_it_takes_longer() -> None:
    for seconds, shown in ((0.1, False), (1.0, True)):
        clock, stream = _Clock(), _Terminal()
        with Progress(10, "labelling", stream=stream, clock=clock) as progress:
            for _ in range(10):
                clock.now += seconds
                progress.advance()
        assert ("labelling" in stream.getvalue()) is shown
        assert ("10/10" in stream.getvalue()) is shown


def test_what_is_told_shows_though_no_item_is_done() -> None:
    clock, terminal, stream = _Clock(), _Terminal(), io.StringIO()
    for where in (terminal, stream):
        with Progress(1, "segmenting", "images", stream=where, clock=clock) as progress:
            clock.now += 31
            progress.tell("large.tif: tile 3 of 121")
    assert "large.tif: tile 3 of 121" in terminal.getvalue()
    assert stream.getvalue() == "segmenting: 0 of 1 images, large.tif: tile 3 of 121\n"


def test_a_bar_appears_before_the_first_item_is_done() -> None:
    terminal = _Terminal()
    with Progress(7, "segmenting", "images", stream=terminal, patience=0.01):
        while "0/7" not in terminal.getvalue():
            time.sleep(0.01)


def test_quiet_says_nothing() -> None:
    clock, stream = _Clock(), _Terminal()
    with Progress(3, "labelling", quiet=True, stream=stream, clock=clock) as progress:
        for _ in range(3):
            clock.now += 100
            progress.advance()
    assert stream.getvalue() == ""
    assert progress.done == 3


def test_the_bar_ends_when_the_run_fails() -> None:
    clock, stream = _Clock(), _Terminal()
    progress = Progress(10, "labelling", stream=stream, clock=clock)

    def run() -> None:
        with progress:
            clock.now += 10
            progress.advance(2)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        run()
    assert "2/10" in stream.getvalue()
    assert progress._bar is None
