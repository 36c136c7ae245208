"""COCO's segmentations as masks: polygons, run lengths and compressed run lengths, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.errors import SizeError, UnusableError

_LEAST_POINTS = 3
_MOST_BITS = 60  # of a run's length; anything longer is damage
_NO_OUTLINE = "object without an outline"
_FLAT = "object whose outline is a flat list of numbers instead of a list of polygons"
_TOO_FEW = f"object whose outline has fewer than {_LEAST_POINTS} points"
_OUTSIDE = "object whose outline lies far outside the photograph"
_DAMAGED = "object whose outline is damaged"
_NOT_FILLED = "object whose run lengths do not fill the photograph"


def decode_segmentation(segmentation: Any, *, size: tuple[int, int]) -> tuple[NDArray[np.bool_], int]:
    """The mask of an object.

    Args:
        segmentation: what an annotation has of that name: a list of polygons, or a record of `size` and `counts`.
        size: (height, width) of the photograph in pixels.

    Returns:
        (h, w) bool, and how many parts of fewer than 3 points were left out.
    """
    if segmentation is None or segmentation in ([], {}, ""):
        raise UnusableError(_NO_OUTLINE)
    try:
        if isinstance(segmentation, list):
            return _of_polygons(segmentation, size)
        if isinstance(segmentation, Mapping):
            return _of_runs(segmentation, size), 0
    except (AttributeError, KeyError, OverflowError, TypeError):
        raise UnusableError(_DAMAGED) from None
    except ValueError as error:
        raise error if isinstance(error, (UnusableError, SizeError)) else UnusableError(_DAMAGED) from None
    raise UnusableError(_DAMAGED)


def id_key(value: Any) -> str:
    """An id as a key: a number or a text; writers mix 7 and "7"."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{value!r} is not an id")
    return str(value)


def filled(points: NDArray[np.float64], *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (h, w) inside a polygon as pycocotools fills it; a hole that is reached over a bridge stays empty.

    Args:
        points: (n, 2) x, y in pixels, 3 or more.
        size: (height, width).
    """
    height, width = size
    encoded = coco_mask.frPyObjects([points.ravel().tolist()], height, width)
    mask: NDArray[np.bool_] = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
    return mask


def filled_safely(points: NDArray[np.float64], *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """As `filled`, for points that somebody else has written."""
    if len(points) < _LEAST_POINTS:
        raise UnusableError(_TOO_FEW)
    if not np.isfinite(points).all():
        raise UnusableError(_DAMAGED)
    sides = np.array(size[::-1])
    if (points < -sides).any() or (points > 2 * sides).any():
        raise UnusableError(_OUTSIDE)
    return filled(points, size=size)


def polygon_points(ring: Any) -> NDArray[np.float64]:
    """The points (n, 2) of a polygon: x, y, x, y, ... or pairs of them."""
    points = np.array(ring, dtype=np.float64)
    if points.ndim == 2 and points.shape[1] != 2:
        raise ValueError("a point has two coordinates")
    return points.reshape(-1, 2)


def _of_polygons(rings: Sequence[Any], size: tuple[int, int]) -> tuple[NDArray[np.bool_], int]:
    if not all(isinstance(ring, list) for ring in rings):
        raise UnusableError(_FLAT if all(isinstance(each, (int, float)) for each in rings) else _DAMAGED)
    polygons = [polygon_points(ring) for ring in rings]
    usable = [points for points in polygons if len(points) >= _LEAST_POINTS]
    if not usable:
        raise UnusableError(_TOO_FEW if any(map(len, polygons)) else _NO_OUTLINE)
    mask = np.zeros(size, dtype=bool)
    for points in usable:
        mask |= filled_safely(points, size=size)
    return mask, len(polygons) - len(usable)


def _of_runs(segmentation: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = (_whole(side) for side in segmentation["size"])
    if (height, width) != size:
        raise SizeError("the run lengths of an object", found=(height, width), needed=size)
    counts = segmentation["counts"]
    runs = runs_of_text(counts) if isinstance(counts, str) else [_whole(count) for count in counts]
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise UnusableError(_NOT_FILLED)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _whole(value: Any) -> int:
    number = int(value)
    if number != value or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")
    return number


def runs_of_text(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a character, each but the first three the step from two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            raise ValueError(f"{chr(character)!r} cannot stand there")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("it ends too early")
    return runs
