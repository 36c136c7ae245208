"""Finding and reading photographs: every oddity of real files is dealt with here, once."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from torch import Tensor

# Formats that Pillow opens but does not decode itself: they start other programs or have no decoder at all.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def find_images(source: str | Path, *, recursive: bool = True, follow_links: bool = True) -> list[Path]:
    """Find the photographs in a folder, by extension, whatever its letter case.

    Hidden files and folders are skipped. A folder or file reached twice through links counts once, under its own name
    where it has one inside the source.

    Args:
        source: a folder, or one file, which is taken whatever its extension.
        recursive: whether folders inside the folder are searched.
        follow_links: whether symbolic links to files and folders count.

    Returns:
        paths that start with `source`, sorted by their relative path with forward slashes.

    Raises:
        PatchwordError: when there is no such file or folder, it cannot be searched, or it holds no photographs.
    """
    source = Path(source)
    try:
        missing = not source.exists()
    except OSError as error:
        raise PatchwordError(f"cannot search {source}: {error.strerror}") from None
    if missing:
        raise PatchwordError(f"no such file or folder: {source}; pass a photograph or a folder of photographs")
    if not source.is_dir():
        return [source]
    found: dict[Path, _Candidate] = {}
    for candidate in sorted(_candidates(source, recursive, follow_links), key=lambda each: (each.linked, each.name)):
        found.setdefault(candidate.identity, candidate)
    if not found:
        raise PatchwordError(f"no photographs in {source}; looked for {', '.join(_common_extensions())} and the like")
    return [candidate.path for candidate in sorted(found.values(), key=lambda each: each.name)]


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a photograph as upright 8-bit RGB, whatever it was stored as.

    EXIF orientation is applied. Of a file with several frames the first is taken. 16-bit values are scaled to 8. Wider
    integers count from 0 to 65535, floats from 0 to 1 or from 0 to 255, where they fit; where they do not they are
    stretched from their least to their greatest value. Transparent pixels are laid over white, the page that such
    pictures are drawn for: the colours stored under them are arbitrary and would show if the alpha were dropped.

    Returns:
        (h, w, 3) uint8.

    Raises:
        PatchwordError: when the file is missing, not an image, truncated, damaged or too large, with the reason.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of pictures half as large as those it refuses; both are read.
            warnings.simplefilter("ignore")
            return _read(path)
    except UnidentifiedImageError:
        reason = "the file is empty" if path.stat().st_size == 0 else "not an image that can be read"
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        reason = f"too large; allowed are {limit:,} pixels"
    except MemoryError:
        reason = "not enough memory to decode it"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        reason = f"damaged ({error})"
    raise PatchwordError(f"cannot read {path}: {' '.join(reason.split())}")


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Bring a photograph into the form that the models take.

    Args:
        image: (h, w, 3) uint8.

    Returns:
        (1, 3, h, w) float32 in [0, 1].

    Raises:
        PatchwordError: for any other shape or type.
    """
    import torch

    _check_photograph(image)
    channels_first = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return channels_first.to(torch.float32).div_(255)


def _check_photograph(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PatchwordError(f"image is {image.dtype} of shape {image.shape}; allowed is uint8 (height, width, 3)")


def _read(path: Path) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        raise OSError("not a file")
    with Image.open(path, formats=_formats()) as opened:
        opened.load()
        upright = _upright(opened)
        if upright.mode == "F":
            return _grey_to_rgb(_float_to_bytes(np.asarray(upright)))
        if upright.mode.startswith("I"):
            return _grey_to_rgb(_integers_to_bytes(np.asarray(upright), upright.mode))
        if upright.has_transparency_data:
            return np.array(_over_white(upright.convert("RGBA")))
        return np.array(upright.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF: the pixels are good, so the picture counts, as it was stored
        return image


def _over_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)  # (h, w, 3)


def _integers_to_bytes(values: NDArray[np.integer], mode: str) -> NDArray[np.uint8]:
    """16-bit greyscale, and 32-bit where it holds no more than that, by its full range; wider values stretched."""
    if mode == "I" and (values.min() < 0 or values.max() > 65535):
        return _stretched(values.astype(np.float64))
    nearest: NDArray[np.uint32] = (values.astype(np.uint32) + 128) // 257
    return nearest.astype(np.uint8)


def _float_to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
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


class _Candidate(NamedTuple):
    """A file that looks like a photograph: where it is, what it is called in the source, what it really is."""

    path: Path
    name: str
    identity: Path
    linked: bool


def _candidates(source: Path, recursive: bool, follow_links: bool) -> Iterator[_Candidate]:
    """Every folder once, real ones before those reached through links, so that a loop of links ends."""
    visited: set[Path] = set()
    real, linked = [source], list[Path]()
    while real or linked:
        through_link = not real
        folder = (real or linked).pop(0)
        identity = Path(os.path.realpath(folder))
        if identity in visited:
            continue
        visited.add(identity)
        for entry in _entries(folder):
            is_link = entry.is_symlink()
            if is_link and not follow_links:
                continue
            path = Path(entry.path)
            if _is_folder(entry):
                (linked if is_link or through_link else real).append(path)
            elif path.suffix.lower() in _extensions() and _may_be_file(entry):
                file_identity = Path(os.path.realpath(path)) if is_link else identity / entry.name
                yield _Candidate(path, path.relative_to(source).as_posix(), file_identity, is_link or through_link)
        if not recursive:
            return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that is closed to us
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A link to nothing counts too, so that reading it names the file instead of losing it; a pipe does not."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise PatchwordError(f"cannot search folder {folder}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: entry.name)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NOT_DECODED)


@cache
def _extensions() -> frozenset[str]:
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


def _common_extensions() -> list[str]:
    return [suffix for suffix in (".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif") if suffix in _extensions()]
