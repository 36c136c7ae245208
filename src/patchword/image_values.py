"""Values of pictures of any depth as 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FULL_16 = 65535


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
