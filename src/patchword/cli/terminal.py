"""What every command shares: exit codes, one-line errors, settings as they are typed, results on standard output."""

from __future__ import annotations

import codecs
import io
import json
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from patchword.labeling.dataset import LabelledDataset
    from patchword.labeling.records import Counts
    from patchword.runs.plan import Plan
    from patchword.runs.records import SessionRecord
    from patchword.segmentation.records import SegmentedFolder

from patchword.errors import PatchwordError, PatchwordWarning
from patchword.runs.progress import duration, rate

FAILED, MISTAKE, BY_SIGNAL = 1, 2, 128
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # the system's ways to end a run: treated as a person's Ctrl-C


class Stopped(KeyboardInterrupt):
    """The system wants this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


class PatchwordGroup(TyperGroup):
    """Turns a user's mistake into one line and exit code 2, an interruption into 130, a signal into 128 and its number
    (143 for SIGTERM); never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _stopped_by_signals(), _warnings_in_one_line():
                return super().invoke(ctx)
        except PatchwordError as error:
            complain(str(error))
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else signal.SIGINT
            with suppress(OSError):  # a terminal that was closed
                kept = f"; what is finished is on disk{self._how_to_go_on(ctx)}" if self._writes(ctx) else ""
                complain(f"interrupted{kept}")
            raise typer.Exit(BY_SIGNAL + number) from None

    def _writes(self, ctx: Any) -> bool:
        """Whether the command writes into a folder; some can do without one."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        needed = (
            ["[required]" in getattr(each, "help", "") for each in command.params if each.name == "out"]
            if command
            else []
        )
        typed = any(argument == "--out" or argument.startswith(("-o", "--out=")) for argument in sys.argv[1:])
        return all(needed) or typed

    def _how_to_go_on(self, ctx: Any) -> str:
        command = self.commands.get(ctx.invoked_subcommand or "")
        if command is None or all(parameter.name != "resume" for parameter in command.params):
            return ""
        if "--resume" in sys.argv:
            return "; go on with the same command"
        instead = " instead of --overwrite" if "--overwrite" in sys.argv else ""
        return f"; go on with the same command and --resume{instead}"


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print patchword's own warnings as it prints its errors, one line each."""
    usual = warnings.showwarning
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, PatchwordWarning):
            if str(message) not in said:
                said.add(str(message))
                complain(str(message))
        else:
            usual(message, category, *rest)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PatchwordWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let the system's signals end a command as Ctrl-C does; one that is ignored, as under nohup, stays ignored."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other thread may set them
        wanted = [signal.Signals[name] for name in _SIGNALS if hasattr(signal, name)]
        before = {each: signal.getsignal(each) for each in wanted if signal.getsignal(each) is not signal.SIG_IGN}
        for each in before:
            signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def complain(message: str) -> None:
    """Say what went wrong, in one line on standard error."""
    typer.echo(f"patchword: {' '.join(message.split())}", err=True)


def say(message: str, *, quiet: bool = False) -> None:
    """Say something about the run on standard error; results go to standard output."""
    if not quiet:
        typer.echo(message, err=True)


def say_next(*words: object) -> None:
    """Print the command that comes next, as a line to copy."""
    typer.echo(f"next: {shlex.join(['patchword', *map(str, words)])}")


def exit_with_failures(
    failed: int, *, done: str, where: Path, reasons: Mapping[str, str] | None = None, shown: int = 10
) -> None:
    """Leave with exit code 1 when some photographs failed, after saying so on standard error.

    Args:
        failed: how many.
        done: what was to be done with them, such as "labelled".
        where: file that lists all of them.
        reasons: photograph -> reason, of those to be named here.
        shown: how many are named at most.
    """
    if not failed:
        return
    for name, reason in list((reasons or {}).items())[:shown]:
        complain(f"{name}: {reason}")
    complain(f"{failed} photograph{'s' if failed > 1 else ''} could not be {done}; see {where}")
    raise typer.Exit(FAILED)


def report_labels(
    dataset: LabelledDataset, *, out: Path, done: str, as_json: bool, then: Sequence[object] = ()
) -> None:
    """Print what a data set of labels amounts to; leave with exit code 1 when some failed or were left out.

    Args:
        dataset: the data set.
        out: its folder, as it was typed.
        done: what was done with the photographs, such as "labelled".
        as_json: whether to print the counts as JSON.
        then: the command that comes next, by default `align`.
    """
    from patchword.labeling.quality.report import REPORT_FILE
    from patchword.labeling.records import MANIFEST_FILE
    from patchword.runs.records import read_sessions

    counts, session = dataset.counts, read_sessions(dataset.folder)[-1]
    if as_json:
        print_json({**counts.model_dump(mode="json"), "session": session.model_dump(mode="json")})
    else:
        photographs = "photograph" if counts.ok == 1 else "photographs"
        typer.echo(f"{out}: {counts.ok} {photographs} with labels, {counts.empty} without any, {counts.failed} failed")
        for trouble, count in counts.left_out.items():
            typer.echo(f"left out: {count} x {trouble}")
        for line in _remarks(counts, session, done=done):
            typer.echo(line)
        if (dataset.folder / REPORT_FILE).is_file():
            typer.echo(f"{out / REPORT_FILE} shows what they are worth, the worst first")
        if counts.ok:
            say_next(*(then or ("align", out, "-o", "model")))
    reasons = {record.name: record.reason or "" for record in dataset.failed}
    exit_with_failures(counts.failed, done=done, where=out / MANIFEST_FILE, reasons=reasons)
    if left_out := sum(counts.left_out.values()):
        complain(f"{left_out} of the labels could not be used and {'was' if left_out == 1 else 'were'} left out")
        raise typer.Exit(FAILED)


