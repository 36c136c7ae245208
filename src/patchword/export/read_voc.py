"""Reads PASCAL VOC segmentation masks, patchword's own and those that CVAT exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.colours import IGNORE_COLOUR
from patchword.components import NOTHING, connected_components
from patchword.errors import PatchwordError
from patchword.export.painting import Correction, Painted, Photographs, Region, check_size
from patchword.export.voc import VOID
from patchword.vocabulary import Vocabulary


@dataclass(frozen=True)
class _Table:
    """What values and colours of a mask mean; `NOTHING` for no class."""

    by_value: Mapping[int, int]
    by_colour: Mapping[tuple[int, int, int], int]


def read_voc(source: Path, *, photographs: Photographs, vocabulary: Vocabulary) -> list[Correction]:
    """The photographs of a folder with `SegmentationClass`, and `labelmap.txt` and lists where it has them.

    Classes are matched by name; without `labelmap.txt`, id i is class i - 1 of the vocabulary. Black, which tables call
    background, is no class, unless the vocabulary has a class of that name. 255 is no class.

    Raises:
        PatchwordError: when there are no masks, a name is no class of the vocabulary, or a photograph is not there.
    """
    folder = source / "SegmentationClass"
    if not folder.is_dir():
        raise PatchwordError(f"{source} is not a VOC folder: it has no folder SegmentationClass")
    table = _read_table(source / "labelmap.txt", vocabulary)
    stems = _listed(source) or sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")
    )
    if not stems:
        raise PatchwordError(f"{folder} holds no masks")
    return [
        Correction(photographs.without_suffix(stem, place=str(source)), partial(_painted, source, stem, table))
        for stem in stems
    ]


def _listed(source: Path) -> list[str]:
    lists = sorted((source / "ImageSets" / "Segmentation").glob("*.txt"))
    lines = [line.strip() for path in lists for line in _text(path).splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None


def _read_table(path: Path, vocabulary: Vocabulary) -> _Table:
    nothing = {VOID: NOTHING}
    if not path.is_file():
        return _Table({0: NOTHING} | {each + 1: each for each in range(len(vocabulary))} | nothing, {})
    by_value, by_colour = {}, {}
    rows = [line.strip() for line in _text(path).splitlines()]
    for value, row in enumerate(row for row in rows if row and not row.startswith("#")):
        name, _, rest = row.partition(":")
        colour = _colour(rest.partition(":")[0], place=f"{path}: {name}")
        by_value[value] = by_colour[colour] = _class_of(name, colour, vocabulary, path)
    return _Table(by_value | nothing, by_colour | {IGNORE_COLOUR: NOTHING})


def _colour(text: str, *, place: str) -> tuple[int, int, int]:
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise PatchwordError(f"{place} has the colour {text!r}; allowed is red,green,blue") from None
    return red, green, blue


def _class_of(name: str, colour: tuple[int, int, int], vocabulary: Vocabulary, path: Path) -> int:
    try:
        return vocabulary.index(name)
    except PatchwordError as error:
        if colour == (0, 0, 0) or name.casefold() in ("background", "unlabelled", "ignored", "void"):
            return NOTHING
        raise PatchwordError(f"{path}: {error}") from None


def _painted(source: Path, stem: str, table: _Table, size: tuple[int, int]) -> Painted:
    path = source / "SegmentationClass" / f"{stem}.png"
    indices = _indices(path, table)
    check_size((indices.shape[0], indices.shape[1]), needed=size, place=str(path))
    objects_path = source / "SegmentationObject" / f"{stem}.png"
    numbers = _numbers(objects_path, size) if objects_path.is_file() else connected_components(indices).labels
    keys = np.where(indices == NOTHING, NOTHING, indices * (int(numbers.max()) + 1) + numbers)
    regions = [
        Region(int(indices[mask][0]), mask) for mask in (keys == key for key in np.unique(keys) if key != NOTHING)
    ]
    return Painted(indices, tuple(regions))


def _indices(path: Path, table: _Table) -> NDArray[np.int64]:
    """(h, w) classes, by colour where all colours are known, by value otherwise."""
    image = _opened(path)
    if image.mode in ("P", "RGB", "RGBA"):
        packed = _packed(image)
        known = {red << 16 | green << 8 | blue: index for (red, green, blue), index in table.by_colour.items()}
        values, inverse = np.unique(packed, return_inverse=True)
        if all(value in known for value in values.tolist()):
            return np.array([known[value] for value in values.tolist()])[inverse].reshape(packed.shape)
        if image.mode != "P":
            unknown = next(value for value in values.tolist() if value not in known)
            raise PatchwordError(f"{path} has the colour #{unknown:06x}, which labelmap.txt does not name")
    raw = np.array(image)
    values, inverse = np.unique(raw, return_inverse=True)
    for value in values.tolist():
        if value not in table.by_value:
            raise PatchwordError(f"{path} has the value {value}, which is no class")
    return np.array([table.by_value[value] for value in values.tolist()])[inverse].reshape(raw.shape)


def _numbers(path: Path, size: tuple[int, int]) -> NDArray[np.int64]:
    """(h, w) a number for each object, whatever the picture calls it."""
    packed = _packed(_opened(path))
    check_size((packed.shape[0], packed.shape[1]), needed=size, place=str(path))
    return np.unique(packed, return_inverse=True)[1].reshape(packed.shape)


def _packed(image: Image.Image) -> NDArray[np.int64]:
    colours = np.array(image.convert("RGB")).astype(np.int64)
    packed: NDArray[np.int64] = colours @ np.array([65536, 256, 1])
    return packed


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in ("P", "L", "RGB", "RGBA"):
                raise PatchwordError(f"{path} is a picture of mode {image.mode}; a mask is indexed, grey or coloured")
            return image.copy()
    except PatchwordError:
        raise
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        raise PatchwordError(f"cannot read {path}: {' '.join(str(error).split())}") from None
