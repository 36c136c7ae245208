"""Photographs that Pillow alone does not read, or reads wrongly: HEIF, and the rarer kinds of TIFF.

Both need a package that comes with an extra; neither is imported before such a photograph is met.
"""

from __future__ import annotations

import ctypes
import logging
import math
import threading
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import _imaging as imaging_library

from patchword.data.storage import opened
from patchword.errors import warn_of_file

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
    """Open a HEIF photograph, as `PIL.Image.open` opens others."""
    heif = _package("pillow_heif", kind="HEIF", extra="heif")
    heif.register_heif_opener(thumbnails=False)
    return Image.open(opened(path), formats=["HEIF"])


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
    """
    tifffile = _package("tifffile", kind=kind, extra="tiff")
    with tifffile.TiffFile(opened(path)) as file:
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


_DECODERS = r"PIL\.|pillow_heif|tifffile|patchword\.image"


class _Silence:
    """Keeps decoders from writing on the screen: Pillow warns of odd metadata, which is read all the same.

    Filters of warnings belong to the process and photographs are read by several threads, so that the first to come in
    sets the filter and the last to leave takes it away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                _silence_libtiff()
                for name in ("PIL", "tifffile"):  # without a handler, Python writes on the screen what they log
                    logger = logging.getLogger(name)
                    if not logger.handlers:
                        logger.addHandler(logging.NullHandler())
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=_DECODERS)  # others' warnings are others' business
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


SILENCE = _Silence()


@cache
def _silence_libtiff() -> None:
    """Keep the library that decodes TIFFs for Pillow from writing to standard error, once and for all.

    It writes past Python whatever it finds wrong with a file. Where Pillow was built so that its library cannot be
    reached, it goes on writing.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(imaging_library.__file__)  # looks into the libraries that it was linked with, too
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


_FULL_16 = 65535
_CUSTOMARY = (-9999.0, -99999.0, -32767.0, -32768.0, float(np.finfo(np.float32).min))  # what programs write for nodata


def bytes_of_file(
    values: NDArray[Any], *, path: Path, bits: int | None = None, nodata: float | None = None
) -> NDArray[np.uint8]:
    """Scale a file's values to 0 to 255; what means that there is nothing becomes 0 and does not count in the scale.

    Args:
        values: as for `bytes_of`.
        path: of the file, for the warning where a value is taken as nodata by itself (`customary_nodata`).
        bits: as for `bytes_of`.
        nodata: the value that the file itself says means nothing; None where it says none.
    """
    if values.dtype.kind not in "if":  # others are scaled by their type, whatever values there are
        return bytes_of(values, bits=bits)
    if nodata is None:
        nodata = customary_nodata(values)
        if nodata is not None:
            share = (values == nodata).mean()
            told = f"{path}: {share:.1%} of its values are {nodata:g}, which is taken as nodata"
            warn_of_file(told, path=path)
    nothing = is_nodata(values, nodata)
    if nodata is None or not nothing.any():
        return bytes_of(values, bits=bits)
    there = values[~nothing]
    scaled = bytes_of(np.where(nothing, there.min() if there.size else 0, values), bits=bits)
    scaled[nothing] = 0
    return scaled


def is_nodata(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Where values are the one that means nothing; nowhere for None, and for one that their type cannot hold."""
    if nodata is None or (values.dtype.kind in "iu" and not _fits(nodata, values.dtype)):
        return np.zeros(values.shape, dtype=np.bool_)
    with np.errstate(over="ignore"):
        same: NDArray[np.bool_] = values == values.dtype.type(nodata)
    return same


def customary_nodata(values: NDArray[Any]) -> float | None:
    """The least value, where it is one that programs write for nothing and lies far below all others."""
    if values.dtype.kind not in "if":
        return None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    least = finite.min()
    above = finite[finite > least].astype(np.float64)
    customary = float(least) in _CUSTOMARY or least == np.finfo(np.float64).min
    if not customary or not above.size or above.min() - float(least) < 0.5 * (above.max() - above.min()):
        return None
    return float(least)


def _fits(number: float, dtype: np.dtype[Any]) -> bool:
    return number == int(number) and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def bytes_of(values: NDArray[Any], *, bits: int | None = None) -> NDArray[np.uint8]:
    """Scale values to 0 to 255.

    Args:
        values: of any shape and any type of number or truth.
        bits: how many each unsigned value may use; by default all that its type has. Wider values than 16 bits count
            from 0 to 65535, floats from 0 to 1 or from 0 to 255, where they fit; where they do not, and for values
            with a sign, the least is 0 and the greatest 255.
    """
    if values.dtype == np.bool_:
        return np.where(values, np.uint8(255), np.uint8(0))
    if np.issubdtype(values.dtype, np.floating):
        return _from_floats(values)
    if np.issubdtype(values.dtype, np.signedinteger) and (values.itemsize < 4 or values.min() < 0):
        return _stretched(values.astype(np.float64))
    if values.itemsize > 2:
        return _from_integers(values, _FULL_16) if values.max() <= _FULL_16 else _stretched(values.astype(np.float64))
    full = (1 << (bits or 8 * values.itemsize)) - 1
    return values.astype(np.uint8) if full == 255 else _from_integers(values, full)


def _from_integers(values: NDArray[np.integer[Any]], full: int) -> NDArray[np.uint8]:
    nearest: NDArray[np.uint32] = (np.minimum(values, full).astype(np.uint32) * 255 + full // 2) // full
    return nearest.astype(np.uint8)


def _from_floats(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    finite: NDArray[np.float64] = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = finite.min(), finite.max()
    if low >= 0 and high <= 1:
        finite *= 255
    elif low < 0 or high > 255:
        return _stretched(finite)
    return np.rint(finite, out=finite).astype(np.uint8)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled: NDArray[np.float64] = np.rint((values - low) / (high - low) * 255)
    return scaled.astype(np.uint8)
