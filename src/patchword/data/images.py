"""Reading photographs: every oddity of real files is dealt with here, once."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from patchword.data.image_extras import (
    SILENCE,
    UnreadableError,
    bytes_of_file,
    is_heif,
    is_tiff,
    misread_by_pillow,
    open_heif,
    read_tiff,
    stored_size,
    tiff_bits,
    tiff_nodata,
    too_large,
)
from patchword.data.storage import as_path, held
from patchword.data.storage import opened as opened_path
from patchword.errors import PatchwordError, StorageError, printable

if TYPE_CHECKING:
    from torch import Tensor

# Formats that Pillow opens but does not decode itself: they start other programs or have no decoder at all.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_ORIENTATION = 0x0112
_LONGEST_REASON = 200
_ROWS_AT_ONCE = 64

Read = TypeVar("Read")


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a photograph as upright 8-bit RGB, whatever it was stored as.

    EXIF orientation is applied. Of a file with several frames the first is taken. 16-bit values are scaled to 8. Wider
    integers count from 0 to 65535, floats from 0 to 1 or from 0 to 255, where they fit; where they do not they are
    stretched from their least to their greatest value. What a TIFF says is nodata, or what can only be (such as -9999
    far below all others, which a warning says), becomes black and does not count for that. Transparent pixels are laid
    over white, the page that such pictures are drawn for: the colours stored under them are arbitrary and would show if
    the alpha were dropped. HEIF needs the extra `heif`, rarer kinds of TIFF the extra `tiff`.

    Returns:
        (h, w, 3) uint8.
    """
    return _told(as_path(path), _read)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels of the upright photograph, without decoding it where its format allows."""
    return _told(as_path(path), _size)


def decode_image(
    data: bytes, *, name: str, formats: tuple[str, ...], check: Callable[[tuple[int, int]], None]
) -> NDArray[np.uint8]:
    """Read an image that is in memory, as `read_image` reads files.

    Args:
        data: the bytes of its file.
        name: what messages call it.
        formats: of Pillow, that are taken.
        check: is given (height, width) before anything is decoded, and raises where that is too large.

    Returns:
        (h, w, 3) uint8.
    """

    def read(path: Path) -> NDArray[np.uint8]:
        try:
            opened = Image.open(BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            raise UnreadableError("not an image, or a damaged one") from None
        with opened:
            check(_upright_size(opened))
            opened.load()
            return _pixels(_upright(opened), path=path, bits=None)

    return _told(Path(name), read)


def orientation_hint(path: str | Path, *, size: tuple[int, int]) -> str:
    """Why a mask may have another size than its photograph: it was drawn on the pixels as they are stored.

    Args:
        path: the photograph.
        size: (height, width) of the mask.

    Returns:
        what a message about the sizes may add; "" where the photograph's EXIF orientation is not the reason.
    """
    try:
        height, width = image_size(path)
        stored = _told(as_path(path), _stored_size)
    except PatchwordError:
        return ""
    if size != stored or size == (height, width):
        return ""
    return (
        f"; its pixels are stored as {size[1]} x {size[0]}, and its EXIF orientation turns them: masks must be of the "
        f"upright photograph, {width} x {height}"
    )


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Bring a photograph into the form that the models take.

    Args:
        image: (h, w, 3) uint8.

    Returns:
        (1, 3, h, w) float32 in [0, 1].
    """
    import torch

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PatchwordError(f"image must be uint8 (height, width, 3), not {image.dtype} of shape {image.shape}")
    channels_first = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return channels_first.to(torch.float32).div_(255)


