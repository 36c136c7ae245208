"""What merging the shards of any run takes: whether they are the parts of one whole, and their files taken over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from patchword.data.folders import replacing, write_bytes
from patchword.errors import PatchwordError, WriteError
from patchword.runs.records import RUNS_FILE, ShardRecord
from patchword.runs.shards import names_hash


class Part(Protocol):
    """One shard's result."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    @property
    def shard(self) -> ShardRecord:
        """Which part it is."""

    @property
    def names(self) -> Collection[str]:
        """Of the photographs that it has done."""


def check_folder(folder: Path, *, command: str) -> None:
    """Refuse what is no folder, before its records are looked for."""
    if not folder.is_dir():
        raise PatchwordError(f"no such folder: {folder}; give one that `patchword {command} --shard i/n` wrote")


def check_shard(shard: ShardRecord | None, *, folder: Path, command: str) -> ShardRecord:
    """What a folder's record says of its part; a whole one is not a shard."""
    if shard is None:
        raise PatchwordError(f"{folder} is not a shard; give folders that `patchword {command} --shard i/n` wrote")
    return shard


def check_finished(folder: Path, *, complete: bool, files: Iterable[Path]) -> None:
    """Refuse a shard whose run did not finish, or that has lost a file since."""
    if not complete:
        raise PatchwordError(f"{folder} is of a run that did not finish; finish it with --resume")
    lost = next((path for path in files if not path.is_file()), None)
    if lost is not None:
        raise PatchwordError(f"{folder} has lost {lost.relative_to(folder)}; make it with --resume")


def check_parts(parts: Sequence[Part]) -> None:
    """Refuse parts that were not cut from one list of photographs, and a list that is not whole."""
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


def all_names(parts: Sequence[Part]) -> list[str]:
    """The names of all photographs, sorted; they have to be those that the shards were cut from, each once."""
    owner: dict[str, Path] = {}
    for part in parts:
        for name in part.names:
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


def check_apart(shards: Sequence[Path], *, out: Path) -> None:
    """Refuse an output folder that lies in a shard, or has one in it."""
    inner = out.resolve()
    for shard in shards:
        outer = shard.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise PatchwordError(f"shard {shard} and the output folder {out} lie in each other; choose another")


def keep_sessions(parts: Sequence[Part], *, into: Path) -> None:
    """Write the lines of all parts' `runs.jsonl` into that of the whole, one part after the other."""
    lines = []
    for part in parts:
        path = part.folder / RUNS_FILE
        try:
            lines.append(path.read_bytes() if path.exists() else b"")
        except OSError as error:
            raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    write_bytes(into / RUNS_FILE, b"".join(lines))


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


def _check_every_part(parts: Sequence[Part]) -> None:
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


def _list_of(shard: ShardRecord) -> tuple[int, int, str]:
    return shard.count, shard.photographs, shard.names


def _amount(shard: ShardRecord) -> str:
    return f"{shard.photographs} photographs in {shard.count} shards (names {shard.names[:12]})"
