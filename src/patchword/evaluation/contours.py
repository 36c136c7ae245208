"""Which pixels are near a contour of a label map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError

Indices = NDArray[np.integer[Any]]

DILATION = 0.02


def boundary_reach(shape: tuple[int, ...], *, dilation: float = DILATION) -> int:
    """How many pixels from a contour belong to a boundary: a share of the diagonal, rounded, at least one.

    Args:
        shape: height and width in pixels.
        dilation: the share.
    """
    if not 0 < dilation < math.inf:
        raise PatchwordError(
            f"boundary dilation is {dilation}; allowed is a share of the diagonal above 0, such as 0.02"
        )
    return max(1, round(dilation * math.hypot(shape[0], shape[1])))


def on_boundary(labels: Indices, *, valid: NDArray[np.bool_], count: int, reach: int) -> NDArray[np.bool_]:
    """Which pixels have another label, or the outside of the image, within a square of `reach` pixels around them.

    All classes at once: a label and its complement are bits of one word, the words of a square are or-ed, and a bit
    that is there together with its complement tells of two labels. The square is done along rows, then along columns,
    in steps that double, so that the work grows with the logarithm of its side.

    Args:
        labels: (h, w) integers from 0 to `count`; any other where not valid.
        valid: (h, w) pixels that count; the others are on no boundary and make none.
        count: the largest label, 1 or more.
        reach: half the square's side in pixels, 1 or more.

    Returns:
        (h, w).
    """
    height, width = labels.shape
    if min(height, width) <= 2 * reach:
        return valid.copy()
    bits = count.bit_length()
    words = _words(labels, valid, bits=bits)
    seen = _or_along(_or_along(words, reach=reach, step=1), reach=reach, step=width)
    edge = np.ones(height * width, dtype=bool)
    first = reach * width + reach  # the square around this pixel begins with the image's first
    edge[first : first + len(seen)] = seen & (seen >> bits) & ((1 << bits) - 1)
    edge = edge.reshape(height, width)
    edge[:, :reach] = edge[:, -reach:] = True  # squares there ran over into the next row
    edge &= valid
    return edge


def _words(labels: Indices, valid: NDArray[np.bool_], *, bits: int) -> NDArray[Any]:
    """Labels and, above them, their complements, flat; 0 where not valid."""
    kind = np.uint8 if bits <= 4 else np.uint16 if bits <= 8 else np.uint32
    words: NDArray[Any] = labels.astype(kind).ravel()
    words |= (words ^ ((1 << bits) - 1)) << bits
    words *= valid.ravel()
    return words


def _or_along(words: NDArray[Any], *, reach: int, step: int) -> NDArray[Any]:
    """Each element or-ed with the 2 x reach elements that follow it at distances of `step`; shorter by those."""
    have, wanted = 1, 2 * reach + 1
    while have < wanted:
        more = min(have, wanted - have)
        words = words[: -more * step] | words[more * step :]
        have += more
    return words
