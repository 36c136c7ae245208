"""How far a run is, how fast it goes and how long it will take, on standard error."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID

from patchword.data.folders import replacing_path

_FIRST_LINE, _LINES = 5, 30  # seconds
FILE_VARIABLE = "PATCHWORD_PROGRESS"
"""Names a file that a run keeps up to date for whoever started it: JSON of what it does and how far it is."""
_FILE_EVERY = 0.5  # seconds


def is_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Progress:
    """How far a run is and how long it will take, on standard error.

    On a terminal a bar appears once the run has lasted 2 seconds; a notebook has a line that is rewritten every second;
    elsewhere a plain line is written after 5 seconds and then every 30. What is told as a note is shown below the bar,
    or at the end of the line.

    Args:
        total: number of items, 0 or more.
        description: what is being done, such as "labelling".
        unit: what is counted, in the plural.
        already: how many of them an earlier run has done; they say nothing about the speed of this one.
        quiet: whether to show nothing at all.
        stream: where to write; standard error by default.
        clock: seconds from some fixed moment.
        patience: seconds, 0 and more, before a bar appears.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str = "images",
        *,
        already: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = 2.0,
    ) -> None:
        self.total = total
        self.done = already
        self.note = ""
        self._already = already
        self._description = description
        self._unit = unit
        self._quiet = quiet
        self._stream = stream
        self._clock = clock
        self._started = self._last_line = clock()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._patience = patience
        self._timer: threading.Timer | None = None
        self._told = False
        self._width = 0  # letters of a line that is rewritten
        self._file = os.environ.get(FILE_VARIABLE)
        self._last_file = -_FILE_EVERY
        self._lock = threading.Lock()  # one thread tells what it does while another one counts what is written

    def advance(self, count: int = 1) -> None:
        """Tell that `count` more items are done."""
        with self._lock:
            self.done += count
            self._show()

    def tell(self, note: str) -> None:
        """Show what is being done now, also where no item is done for long."""
        with self._lock:
            self.note = note
            self._show()

    def skip(self, count: int) -> None:
        """Tell that an earlier run has done `count` items; they say nothing about the speed of this one."""
        self.done += count
        self._already += count

    def __enter__(self) -> Self:
        self._started = self._last_line = self._clock()
        if not self._quiet and (self._stream or sys.stderr).isatty():  # the first item may take long
            self._timer = threading.Timer(self._patience, self._show_waiting)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            if self._width:
                self._write("\r", "\n")
            self._last_file = -_FILE_EVERY
            self._write_file()

    def _show_waiting(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._show()

    def _write_file(self) -> None:
        if self._file is None or self._clock() - self._last_file < _FILE_EVERY:
            return
        self._last_file = self._clock()
        seconds, done = self._clock() - self._started, self.done - self._already
        told = {
            "doing": self._description,
            "done": self.done,
            "total": self.total,
            "unit": self._unit,
            "left": round((self.total - self.done) * seconds / done, 1) if done > 0 else None,
            "note": self.note,
        }
        with suppress(OSError), replacing_path(Path(self._file)) as file:
            file.write_text(json.dumps(told), encoding="utf-8")

    def _show(self) -> None:
        self._write_file()
        if self._quiet:
            return
        stream = self._stream or sys.stderr
        if stream.isatty():
            self._show_bar(stream)
        else:
            self._write_line()

    def _show_bar(self, stream: TextIO) -> None:
        if self._bar is None:
            if self._clock() - self._started < self._patience:
                return
            self._bar = _rich_bar(stream, clock=self._clock, speed=self._speed_and_rest, note=lambda: self.note)
            self._task = self._bar.add_task(self._description, total=self.total)
            self._bar.tasks[0].start_time = self._started
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, completed=self.done)

    def _write_line(self) -> None:
        now, in_notebook = self._clock(), is_notebook()
        often = 1 if in_notebook else _LINES if self._told else _FIRST_LINE
        if now - self._last_line < often:
            return
        self._last_line, self._told = now, True
        self._write(*(("\r", "") if in_notebook else ("", "\n")))

    def _write(self, before: str, after: str) -> None:
        stream = self._stream or sys.stderr
        text = f"{self._description}: {self.done} of {self.total} {self._unit}{self._speed_and_rest(separator=', ')}"
        text += self.note and f", {self.note}"
        stream.write(f"{before}{text.ljust(self._width)}{after}")
        stream.flush()
        self._width = len(text) if before else 0

    def _speed_and_rest(self, *, separator: str = "  ") -> str:
        """Items a second in this run, the time left at that speed; nothing before the first item."""
        seconds, done = self._clock() - self._started, self.done - self._already
        if not done or seconds <= 0:
            return ""
        left = duration((self.total - self.done) * seconds / done)
        return f"{separator}{rate(done / seconds, self._unit)}{separator}{left} left"


def say(message: str, *, quiet: bool = False) -> None:
    """Say something about a run in a line on standard error."""
    if not quiet:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def photograph_count(count: int) -> str:
    """`1 photograph`, `2 photographs`."""
    return f"{count:,} photograph{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span for a person: `12 s`, `3 min 05 s`, `2 h 07 min`, `1 d 04 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def byte_count(size: int) -> str:
    """Bytes for a person, in powers of 1000: `295 kB`, `2.1 MB`, `249 GB`."""
    amount = size / 1000
    for unit in ("kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB"


def rate(per_second: float, unit: str = "images") -> str:
    """A speed with two digits that count: `3.1 images a second`, `0.052 images a second`."""
    return f"{per_second:#.2g} {unit} a second" if per_second < 9.95 else f"{per_second:.0f} {unit} a second"


def _rich_bar(
    stream: TextIO, *, clock: Callable[[], float], speed: Callable[[], str], note: Callable[[], str]
) -> RichProgress:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(speed().strip())

    class BarAndNote(RichProgress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            if note():
                yield Text(note(), no_wrap=True, overflow="ellipsis")

    return BarAndNote(
        TextColumn("{task.description}"),
        BarColumn(None, table_column=Column(ratio=1, max_width=40)),  # gives way where the line is short
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        SpeedColumn(table_column=Column(no_wrap=True)),
        console=Console(file=stream),
        get_time=clock,
        expand=True,
    )
