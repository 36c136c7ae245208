"""What the head of an image file tells: its size, and whether it is segmented tile by tile."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

from patchword.config.segment import SegmentSettings
from patchword.data.images import image_size
from patchword.data.storage import beginning, is_stored
from patchword.errors import PatchwordError
from patchword.runs.pipeline import read_ahead

_BEGINNING = 1 << 16  # bytes of a stored image, in which most tell their size
_WHOLE = 1 << 23  # bytes of a stored image: a smaller one is kept
_KEPT = 1 << 27  # bytes that are fetched of all to be kept; bounds memory, changes no result
_AT_ONCE = 8  # files that are opened at once, which takes no memory


class Head(NamedTuple):
    """What the head of a file tells.

    Attributes:
        pixels: how many the image has; 0 where it cannot be read.
        in_tiles: whether it is segmented tile by tile.
    """

    pixels: int
    in_tiles: bool


def read_head(path: Path, *, settings: SegmentSettings) -> Head:
    """How large an image is, and whether it wants tiles: a TIFF with a georeference, or more than `large_megapixels`.

    Only the head of the file is read. Files that cannot be read do not want tiles; reading them says why.
    """
    return _read(path, settings=settings, most=_BEGINNING)[1]


def read_heads(paths: Sequence[Path], *, settings: SegmentSettings, keep: bool) -> Iterator[tuple[Path, Head]]:
    """The heads of many images, and their paths; with `keep` stored ones have their bytes, as far as these are few, so
    that who reads them next needs no request."""
    kept = 0
    sizes = (_WHOLE if keep and kept < _KEPT else _BEGINNING for _ in paths)
    tasks = (partial(_read, path, settings=settings, most=most) for path, most in zip(paths, sizes, strict=True))
    with closing(read_ahead(tasks, ahead=_AT_ONCE, threads=_AT_ONCE)) as heads:
        for path, (found, head) in zip(paths, heads, strict=True):
            yield found if keep and kept < _KEPT else path, head
            kept += _WHOLE if found is path else found.stat().st_size


def _read(path: Path, *, settings: SegmentSettings, most: int) -> tuple[Path, Head]:
    """The head of an image, and its path; a stored one with its bytes where they are fewer than `most`."""
    first = beginning(path, most)
    head = _head_of(first, settings=settings)
    if first is path or first.stat().st_size < most:
        return first, head
    return path, head if head.pixels else _head_of(path, settings=settings)


def _head_of(path: Path, *, settings: SegmentSettings) -> Head:
    header = read_tiff_header(path)
    try:
        height, width = image_size(path) if header is None else header.size
    except PatchwordError:
        return Head(0, in_tiles=False)
    georeferenced = header is not None and header.georeferenced
    large = settings.large_megapixels is not None and height * width > settings.large_megapixels * 1_000_000
    return Head(height * width, in_tiles=georeferenced or large)


_WIDTH, _HEIGHT, _MEANING, _ORIENTATION = 256, 257, 262, 274  # tags of TIFF 6.0
_GEOREFERENCE = frozenset({33550, 33922, 34264, 34735})  # of GeoTIFF: scale, tie points, transformation, keys
_WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld")
_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of TIFF that hold whole numbers
_MOST_TAGS = 4096


@dataclass(frozen=True)
class TiffHeader:
    """The first picture of a TIFF.

    Attributes:
        size: (height, width) in pixels as stored.
        georeferenced: whether its own tags, or a world file beside it, say where on earth it lies.
        upright: whether it is stored as it is to be seen.
        meaning: what its values are: 0 and 1 grey, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr; -1 when it does not say.
    """

    size: tuple[int, int]
    georeferenced: bool
    upright: bool
    meaning: int


def read_tiff_header(path: Path) -> TiffHeader | None:
    """Read the head of a TIFF or BigTIFF; None for any other file, a damaged one or one that cannot be read."""
    try:
        with path.open("rb") as file:
            tags = _first_tags(file)
    except (OSError, struct.error, OverflowError):
        return None
    if tags is None or not tags.get(_WIDTH) or not tags.get(_HEIGHT):
        return None
    return TiffHeader(
        size=(tags[_HEIGHT], tags[_WIDTH]),
        georeferenced=bool(_GEOREFERENCE & tags.keys()) or _has_world_file(path),
        upright=tags.get(_ORIENTATION, 1) in (0, 1),
        meaning=tags.get(_MEANING, -1),
    )


def _has_world_file(path: Path) -> bool:
    if is_stored(path):  # a request for each name
        return False
    names = (path.with_suffix(suffix) for each in _WORLD_FILES for suffix in (each, each.upper()))
    return any(name.is_file() for name in names)


def _first_tags(file: IO[bytes]) -> dict[int, int] | None:
    """Tag -> its first value where that is a whole number that stands in the directory itself, else 0."""
    beginning = file.read(4)
    if beginning[:2] not in (b"II", b"MM") or len(beginning) < 4:
        return None
    order = "<" if beginning[:2] == b"II" else ">"
    version = struct.unpack(order + "H", beginning[2:])[0]
    if version not in (42, 43):
        return None
    big = version == 43
    if big:
        file.seek(8)
    offset = _number(file, order + ("Q" if big else "I"))
    file.seek(offset)
    count = _number(file, order + ("Q" if big else "H"))
    if count > _MOST_TAGS:
        return None
    return dict(_entry(file.read(20 if big else 12), order=order, big=big) for _ in range(count))


def _number(file: IO[bytes], form: str) -> int:
    number: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return number


def _entry(entry: bytes, *, order: str, big: bool) -> tuple[int, int]:
    tag, kind, _, value = struct.unpack(order + ("HHQ8s" if big else "HHI4s"), entry)
    if kind not in _SIZES or struct.calcsize(_SIZES[kind]) > len(value):
        return tag, 0
    form = order + _SIZES[kind]
    return tag, struct.unpack(form, value[: struct.calcsize(form)])[0]


_READ_AS_THEY_ARE = frozenset({1, 2, 3, 6})  # grey from black, RGB, palette, YCbCr


def reads_by_windows(path: Path) -> bool:
    """Whether rasterio reads a file part by part: a TIFF that is upright and in usual colours, or georeferenced."""
    header = read_tiff_header(path)
    if header is None or header.georeferenced:
        return header is not None
    if not header.upright or header.meaning not in _READ_AS_THEY_ARE:
        return False
    return find_spec("rasterio") is not None
