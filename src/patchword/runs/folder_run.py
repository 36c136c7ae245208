"""The engine of every run over a folder: what is the same as before is kept, the rest is done, whatever stops it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from patchword.data.folders import prepare_output, remove_leftovers, replace_file, sole_use, write_bytes
from patchword.data.manifest import Manifest
from patchword.data.storage import StoredPath, is_stored
from patchword.data.tar_shards import absent
from patchword.errors import PatchwordError
from patchword.runs.pipeline import Chunk, Executor, InThreads, Work, Written, contents_of, remove_files, told
from patchword.runs.progress import Progress, say
from patchword.runs.records import LineRecord, Numerics, RunRecord, Session, unrecorded_numerics
from patchword.runs.shards import shard_differences

SAVED_EVERY = 30.0  # seconds, between two times that a manifest is stored
_SHARE_OF_TIME = 20  # times as long as it took is what lies between

R = TypeVar("R", bound=RunRecord)
L = TypeVar("L", bound=LineRecord)
T = TypeVar("T")
Difference = tuple[str, object, object]
"""What two runs do not have in common, its value in the first, its value in the second."""


class FolderKind(ABC, Generic[R, L]):
    """One kind of folder that runs make: where its records are, and what makes two runs the same."""

    marker: str
    record_file: str
    manifest_file: str
    command: str  # that makes it
    doing: str  # such as "labelling"
    done: str  # such as "labelled"
    changed = ("changed", "changed")  # what is said of one photograph, and of several, that are others now
    statuses: tuple[str, ...] = ("ok", "empty", "failed")

    @abstractmethod
    def load(self, folder: Path) -> R:
        """Read a folder's record."""

    @abstractmethod
    def read_lines(self, manifest: Manifest) -> dict[str, L]:
        """Read a folder's manifest, by name."""

    @abstractmethod
    def differences(self, before: R, now: R, *, merging: bool) -> list[Difference]:
        """What must be the same, as pairs of values that may be equal; shards and numerics are compared elsewhere.

        Args:
            before, now: of two runs into one folder, or of two shards.
            merging: whether they are of shards.
        """

    def files(self, folder: Path, record: R, line: L) -> Sequence[Path]:
        """The files that must be there for a line to count."""
        return ()

    def source(self, line: L) -> str:
        """Name of the photograph or video that a line is of."""
        return line.name

    def photographs(self, record: R) -> str | None:
        """Where the photographs are, as the folder's record tells; None where that does not matter."""
        return None

    def numerics(self, record: R) -> Numerics | None:
        """How the models compute, where the record tells."""
        return None

    def tells_numerics(self) -> bool:
        """Whether new records tell how the models compute, apart from the models' own descriptions."""
        return False

    def reopened(self, earlier: R, now: R) -> R:
        """The record of a run that goes on."""
        return now

    def check_resumed(self, earlier: Earlier[L], *, folder: Path) -> None:
        """Refuse to go on where more than `differences` stands against it."""

    def withdraw(self, folder: Path) -> None:
        """Remove what an earlier run wrote at its end."""

    def is_complete(self, record: R) -> bool:
        """Whether the run came to its end, as far as the record tells."""
        return True

    def check_lines(self, folder: Path, record: R, lines: Mapping[str, L]) -> None:
        """Refuse a manifest that has lost lines since the end of its run."""


@dataclass(frozen=True)
class Earlier(Generic[L]):
    """What an earlier run left.

    Attributes:
        lines: of the manifest, by name.
        changed: names of those whose photographs have other content now.
        moved: whether the photographs are in another folder now.
    """

    lines: Mapping[str, L]
    changed: frozenset[str]
    moved: bool


@dataclass(frozen=True)
class Beginning(Generic[R, L]):
    """A run that may begin; nothing on disk has changed yet.

    Attributes:
        record: of the folder, not complete.
        lines: of the manifest, by name.
        done: names of lines that need no more work.
        failed: how many of those have failed.
        gone: names of lines whose photographs no longer exist, which go.
        notes: what the user should know, a line each.
    """

    record: R
    lines: Mapping[str, L] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    failed: int = 0
    gone: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def chunks(self, names: Iterable[Sequence[str]], *, paths: Mapping[str, Path]) -> list[Chunk]:
        """Chunks of one line a photograph; one of which a part is missing is done anew as a whole."""
        return [
            Chunk(
                tuple((name, paths[name]) for name in chunk),
                lines=len(chunk),
                done=frozenset(chunk) if self.done.issuperset(chunk) else frozenset(),
            )
            for chunk in names
        ]


