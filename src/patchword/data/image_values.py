"""Values of pictures of any depth as 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import warn_of_file

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
