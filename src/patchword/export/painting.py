"""What a person's corrections come down to: for each photograph a label map and its regions."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from patchword.components import NOTHING
from patchword.errors import PatchwordError
from patchword.images import find_images, image_size


@dataclass(frozen=True, eq=False)
class Region:
    """A mask with a name.

    Attributes:
        class_index: position in the vocabulary.
        mask: (h, w) bool.
    """

    class_index: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Painted:
    """A corrected photograph.

    Attributes:
        indices: (h, w) int64, positions in the vocabulary, `NOTHING` (-1) where there is no class.
        regions: what it is made of.
    """

    indices: NDArray[np.int64]
    regions: tuple[Region, ...]

    @classmethod
    def of(cls, regions: Iterable[Region], *, size: tuple[int, int]) -> Painted:
        """Paint regions over each other, the last on top; empty ones are left out."""
        kept = tuple(region for region in regions if region.mask.any())
        indices = np.full(size, NOTHING, dtype=np.int64)
        for region in kept:
            indices[region.mask] = region.class_index
        return cls(indices, kept)


@dataclass(frozen=True)
class Correction:
    """One photograph's labels, not read yet.

    Attributes:
        name: the photograph's, relative to the photographs' folder.
        load: reads them, given the photograph's (height, width); raises PatchwordError when they cannot be used.
    """

    name: str
    load: Callable[[tuple[int, int]], Painted]


class Photographs:
    """Finds the photograph that another tool means.

    Args:
        root: their folder.

    Raises:
        PatchwordError: when there are none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name = {_key(name): name for name in _names(root)}
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._by_end: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._by_name.values():
            self._by_stem[_key(PurePosixPath(name).with_suffix("").as_posix())].append(name)
            self._by_end[_key(PurePosixPath(name).name)].append(name)

    def named(self, wanted: str, *, place: str) -> str:
        """The photograph with this name, or the only one whose path ends like it.

        Args:
            wanted: a relative path, or the end or the beginning and the whole of one.
            place: what errors call the file that wants it.

        Raises:
            PatchwordError: when there is none, or more than one.
        """
        exact = self._by_name.get(_key(wanted))
        if exact is not None:
            return exact
        parts = PurePosixPath(_key(wanted)).parts
        ends_alike = self._by_end[parts[-1]] if parts else []
        near = [name for name in ends_alike if _same_end(PurePosixPath(_key(name)).parts, parts)]
        return self._only(near, wanted, place)

    def without_suffix(self, wanted: str, *, place: str) -> str:
        """The photograph with this name but for the suffix; with the suffix where two differ in nothing else.

        Raises:
            PatchwordError: when there is none, or more than one.
        """
        exact = self._by_name.get(_key(wanted))
        return exact if exact is not None else self._only(self._by_stem[_key(wanted)], wanted, place)

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) in pixels of the upright photograph, without decoding it.

        Raises:
            PatchwordError: when it cannot be read.
        """
        return image_size(self.root / name)

    def _only(self, found: Sequence[str], wanted: str, place: str) -> str:
        if not found:
            raise PatchwordError(f"{place}: photograph {wanted!r} is not in {self.root}")
        if len(found) > 1:
            raise PatchwordError(f"{place}: photograph {wanted!r} may be {' or '.join(map(repr, found[:3]))}")
        return found[0]


def check_size(found: tuple[int, int], *, needed: tuple[int, int], place: str) -> None:
    """Refuse labels of another size than their photograph.

    Raises:
        PatchwordError: naming both sizes.
    """
    if found != needed:
        raise PatchwordError(
            f"{place}: labels are of {found[0]} x {found[1]} pixels, the photograph is {needed[0]} x {needed[1]}"
        )


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        raise PatchwordError(f"no such folder of photographs: {root}")
    return [path.relative_to(root).as_posix() for path in find_images(root)]


def _key(name: str) -> str:
    """Archives and file systems compose accents differently."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _same_end(first: Sequence[str], second: Sequence[str]) -> bool:
    shared = min(len(first), len(second))
    return tuple(first[-shared:]) == tuple(second[-shared:])
