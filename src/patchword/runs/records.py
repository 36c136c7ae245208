"""Records that all runs share, and the sessions of a run in `runs.jsonl`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from patchword.data.folders import json_text, write_bytes
from patchword.data.storage import as_path, is_stored
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.versions import decisive_versions, versions

RUNS_FILE = "runs.jsonl"
_WORDS = {"computed_in": "dtype", "computed_on": "device"}
_SHOWN = 3  # names of a class list in a message
COMPUTED_ON = "computed_on"  # of what a segmenter says of itself: the kind of its device


class Record(BaseModel):
    """What all records have in common: they are never changed, and hold what is declared and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VocabularyRecord(Record):
    """The vocabulary: its canonical text, the hash of it, and the class names by index."""

    text: str
    hash: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Self:
        return cls(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names)


def vocabulary_differences(before: str, now: str) -> list[tuple[str, object, object]]:
    """What two class lists, as `Vocabulary.to_text` wrote them, may not have in common, in words."""
    first, second = (Vocabulary.recorded(text, source="class list") for text in (before, now))
    lists = [tuple(" or ".join(entry.words) for entry in each.classes) for each in (first, second)]
    return [
        ("the class list", *told_apart(*lists)),
        ("the background words of the class list", *told_apart(first.background, second.background)),
        ("the prompt templates of the class list", *told_apart(first.templates, second.templates)),
        ("the hash of the class list, with colours and templates of single classes,", first.hash, second.hash),
    ]


