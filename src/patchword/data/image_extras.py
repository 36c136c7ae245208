"""Photographs that Pillow alone does not read, or reads wrongly: HEIF, and the rarer kinds of TIFF.

Both need a package that comes with an extra; neither is imported before such a photograph is met.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.image_values import bytes_of, bytes_of_file

HEIF_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _MEANING, _PLANES, _SIGN = 256, 257, 258, 259, 262, 284, 339  # tags of TIFF 6.0
_NODATA = 42113  # of GDAL
_WEBP = 50001


class UnreadableError(OSError):
    """A photograph that cannot be read, with a reason for a person."""


def too_large(most_pixels: int) -> str:
    """Why a photograph that may be a bomb is not decoded, and what to do with one that is none."""
    return (
        f"too large (the limit is {most_pixels:,} pixels): make it smaller, or segment it as a TIFF with "
        "patchword[geo], tile by tile"
    )


def is_heif(path: Path) -> bool:
    """Whether a file is HEIF, by what it begins with."""
    beginning = _beginning(path)
    return beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIF_BRANDS


def is_tiff(path: Path) -> bool:
    """Whether a file is TIFF, by what it begins with."""
    return _beginning(path).startswith(_TIFF_BEGINNINGS)


def open_heif(path: Path) -> Image.Image:
    """Open a HEIF photograph, as `PIL.Image.open` opens others.

    Raises:
        UnreadableError: without the extra.
        Exception: whatever its decoder raises for a damaged file.
    """
    heif = _package("pillow_heif", kind="HEIF", extra="heif")
    heif.register_heif_opener(thumbnails=False)
    return Image.open(path, formats=["HEIF"])


def misread_by_pillow(image: Image.Image) -> str | None:
    """What Pillow would get wrong without a word about an open TIFF; none when it reads it well."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS, (1,)))
    sign = tags.get(_SIGN, (1,))[0]
    if tags.get(_COMPRESSION) == _WEBP:
        return "compressed as WebP"
    if bits > 8 and tags.get(_PLANES) == 2 and len(tags.get(_BITS)) > 1:
        return f"of {bits}-bit planes"
    if bits > 8 and tags.get(_MEANING) == 0:
        return f"of {bits} bits where 0 is white"
    if (bits == 8 and sign == 2) or (bits == 32 and sign == 1):
        return f"of {bits}-bit values {'with' if sign == 2 else 'without'} a sign"
    return None


def tiff_bits(image: Image.Image) -> int | None:
    """Bits that each value of an open TIFF may use; none for other formats."""
    tags: Any = getattr(image, "tag_v2", {})
    return max(tags[_BITS]) if _BITS in tags else None


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an open photograph before it is turned upright; Pillow tells a TIFF's after."""
    tags: Any = getattr(image, "tag_v2", {})
    return (tags[_WIDTH], tags[_HEIGHT]) if _WIDTH in tags and _HEIGHT in tags else image.size


def tiff_nodata(image: Image.Image) -> float | None:
    """The value that a TIFF of GDAL says means nothing; None where it says none."""
    return _nodata(getattr(image, "tag_v2", {}).get(_NODATA))


def _nodata(said: object) -> float | None:
    try:
        number = float(str(said).strip("\0 "))
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # what is not a number is none of the values anyway


def read_tiff(path: Path, *, kind: str, most_pixels: int) -> tuple[NDArray[np.uint8], int]:
    """Read the first picture of a TIFF that Pillow cannot read.

    Args:
        path: the file.
        kind: what errors call such a TIFF.
        most_pixels: larger pictures are refused.

    Returns:
        (h, w, 1 to 4) grey, red, green and blue, each with alpha or without; and the EXIF orientation, 1 to 8.

    Raises:
        UnreadableError: without the extra, or for a picture that is too large or of other colours.
        Exception: whatever its decoder raises for a damaged file.
    """
    tifffile = _package("tifffile", kind=kind, extra="tiff")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.imagewidth * page.imagelength > most_pixels:
            raise UnreadableError(too_large(most_pixels))
        meaning = getattr(page.photometric, "name", str(page.photometric))
        colours = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}.get(meaning)
        axes = page.axes
        if colours is None or axes not in ("YX", "YXS", "SYX"):
            raise UnreadableError(f"a TIFF of {meaning} values with axes {axes}; only grey and RGB can be read")
        values = page.asarray()
        alpha = any(int(each) in (1, 2) for each in page.extrasamples[:1])
        orientation = int(page.tags[274].value) if 274 in page.tags else 1
        bits = int(page.bitspersample)
        nodata = _nodata(page.tags[_NODATA].value) if _NODATA in page.tags else None
    values = values[:, :, None] if axes == "YX" else values if axes == "YXS" else np.moveaxis(values, 0, -1)
    coloured, unsigned = values[:, :, :colours], values.dtype.kind == "u"
    shown = bytes_of_file(coloured, path=path, bits=bits if unsigned else None, nodata=nodata)
    shown = 255 - shown if meaning == "MINISWHITE" else shown
    if alpha and values.shape[2] > colours:
        shown = np.concatenate([shown, bytes_of(values[:, :, colours : colours + 1])], axis=2)
    return shown, orientation


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _package(name: str, *, kind: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise UnreadableError(
            f"{kind} needs the package {name.replace('_', '-')}; install patchword[{extra}]"
        ) from None