@dataclass(kw_only=True)
class FolderRun(Generic[R, L]):
    """A run over a folder, new or going on where an earlier one was stopped.

    What decides the results stands in the record and must be the same as before. Photographs are told apart by their
    content. Which ones share a chunk follows from their place among all names, so that what is left, but for
    `runs.jsonl`, has the same bytes however often the run was stopped and whoever did the chunks.

    Attributes:
        kind: of folder.
        out: the folder.
        record: of the run, not complete.
        wanted: names of the photographs that this run takes; lines of others stay.
        contents: of a line, the files that it depends on and the content that was recorded of each.
        root: the photographs', where ones that are gone are looked for; None where that does not matter.
        resume, overwrite: as of `prepare_output`.
        retry_failed: whether what failed is tried again.
        forget_missing: whether lines of photographs that are gone go; else they are an error.
        command, options: for `runs.jsonl`.
        quiet: whether to show no progress.
    """

    kind: FolderKind[R, L]
    out: Path
    record: R
    wanted: Collection[str]
    contents: Callable[[L], Iterable[tuple[Path, str | None]]]
    root: Path | None = None
    resume: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    forget_missing: bool = False
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    _progress: Progress | None = field(default=None, init=False)

    def run(
        self,
        plan: Callable[[Beginning[R, L]], Sequence[Chunk]],
        *,
        work: Work[Any],
        executor: Executor,
        finish: Callable[[R, Manifest], T],
        watch: Callable[[Written], None] = lambda written: None,
    ) -> T:
        """Do what is not done yet.

        Args:
            plan: gives all chunks, those that are done among them.
            work: what is done with each.
            executor: who does them.
            finish: makes of the lines what the folder holds beside them; its result is returned.
            watch: told of every result after its line is written; may end the run by raising.
        """
        folder = prepare_output(self.out, resume=self.resume, overwrite=self.overwrite, marker=self.kind.marker)
        with sole_use(folder):
            manifest = Manifest(folder / self.kind.manifest_file)
            begun = self._begin(folder, manifest)
            for note in begun.notes:
                say(note, quiet=self.quiet)
            chunks = plan(begun)
            remove_leftovers(folder)
            self.kind.withdraw(folder)
            begun.record.save(folder)
            if begun.gone:
                self._forget(folder, manifest, begun)
            already = sum(len(chunk.done) for chunk in chunks)
            with Session(
                folder,
                command=self.command,
                options=self.options,
                kept=already,
                failed_before=begun.failed,
                statuses=self.kind.statuses,
            ) as session:
                total = sum(chunk.lines for chunk in chunks)
                with (
                    Progress(total, self.kind.doing, "images", already=already, quiet=self.quiet) as progress,
                    manifest,
                    ExitStack() as open_files,
                ):
                    self._progress = progress
                    beside: dict[str, Manifest] = {}
                    saving = Saving(folder)

                    def done(written: Written) -> None:
                        for name, line in written.beside.items():
                            if name not in beside:
                                beside[name] = open_files.enter_context(Manifest(folder / name))
                            beside[name].append(line)
                        manifest.append(written.record.line())  # last, so that it vouches for everything else
                        progress.total += written.unexpected
                        if written.counted:
                            session.count(written.record.status)
                            progress.advance()
                        saving.save([*beside.values(), manifest])
                        watch(written)

                    executor.run([chunk for chunk in chunks if not chunk.is_done], work=work, done=done)
                    self._progress = None
                if not isinstance(executor, InThreads):
                    remove_leftovers(folder)  # of others who died
                return finish(begun.record, manifest)

    def tell(self, note: str) -> None:
        """Show beside the progress what is being done."""
        if self._progress is not None:
            self._progress.tell(note)

    def _begin(self, folder: Path, manifest: Manifest) -> Beginning[R, L]:
        """Find out what is to be done; where an earlier run left its record, check that it is the same."""
        kind = self.kind
        if not (folder / kind.record_file).exists():
            if manifest.path.exists():
                raise PatchwordError(
                    f"cannot resume {folder}: it has results but no {kind.record_file}, as when emptying it was "
                    "interrupted; pass --overwrite, or choose another folder"
                )
            return Beginning(self.record)
        record = kind.load(folder)
        check_same(kind, record, self.record, folder=folder)
        lines = kind.read_lines(manifest)
        mine = {name: line for name, line in lines.items() if kind.source(line) in self.wanted}
        before, now = kind.photographs(record), kind.photographs(self.record)
        known = mine if before == now else lines
        gone = self._gone(lines)
        changed = self._changed(known) - gone
        if before != now:
            other = sorted({*changed, *(gone if len(gone) == len(lines) else ())})
            if other:
                raise PatchwordError(
                    f"cannot resume {folder}: the photographs' folder was {before}, now {now}, where {len(other)} of "
                    f"{len(lines)} are not the same, such as {other[0]}; resume with the same photographs, or choose "
                    "another folder"
                )
        kind.check_resumed(Earlier(lines, changed, before != now), folder=folder)
        if gone and not self.forget_missing:
            raise PatchwordError(
                f"{len(gone)} of {len(lines)} {kind.done} photographs are gone from {self.root}, such as {min(gone)}; "
                "put them back, or resume with --forget-missing to drop their labels"
            )
        same = {name: line for name, line in mine.items() if name not in changed and name not in gone}
        failed = {name for name, line in same.items() if line.status == "failed"}
        is_there = files_below(folder)
        done = {
            name
            for name, line in same.items()
            if name not in failed and all(map(is_there, kind.files(folder, record, line)))
        }
        recorded = kind.numerics(record)
        notes = [*recorded.remarks([kind.numerics(self.record)])] if recorded is not None else []
        if kind.tells_numerics() and recorded is None:
            notes.append(unrecorded_numerics(folder))
        if before != now:
            notes.append(f"the photographs were in {before} and are now in {now}, with the same content")
        if changed:
            one, more = f"{kind.changed[0]} since it was", f"{kind.changed[1]} since they were"
            again = told(sorted(changed), f"{one} {kind.done}", more=f"{more} {kind.done}")
            notes.append(f"{again}; {kind.done} again")
        return Beginning(
            kind.reopened(record, self.record),
            {name: line for name, line in lines.items() if name not in changed},
            frozenset(done if self.retry_failed else done | failed),
            0 if self.retry_failed else len(failed),
            gone,
            tuple(notes),
        )

    def _gone(self, lines: Mapping[str, L]) -> frozenset[str]:
        """Names of photographs that were not found in the folder, and are not there."""
        root = self.root
        if root is None:
            return frozenset()
        return absent(root, [name for name in lines if name not in self.wanted])

    def _changed(self, lines: Mapping[str, L]) -> frozenset[str]:
        files = [(name, path, content) for name, line in lines.items() for path, content in self.contents(line)]
        recorded = [(name, path, content) for name, path, content in files if content is not None]
        found = contents_of((path for _, path, _ in recorded), quiet=self.quiet)
        return frozenset(name for name, path, content in recorded if found[path] != content)

    def _forget(self, folder: Path, manifest: Manifest, begun: Beginning[R, L]) -> None:
        """Remove the lines and files of photographs that are gone."""
        fresh_path = manifest.path.with_suffix(".new")
        fresh_path.unlink(missing_ok=True)
        with Manifest(fresh_path) as fresh:
            for name, line in self.kind.read_lines(manifest).items():
                if name in begun.gone:
                    remove_files(self.kind.files(folder, begun.record, line))
                else:
                    fresh.append(line.line())
        if not fresh_path.exists():
            manifest.path.unlink()
        elif is_stored(folder):
            write_bytes(manifest.path, fresh_path.read_bytes())
            fresh_path.unlink()
        else:
            replace_file(fresh_path, manifest.path)


