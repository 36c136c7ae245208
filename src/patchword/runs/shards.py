"""Shards: parts of a folder that machines work on apart, and the chunks that they are made of."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from patchword.errors import PatchwordError
from patchword.runs.records import ShardRecord


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
