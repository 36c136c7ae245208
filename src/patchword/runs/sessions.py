"""`runs.jsonl`: one line for every time that somebody worked on a result, and nothing that the result depends on."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import ValidationError

from patchword.data.folders import json_text, write_bytes
from patchword.errors import PatchwordError
from patchword.runs.records import RUNS_FILE, Record
from patchword.versions import versions


class SessionRecord(Record):
    """One line of `runs.jsonl`.

    Attributes:
        command: what started the run, as the caller told it.
        started: when, ISO 8601 in UTC.
        host: name of the machine.
        versions: of Python and the packages that matter.
        options: what was chosen that changes no result, such as the device.
        ended: "finished", "interrupted" by a person or the system, "failed"; none when nobody could write it down, as
            when the process was killed.
        reason: why it failed; none otherwise.
        kept: photographs that earlier sessions had done.
        failed_before: how many of those had failed then and were not tried again.
        done: photographs of this session by status.
        seconds: how long it took, models loaded before; none when `ended` is.
        images_a_second: photographs of this session divided by that.
    """

    command: str
    started: str
    host: str
    versions: dict[str, str]
    options: dict[str, Any]
    ended: Literal["finished", "interrupted", "failed"] | None = None
    reason: str | None = None
    kept: int = 0
    failed_before: int = 0
    done: dict[str, int]
    seconds: float | None = None
    images_a_second: float | None = None


class Session:
    """Writes a session's line when it begins, so that one that is killed has left it, and completes it at the end.

    Args:
        folder: of the result.
        command: what the user typed.
        options: what was chosen that changes no result.
        kept, failed_before: see `SessionRecord`.
        statuses: that photographs may have at the end.
        clock: seconds from some fixed moment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str,
        options: Mapping[str, Any] | None = None,
        kept: int = 0,
        failed_before: int = 0,
        statuses: Sequence[str] = ("ok", "empty", "failed"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / RUNS_FILE
        self._clock = clock
        self._counts = dict.fromkeys(statuses, 0)
        self._record = SessionRecord(
            command=command,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            versions=versions(),
            options=dict(options or {}),
            kept=kept,
            failed_before=failed_before,
            done=self._counts,
        )

    def count(self, status: str) -> None:
        """Tell that one more photograph is done, with that status."""
        self._counts[status] += 1

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._earlier = self._path.read_bytes() if self._path.exists() else b""
        self._write(self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = self._clock() - self._started
        done = sum(self._counts.values())
        interrupted = isinstance(error, KeyboardInterrupt)
        outcome = {
            "ended": "interrupted" if interrupted else "failed" if error else "finished",
            "reason": None if interrupted or error is None else str(error) or repr(error),
            "done": dict(self._counts),
            "seconds": round(seconds, 3),
            "images_a_second": round(done / seconds, 4) if seconds > 0 else None,
        }
        try:
            self._write(self._record.model_copy(update=outcome))
        except PatchwordError:
            if error is None:
                raise  # else the disk is full or gone, which is what the run has failed of

    def _write(self, record: SessionRecord) -> None:
        write_bytes(self._path, self._earlier + json_text(record.model_dump(mode="json")).encode("utf-8") + b"\n")


def read_sessions(folder: Path) -> tuple[SessionRecord, ...]:
    """The sessions of a result, first to last; lines that are no such record are left out."""
    path = folder / RUNS_FILE
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    sessions = []
    for line in lines:
        try:
            sessions.append(SessionRecord.model_validate(json.loads(line)))
        except (ValueError, ValidationError):  # not written by us: it decides nothing
            continue
    return tuple(sessions)