class Saving:
    """Stores manifests from time to time where a folder is on a store: a run that is killed loses what came after.

    A file is stored whole, so that it is done less often the longer it takes.
    """

    def __init__(self, folder: Path) -> None:
        self._is_stored = is_stored(folder)
        self._due = time.monotonic() + SAVED_EVERY

    def save(self, manifests: Sequence[Manifest]) -> None:
        """Store them in this order, so that the last one vouches for the others, if it is time."""
        if not self._is_stored or time.monotonic() < self._due:
            return
        begun = time.monotonic()
        for manifest in manifests:
            manifest.save()
        ended = time.monotonic()
        self._due = ended + max(SAVED_EVERY, _SHARE_OF_TIME * (ended - begun))


def files_below(folder: Path) -> Callable[[Path], bool]:
    """Whether a file below a folder is there; of a stored one, by one listing for all."""
    if not isinstance(folder, StoredPath):
        return Path.is_file
    names = frozenset(folder.names())
    return lambda path: path.relative_to(folder).as_posix() in names


def check_same(kind: FolderKind[R, L], before: R, now: R, *, folder: Path) -> None:
    """Refuse a run that asks for something else than the earlier one, naming the first thing that differs."""
    differences = [*shard_differences(before.shard, now.shard), *kind.differences(before, now, merging=False)]
    advice = [(each, "resume with what it was") for each in differences]
    recorded, current = kind.numerics(before), kind.numerics(now)
    if recorded is not None and current is not None:
        advice += [(each, recorded.advice()) for each in recorded.differences(current)]
    for (what, first, second), instead in advice:
        if first != second:
            raise PatchwordError(
                f"cannot resume {folder}: {what} was {first}, now {second}; {instead}, or pass --overwrite to start "
                "again"
            )
