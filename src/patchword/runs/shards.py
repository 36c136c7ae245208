"""Parts of a folder that machines work on apart, and what merging them takes."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchword.data.folders import replacing, write_bytes
from patchword.errors import PatchwordError, WriteError
from patchword.runs.records import RUNS_FILE, ShardRecord


@dataclass(frozen=True)
class Shard:
    """One of several parts of a folder that are worked on apart, on machines of their own, say.

    Attributes:
        index: which part, from 1.
        count: how many there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise PatchwordError(f"shard is {self}; it must be i/n with i from 1 to n, such as 1/4")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None:
            raise PatchwordError(f"shard is {text!r}; it must be i/n with i from 1 to n, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def record(self, names: Sequence[str]) -> ShardRecord:
        """What a result writes down of it.

        Args:
            names: of the photographs of all parts, sorted.
        """
        return ShardRecord(index=self.index, count=self.count, photographs=len(names), names=names_hash(names))


def names_hash(names: Sequence[str]) -> str:
    """sha256 of names, each ended by a zero byte, which no name holds."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def chunks_of(
    names: Sequence[str],
    *,
    size: int,
    shard: Shard | None = None,
    alone: Collection[str] = (),
    pixels: Mapping[str, int] | None = None,
    most: float = math.inf,
) -> list[tuple[str, ...]]:
    """Cut a folder's photographs into the chunks that go to the models together.

    Where photographs share a batch, results differ in the last digits with the company. So the company is fixed: by
    position in the whole folder, whatever part of it a run takes. Shards take whole chunks, in turn.

    Args:
        names: of all photographs, sorted.
        size: photographs a chunk, 1 or more.
        shard: the part that is wanted; all by default.
        alone: names that are a chunk each, such as those of images that take hours; the others of their chunk stay
            together.
        pixels: of each photograph; 0 for those that are not named.
        most: pixels that a chunk has at most, unless it is of one photograph.
    """
    together = [names[start : start + size] for start in range(0, len(names), size)]
    apart = [part for chunk in together for part in _apart(chunk, alone=alone)]
    chunks = [part for chunk in apart for part in _lighter(chunk, pixels=pixels or {}, most=most)]
    if shard is None:
        return chunks
    if shard.index > len(chunks):
        raise PatchwordError(
            f"shard {shard} has no photographs: {len(names)} make {len(chunks)} chunks of up to {size}; "
            f"choose at most {len(chunks)} shards"
        )
    return chunks[shard.index - 1 :: shard.count]


def _apart(chunk: Sequence[str], *, alone: Collection[str]) -> list[tuple[str, ...]]:
    others = tuple(name for name in chunk if name not in alone)
    return [*([others] if others else []), *((name,) for name in chunk if name in alone)]


def _lighter(chunk: Sequence[str], *, pixels: Mapping[str, int], most: float) -> list[tuple[str, ...]]:
    """Cut a chunk before each photograph that would make too many pixels."""
    parts: list[tuple[str, ...]] = []
    room = -1.0
    for name in chunk:
        size = pixels.get(name, 0)
        if room < size or not parts:
            parts.append(())
            room = most
        parts[-1] += (name,)
        room -= size
    return parts


def shard_differences(before: ShardRecord | None, now: ShardRecord | None) -> list[tuple[str, object, object]]:
    """What two runs' parts do not have in common: what it is, its value in the first, its value in the second.

    A shard of other photographs is another one: parts that were dealt out anew would overlap.
    """
    pairs: list[tuple[str, object, object]] = [("the shard", _part(before), _part(now))]
    if before is not None and now is not None:
        pairs.append(("the number of photographs of all shards", before.photographs, now.photographs))
        pairs.append(("the hash of the photographs' names of all shards", before.names, now.names))
    return pairs


def _part(shard: ShardRecord | None) -> str:
    return "none" if shard is None else f"{shard.index}/{shard.count}"


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