def told_apart(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, str]:
    """Two lists in a few words: from the first on that differs, and no more than fit into a line; "" where alike."""
    if before == now:
        return "", ""
    same = next((at for at, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(before), len(now)) if same is None else same
    if max(len(before), len(now)) <= _SHOWN:
        start = 0
    return _few(before, start), _few(now, start)


def _few(names: tuple[str, ...], start: int) -> str:
    shown = ", ".join(repr(name) for name in names[start : start + _SHOWN]) or "nothing"
    ahead = f"{start} alike, then " if start else ""
    rest = len(names) - start - _SHOWN
    return f"{ahead}{shown}" + (f" and {rest} more" if rest > 0 else "")


class ShardRecord(Record):
    """Which part of the photographs a result holds.

    Attributes:
        index, count: the part, from 1, and of how many.
        photographs: how many there are in all parts together.
        names: sha256 of all their names, so that parts of different lists are never put together.
    """

    index: int
    count: int
    photographs: int
    names: str


class RunRecord(Record):
    """What a folder writes down of the run that made it: all that decides its results, and what came of it."""

    shard: ShardRecord | None

    def save(self, folder: Path) -> None:
        """Write it into the folder; the same record gives the same bytes."""
        raise NotImplementedError


class LineRecord(Record):
    """One line of a folder's manifest."""

    name: str
    status: str

    def line(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return self.model_dump(mode="json")


class Numerics(Record):
    """How results were computed; other numerics give other last digits, so that no result is made by two of them.

    Attributes:
        devices: by role of a model, the kind of device: "cpu", "cuda" or "mps".
        dtypes: by role, the types that it computes in, such as "bfloat16".
        versions: of the software that decides, see `decisive_versions`.
        threads: that torch computes in, of the process that began the run; None where an earlier version did.
    """

    devices: dict[str, str]
    dtypes: dict[str, str]
    versions: dict[str, str]
    threads: int | None = None

    @classmethod
    def of(cls, models: Mapping[str, object | None]) -> Self:
        """Those of loaded models, by role; roles without a model are left out."""
        import torch

        loaded = {role: model for role, model in models.items() if model is not None}
        devices = {role: str(getattr(model, "device", "cpu")).partition(":")[0] for role, model in loaded.items()}
        return cls(
            devices=devices,
            dtypes={role: _types_of(model) for role, model in loaded.items()},
            versions=decisive_versions(),
            threads=torch.get_num_threads(),
        )

    def differences(self, now: Numerics) -> list[tuple[str, object, object]]:
        """What is not as it was: what it is, its value here, its value there; roles that only one has are passed over,
        for the models themselves are compared as well."""
        pairs: list[tuple[str, object, object]] = []
        for what, before, after in (
            ("the dtype of the {}", self.dtypes, now.dtypes),
            ("the device of the {}", self.devices, now.devices),
            ("the version of {}", self.versions, now.versions),
        ):
            # Files name the mask generator as earlier versions did.
            roles = {key: key.replace("mask proposer", "mask generator") for key in before}
            pairs += [(what.format(roles[key]), before[key], after[key]) for key in before if key in after]
        return [pair for pair in pairs if pair[1] != pair[2]]

    def remarks(self, others: Iterable[Numerics | None]) -> Iterator[str]:
        """What is said, and nobody refused for: that torch had other numbers of threads."""
        threads = {each.threads for each in (self, *others) if each is not None and each.threads is not None}
        if len(threads) > 1:
            told = " and ".join(map(str, sorted(threads)))
            yield f"torch computed in {told} threads: last digits may differ (OMP_NUM_THREADS sets the number)"

    def advice(self) -> str:
        """How to go on in the same way."""
        devices = sorted(set(self.devices.values()))
        dtypes = {dtype for told in self.dtypes.values() for dtype in told.split(" and ")}
        lower = sorted(dtypes - {"float32"})
        device = f"--device {devices[0]} " if len(devices) == 1 else ""
        installed = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"go on with {device}--dtype {lower[0] if lower else 'float32'} and {installed}"


def _types_of(model: object) -> str:
    """The floating-point types of a model's weights, or the type that it tells; float32 where nobody tells."""
    weights = getattr(getattr(model, "model", None), "parameters", None)
    found = {str(each.dtype) for each in weights() if each.is_floating_point()} if weights is not None else set()
    found = found or {str(getattr(model, "dtype", "float32"))}
    return " and ".join(sorted(name.removeprefix("torch.") for name in found))


def unrecorded_numerics(folder: Path) -> str:
    """What is said where an earlier version began a run."""
    return (
        f"{folder} was begun by an earlier version of patchword, which recorded neither dtype nor device; go on with "
        "what they were"
    )


def check_counted(path: Path, *, found: int, counted: int, by: str, mend: str) -> None:
    """Refuse a file of lines that has lost some since its run came to its end.

    Args:
        path: the file.
        found: how many of its lines count.
        counted: how many there were at the end of the run.
        by: the file that says so.
        mend: what the user can do.
    """
    if found != counted:
        images = "1 image" if found == 1 else f"{found} images"
        raise PatchwordError(f"{path} lists {images}, but {by} counts {counted}: the file was changed; {mend}")


def relative_root(root: Path, *, folder: Path) -> str:
    """How a result in `folder` writes down where its photographs are: relative to itself where that is possible."""
    if is_stored(root) or is_stored(folder):
        return root.absolute().as_posix()
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.as_posix()


def recorded_root(folder: Path, photographs: str) -> Path:
    """Where the photographs of a result in `folder` are, of what `relative_root` has written down."""
    if is_stored(folder) or is_stored(there := as_path(photographs)):
        return as_path(photographs)
    return folder / there


def told_by_both(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Keys of two identities that can be compared, sorted; what earlier versions did not tell is passed over."""
    keys = sorted(before.keys() | now.keys())
    return [key for key in keys if not key.endswith(COMPUTED_ON) or (key in before and key in now)]


def in_words(key: str) -> str:
    """What a key of an identity is called in a message."""
    above, _, last = key.rpartition(" ")
    return f"{above} {_WORDS.get(last, last)}".strip()


def identity_of(described: Mapping[str, Any], *, above: str = "") -> Iterator[tuple[str, object]]:
    """What a segmenter says of itself, flat; weights with a fingerprint are the same wherever they lie.

    Args:
        described: as `describe` gives it.
        above: what stands before every name.
    """
    for key, value in described.items():
        if isinstance(value, Mapping):
            yield from identity_of(value, above=f"{above}{key} ")
        elif not (key in ("name", "revision") and described.get("fingerprint")):
            yield f"{above}{key}", value


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