def report_segmented(segmented: SegmentedFolder, *, out: Path, as_json: bool, then: Sequence[object] = ()) -> None:
    """Print what a folder of segmentations amounts to; leave with exit code 1 when photographs failed.

    Args:
        segmented: the folder.
        out: the same, as it was typed.
        as_json: whether to print the counts as JSON.
        then: the command that comes next.
    """
    from patchword.runs.records import read_sessions
    from patchword.segmentation.page import PAGE_FILE
    from patchword.segmentation.records import RESULTS

    session = read_sessions(segmented.folder)[-1]
    done, failed = len(segmented.names), len(segmented.failed)
    if as_json:
        counts = {"folder": str(segmented.folder), "segmented": done, "failed": segmented.failed}
        print_json({**counts, "session": session.model_dump(mode="json")})
    else:
        typer.echo(f"{out}: {done} {'image' if done == 1 else 'images'} segmented, {failed} failed")
        for line in session_remarks(session, done="segmented"):
            typer.echo(line)
        typer.echo(f"{out / PAGE_FILE} shows the masks, the least certain first")
        if then:
            say_next(*then)
    exit_with_failures(failed, done="segmented", where=out / RESULTS, reasons=segmented.failed)


def _remarks(counts: Counts, session: SessionRecord, *, done: str) -> list[str]:
    """What else there is to say of a data set and of the session that made it."""
    lines = session_remarks(session, done=done)
    if counts.duplicates:
        lines.append(f"{counts.duplicates} duplicate{'s' * (counts.duplicates != 1)}, labelled too")
    return lines


def session_remarks(session: SessionRecord, *, done: str) -> list[str]:
    """What a session has done, how fast, and what it has left as it was; lines for a person."""
    count, seconds = sum(session.done.values()), session.seconds or 0
    speed = f", {rate(count / seconds)}" if count and seconds else ""
    earlier = f"; {session.kept} were there before" if session.kept else ""
    failed = session.done.get("failed", 0)
    what = f"{count - failed} {done} and {failed} failed" if failed else f"{count} {done}"
    lines = [f"{what} in {duration(seconds)}{speed}{earlier}"] if count or session.kept else []
    if session.failed_before:
        lines.append(f"{session.failed_before} failed earlier, not tried again; --retry-failed tries them")
    if left_out := session.options.get("videos_left_out"):
        videos = "1 video was" if left_out == 1 else f"{left_out} videos were"
        lines.append(f"{videos} left out; --video segments the frames")
    return lines


def say_where(
    dataset: LabelledDataset, *, photos: Path | None, unusable: Mapping[str, str] | None = None, quiet: bool = False
) -> None:
    """Say that photographs in another place are those that were labelled, where all are and the hashes tell."""
    recorded = [item.record.content for item in dataset.items]
    if photos is not None and not unusable and None not in recorded:
        say(f"{photos}: all {len(recorded)} photographs have the content that was labelled", quiet=quiet)


def speaks_for_all() -> bool:
    """Whether this process is the first of those that a launcher such as `torchrun` has started, or alone."""
    return os.environ.get("RANK", "0") == "0"


def print_whatever_names() -> None:
    """Let both streams take names that their encoding lacks, or that are not text: as escapes, never as an error.

    Where the locale knows nothing but ASCII they are UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")


def print_json(value: Any) -> None:
    """Write a record to standard output as JSON with sorted keys, escaped where the stream lacks a character."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, sort_keys=True)
    typer.echo(text)


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what a run would do, as columns or as JSON."""
    if as_json:
        print_json(plan.to_json())
    else:
        print_columns(plan.rows())


def print_columns(rows: Sequence[Sequence[object]]) -> None:
    """Write rows of as many cells each to standard output, the columns aligned and never cut off."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` assignments; a value that is JSON is taken as JSON, any other as text.

    Args:
        assignments: such as `margin=0.05`, `grids=[1,2]`, `crop_size=null`, `dense=sclip` or, for a setting of a group
            of settings, `pamr.iterations=5`.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise PatchwordError(f"--set {assignment!r} must be NAME=VALUE, such as margin=0.05")
        *groups, last = name.split(".")
        place: Any = settings
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise PatchwordError(f"--set gives both {group!r} and {name!r}; use one of them")
        if last in place:
            raise PatchwordError(f"--set gives {name!r} twice")
        place[last] = _value(value)
    return settings


def command_line() -> str:
    """The command as it was typed, for a record."""
    return shlex.join(["patchword", *sys.argv[1:]])


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
