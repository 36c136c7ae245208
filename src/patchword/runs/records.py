"""What the records of all runs have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

RUNS_FILE = "runs.jsonl"


class Record(BaseModel):
    """What all records have in common: they are never changed, and hold what is declared and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VocabularyRecord(Record):
    """The vocabulary: its canonical text, the hash of it, and the class names by index."""

    text: str
    hash: str
    names: tuple[str, ...]


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


def relative_root(root: Path, *, folder: Path) -> str:
    """How a result in `folder` writes down where its photographs are: relative to itself where that is possible."""
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.as_posix()


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
