"""Shards of a run put together: the folder that one run would have made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from patchword.data.folders import prepare_output, replacing, sole_use, write_bytes
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.errors import PatchwordError, WriteError
from patchword.runs.folder_run import FolderKind, L, R, T
from patchword.runs.progress import Progress, say
from patchword.runs.records import RUNS_FILE, Session, ShardRecord, recorded_root
from patchword.runs.shards import names_hash


@dataclass(frozen=True)
class Part(Generic[R, L]):
    """One shard's result.

    Attributes:
        folder: where it is.
        record: of its run.
        shard: which part it is.
        lines: of its manifest, by name.
    """

    folder: Path
    record: R
    shard: ShardRecord
    lines: Mapping[str, L]


def open_parts(kind: FolderKind[R, L], shards: Sequence[str | Path]) -> list[Part[R, L]]:
    """Read the shards of one run; refuse what is unfinished, damaged, missing, given twice, or of another run."""
    parts = [_open(kind, as_path(shard)) for shard in shards]
    if not parts:
        raise PatchwordError("there are no shards to merge; name their folders")
    first = parts[0]
    for part in parts[1:]:
        if _list_of(part.shard) != _list_of(first.shard):
            raise PatchwordError(
                f"{first.folder} and {part.folder} are not of one run: they are parts of {_amount(first.shard)} and "
                f"{_amount(part.shard)}; make them again from the same photographs"
            )
    _check_every_part(parts)
    for part in parts[1:]:
        differences = kind.differences(first.record, part.record, merging=True)
        one, other = kind.numerics(first.record), kind.numerics(part.record)
        if one is not None and other is not None:
            differences += one.differences(other)
        for what, here, there in differences:
            if here != there:
                raise PatchwordError(
                    f"{first.folder} and {part.folder} are not of one run: {what} is {here} and {there}"
                )
    return parts


def merge_parts(
    kind: FolderKind[R, L],
    parts: Sequence[Part[R, L]],
    *,
    out: Path,
    record: R,
    finish: Callable[[R, Manifest], T],
    overwrite: bool = False,
    command: str = "",
    quiet: bool = False,
) -> T:
    """Put shards together; but for `runs.jsonl` the bytes are those of a run without shards.

    Files become hard links where the file system allows it, else copies. patchword replaces files and never changes
    them, so that neither folder changes when the other is worked on.

    Args:
        kind: of folder.
        parts: of `open_parts`.
        out: folder of the whole.
        record: of the whole, not complete.
        finish: as of `FolderRun.run`.
        overwrite: empty the folder first.
        command: for `runs.jsonl`.
        quiet: whether to show no progress.
    """
    inner = out.resolve()
    for part in parts:
        outer = part.folder.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise PatchwordError(f"shard {part.folder} and the output folder {out} lie in each other; choose another")
    first, *others = (kind.numerics(part.record) for part in parts)
    for remark in first.remarks(others) if first is not None else ():
        say(remark, quiet=quiet)
    folder = prepare_output(out, overwrite=overwrite, marker=kind.marker)
    with sole_use(folder):
        record.save(folder)
        _keep_sessions(parts, into=folder)
        with Session(folder, command=command, options={"shards": len(parts)}, statuses=kind.statuses):
            manifest = Manifest(folder / kind.manifest_file)
            lines = {name: (line, part) for part in parts for name, line in part.lines.items()}
            with Progress(len(lines), "merging", "images", quiet=quiet) as progress, manifest:
                for line, part in lines.values():
                    for old in kind.files(part.folder, part.record, line):
                        link_or_copy(old, folder / old.relative_to(part.folder))
                    manifest.append(line.line())
                    progress.advance()
            return finish(record, manifest)


def all_names(
    parts: Sequence[Part[R, L]], *, names_of: Callable[[Part[R, L]], Sequence[str]] | None = None
) -> list[str]:
    """The names of all photographs, sorted; they have to be those that the shards were cut from, each once.

    Args:
        parts: all shards.
        names_of: gives those of a shard; by default all of its manifest.
    """
    owner: dict[str, Path] = {}
    for part in parts:
        for name in part.lines if names_of is None else names_of(part):
            if name in owner:
                raise PatchwordError(f"{owner[name]} and {part.folder} overlap: both have {name!r}")
            owner[name] = part.folder
    names = sorted(owner)
    expected = parts[0].shard
    if names_hash(names) != expected.names:
        raise PatchwordError(
            f"the shards have {len(names)} photographs, which are not the {expected.photographs} that they were cut "
            "from; finish each with --resume"
        )
    return names


def photographs_of(part: Part[R, L], kind: FolderKind[R, L], *, photos: str | Path | None) -> Path:
    """Where the photographs are: where they were, relative to a shard, unless another folder is named."""
    root = recorded_root(part.folder, kind.photographs(part.record) or "") if photos is None else as_path(photos)
    if photos is not None and not root.is_dir():
        raise PatchwordError(f"no such folder of photographs: {photos}; pass where they are now, or leave it out")
    return root


def link_or_copy(old: Path, new: Path) -> None:
    """Take a file over: a hard link where the file system allows it, else a copy, whole or not at all."""
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old, new)
        except OSError:  # another file system, or one without hard links
            with old.open("rb") as reading, replacing(new) as writing:
                shutil.copyfileobj(reading, writing)
    except OSError as error:
        raise WriteError(f"cannot write {new}: {error.strerror}") from None


def _open(kind: FolderKind[R, L], folder: Path) -> Part[R, L]:
    made = f"`patchword {kind.command} --shard i/n` wrote"
    if not folder.is_dir():
        raise PatchwordError(f"no such folder: {folder}; give one that {made}")
    record = kind.load(folder)
    if record.shard is None:
        raise PatchwordError(f"{folder} is not a shard; give folders that {made}")
    if not kind.is_complete(record):
        raise PatchwordError(f"{folder} is of a run that did not finish; finish it with --resume")
    lines = kind.read_lines(Manifest(folder / kind.manifest_file))
    files = (path for line in lines.values() for path in kind.files(folder, record, line))
    lost = next((path for path in files if not path.is_file()), None)
    if lost is not None:
        raise PatchwordError(f"{folder} has lost {lost.relative_to(folder)}; make it with --resume")
    kind.check_lines(folder, record, lines)
    return Part(folder, record, record.shard, lines)


def _check_every_part(parts: Sequence[Part[R, L]]) -> None:
    given: dict[int, Path] = {}
    for part in parts:
        if part.shard.index in given:
            raise PatchwordError(
                f"{given[part.shard.index]} and {part.folder} are both shard {part.shard.index}/{part.shard.count}; "
                "give each shard once"
            )
        given[part.shard.index] = part.folder
    count = parts[0].shard.count
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in given]
    if missing:
        raise PatchwordError(f"shards are missing: {', '.join(missing)}; name the folders of all {count}")


def _keep_sessions(parts: Sequence[Part[R, L]], *, into: Path) -> None:
    """Write the lines of all parts' `runs.jsonl` into that of the whole, one part after the other."""
    lines = []
    for part in parts:
        path = part.folder / RUNS_FILE
        try:
            lines.append(path.read_bytes() if path.exists() else b"")
        except OSError as error:
            raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    write_bytes(into / RUNS_FILE, b"".join(lines))


def _list_of(shard: ShardRecord) -> tuple[int, int, str]:
    return shard.count, shard.photographs, shard.names


def _amount(shard: ShardRecord) -> str:
    return f"{shard.photographs} photographs in {shard.count} shards (names {shard.names[:12]})"
