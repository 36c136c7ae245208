"""What a person's corrections come down to: for each photograph a label map and its regions."""

from __future__ import annotations

import json
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.components import NOTHING
from patchword.data.image_files import find_images
from patchword.data.images import image_size
from patchword.errors import PatchwordError, SizeError


def read_json(source: Path) -> Any:
    try:
        if zipfile.is_zipfile(source):
            raise PatchwordError(f"{source} is an archive; unpack it and name the .json file in it")
        return json.loads(source.read_bytes())
    except PatchwordError:
        raise
    except OSError as error:
        raise PatchwordError(f"cannot read {source}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PatchwordError(f"{source} is not JSON: {error}") from None


_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an upload
_NO_PIXEL = "object that covers no pixel of the photograph"


@dataclass(frozen=True, eq=False)
class Region:
    class_index: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Painted:
    """A corrected photograph: positions in the vocabulary (h, w), `NOTHING` where there is no class, and its regions.

    `left_out` is what could not be used: kind of trouble -> how many.
    """

    indices: NDArray[np.int64]
    regions: tuple[Region, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, regions: Iterable[Region], *, size: tuple[int, int], left_out: Counter[str]) -> Painted:
        """Paint regions over each other, the last on top; empty ones are left out."""
        indices = np.full(size, NOTHING, dtype=np.int64)
        kept = []
        for region in regions:
            if region.mask.any():
                indices[region.mask] = region.class_index
                kept.append(region)
            else:
                left_out[_NO_PIXEL] += 1
        return cls(indices, tuple(kept), left_out)


@dataclass(frozen=True)
class Correction:
    """One photograph's labels, which `load` reads given its (height, width), or raises PatchwordError."""

    name: str
    load: Callable[[tuple[int, int]], Painted]


@dataclass(frozen=True)
class Findings:
    """What a file of labels holds.

    Attributes:
        failed: entries whose photograph is not there or not known for sure: what the file calls it -> the reason.
        left_out: what belongs to no photograph and is left out: kind of trouble -> how many.
    """

    corrections: list[Correction] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def alone(self, *, place: str) -> Findings:
        """The same, where a photograph with several entries has failed: nothing says which of them is right."""
        entries = Counter(correction.name for correction in self.corrections)
        kept = [correction for correction in self.corrections if entries[correction.name] == 1]
        several = {
            name: f"{place} has {count} entries for photograph {name!r}; keep the one that is right"
            for name, count in entries.items()
            if count > 1
        }
        return Findings(kept, self.failed | several, self.left_out)


class Photographs:
    """Finds the photograph that another tool means, below their folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise PatchwordError(f"no such folder of photographs: {root}")
        self.root = root
        self._names = frozenset(path.relative_to(root).as_posix() for path in find_images(root))
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._by_end: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            self._by_name[_key(name)].append(name)
            self._by_stem[_key(PurePosixPath(name).with_suffix("").as_posix())].append(name)
            self._by_end[_key(PurePosixPath(name).name)].append(name)

    def named(self, *wanted: str, place: str) -> str:
        """The photograph with this name, or the only one whose path ends like it.

        A name that fits none is tried without the eight digits that Label Studio puts before the name of an upload.
        """
        uploads = [short for each in wanted if (short := _without_upload_digits(each))]
        found = next(filter(None, map(self._fitting, [*wanted, *uploads])), [])
        hint = (
            "; uploads to Label Studio are renamed, and without its eight digits and '-' none fits" if uploads else ""
        )
        return self._only(found, wanted[0], place, hint=hint)

    def _exactly(self, wanted: str) -> list[str]:
        """Letter for letter, else the same but for how accents are composed."""
        return [wanted] if wanted in self._names else self._by_name[_key(wanted)]

    def _fitting(self, wanted: str) -> list[str]:
        exact = self._exactly(wanted)
        if exact:
            return exact
        parts = PurePosixPath(_key(wanted)).parts
        ends_alike = self._by_end[parts[-1]] if parts else []
        return [
            name
            for name in ends_alike
            if all(map(eq, reversed(PurePosixPath(_key(name)).parts), reversed(parts)))  # as far as both go
        ]

    def without_suffix(self, wanted: str, *, place: str) -> str:
        """The photograph with this name but for the suffix; with the suffix where two differ in nothing else."""
        return self._only(self._exactly(wanted) or self._by_stem[_key(wanted)], wanted, place)

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) in pixels of the upright photograph, without decoding it."""
        return image_size(self.root / name)

    def _only(self, found: Sequence[str], wanted: str, place: str, *, hint: str = "") -> str:
        if not found:
            raise PatchwordError(f"{place}: photograph {wanted!r} is not in {self.root}{hint}")
        if len(found) > 1:
            raise PatchwordError(f"{place}: photograph {wanted!r} may be {' or '.join(map(repr, found[:3]))}")
        return found[0]


def check_size(found: tuple[int, int], *, needed: tuple[int, int], place: str) -> None:
    """Refuse labels of another size (height, width) than their photograph."""
    if found != needed:
        raise SizeError(place, found=found, needed=needed)


def _key(name: str) -> str:
    """Archives and file systems compose accents differently."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _without_upload_digits(name: str) -> str:
    """The end of a path without what Label Studio puts before an upload's name; "" where nothing is before it."""
    last = PurePosixPath(_key(name)).name
    short = _UPLOADED.sub("", last)
    return short if short != last else ""