def _told(path: Path, read: Callable[[Path], Read]) -> Read:
    """What reading gives, or the reason in one line why there is nothing."""
    try:
        with SILENCE:
            return read(held(path))
    except StorageError:
        raise
    except UnidentifiedImageError:
        reason = _why_unidentified(path)
    except Image.DecompressionBombError:
        reason = too_large(_most_pixels())
    except MemoryError:
        reason = "not enough memory to decode it"
    except UnreadableError as error:
        reason = str(error)
    except PatchwordError:
        raise
    except OSError as error:
        reason = error.strerror or f"damaged ({error})"
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        reason = f"damaged ({error or type(error).__name__})"
    raise PatchwordError(f"cannot read {printable(path)}: {_one_line(reason)}") from None


def _one_line(reason: str) -> str:
    """A reason with no more than a line holds; decoders quote what they found, which may be anything."""
    line = "".join(each if each.isprintable() else " " for each in reason)
    return textwrap.shorten(line, _LONGEST_REASON, placeholder="...")


def _why_unidentified(path: Path) -> str:
    return "the file is empty" if path.stat().st_size == 0 else "not an image that can be read"


def _read(path: Path) -> NDArray[np.uint8]:
    _check_file(path)
    try:
        with Image.open(opened_path(path), formats=formats()) as opened:
            trouble = misread_by_pillow(opened)
            if trouble is None:
                opened.load()
                return _pixels(_upright(opened), path=path, bits=tiff_bits(opened), nodata=tiff_nodata(opened))
            return _read_rare_tiff(path, f"a TIFF {trouble}")
    except UnidentifiedImageError:
        if is_heif(path):
            with open_heif(path) as photograph:
                photograph.load()
                return _pixels(_upright(photograph), path=path, bits=None)
        if is_tiff(path):
            return _read_rare_tiff(path, "damaged, or a kind of TIFF that")
        raise


def _size(path: Path) -> tuple[int, int]:
    _check_file(path)
    try:
        with Image.open(opened_path(path), formats=formats()) as opened:
            return _upright_size(opened)
    except UnidentifiedImageError:
        if not is_heif(path):
            height, width, _ = _read(path).shape
            return height, width
        with open_heif(path) as photograph:
            return _upright_size(photograph)


def _stored_size(path: Path) -> tuple[int, int]:
    with Image.open(opened_path(path), formats=formats()) as opened:
        width, height = stored_size(opened)
    return height, width


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = stored_size(image)
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except MemoryError:
        raise
    except Exception:  # as in `_upright`
        turned = False
    return (width, height) if turned else (height, width)


def _check_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        raise UnreadableError("not a file")


def _read_rare_tiff(path: Path, kind: str) -> NDArray[np.uint8]:
    values, orientation = read_tiff(path, kind=kind, most_pixels=_most_pixels())
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    image.getexif()[_ORIENTATION] = orientation
    return _pixels(_upright(image), path=path, bits=None)


def _pixels(upright: Image.Image, *, path: Path, bits: int | None, nodata: float | None = None) -> NDArray[np.uint8]:
    """(h, w, 3) of a picture of any mode."""
    if upright.mode == "F":
        return _grey_to_rgb(bytes_of_file(np.asarray(upright), path=path, nodata=nodata))
    if upright.mode.startswith("I"):
        narrow = bits if bits is not None and bits < 16 else None
        return _grey_to_rgb(bytes_of_file(np.asarray(upright), path=path, bits=narrow, nodata=nodata))
    if upright.has_transparency_data:
        return _rows_of(_over_white(upright.convert("RGBA")))
    return _rows_of(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _rows_of(picture: Image.Image) -> NDArray[np.uint8]:
    """(h, w, 3) of an RGB picture, some rows at a time: as a whole Pillow takes four times as long."""
    width, height = picture.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if turned else image  # which copies every other one, too
    except MemoryError:
        raise
    except Exception:  # damaged EXIF: the pixels are good, so the picture counts, as it was stored
        return image


def _over_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)  # (h, w, 3)


@cache
def formats() -> tuple[str, ...]:
    """Pillow's formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NOT_DECODED)


def _most_pixels() -> int:
    return 2 * (Image.MAX_IMAGE_PIXELS or 0)
