"""What the records of all runs have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from patchword.errors import PatchwordError
from patchword.versions import decisive_versions

RUNS_FILE = "runs.jsonl"
_WORDS = {"computed_in": "dtype", "computed_on": "device"}
COMPUTED_ON = "computed_on"  # of what a segmenter says of itself: the kind of its device


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


class Numerics(Record):
    """How results were computed; other numerics give other last digits, so that no result is made by two of them.

    Attributes:
        devices: by role of a model, the kind of device: "cpu", "cuda" or "mps".
        dtypes: by role, the types that it computes in, such as "bfloat16".
        versions: of the software that decides, see `decisive_versions`.
    """

    devices: dict[str, str]
    dtypes: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def of(cls, models: Mapping[str, object | None]) -> Self:
        """Those of loaded models, by role; roles without a model are left out."""
        loaded = {role: model for role, model in models.items() if model is not None}
        devices = {role: str(getattr(model, "device", "cpu")).partition(":")[0] for role, model in loaded.items()}
        return cls(
            devices=devices,
            dtypes={role: _types_of(model) for role, model in loaded.items()},
            versions=decisive_versions(),
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
            pairs += [(what.format(key), before[key], after[key]) for key in before if key in after]
        return [pair for pair in pairs if pair[1] != pair[2]]

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
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.as_posix()


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
