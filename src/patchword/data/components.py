"""Connected pieces of a map of values, by runs along its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = -1


@dataclass(frozen=True, eq=False)
class Components:
    """The connected pieces of a map.

    Attributes:
        labels: (h, w) int32, 0 where there is nothing, else the piece's number from 1 in the order of first pixels.
        areas: (n,) pixels of each piece.
        boxes: (n, 4) x, y, width, height of each piece.
    """

    labels: NDArray[np.int32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]


def connected_components(values: NDArray[np.integer[Any]]) -> Components:
    """Pieces of equal value; pixels that touch by a side or a corner are connected.

    Args:
        values: (h, w); `NOTHING` (-1) belongs to no piece.
    """
    height, width = values.shape
    flat = values.ravel()
    begins = np.ones(flat.size, dtype=bool)
    begins[1:] = flat[1:] != flat[:-1]
    begins[::width] = True
    all_starts = np.flatnonzero(begins)
    all_lengths = np.diff(all_starts, append=flat.size)
    filled = flat[all_starts] != NOTHING
    starts, lengths = all_starts[filled], all_lengths[filled]
    roots = _united(len(starts), _touching(starts, lengths, flat[starts], width))
    number = np.unique(roots, return_inverse=True)[1].reshape(-1) + 1  # roots are first runs, so in order of pixels
    labels = np.zeros(len(all_starts), dtype=np.int32)
    labels[filled] = number
    return Components(
        labels=np.repeat(labels, all_lengths).reshape(height, width),
        areas=np.bincount(number, weights=lengths)[1:].astype(np.int64) if len(number) else np.zeros(0, np.int64),
        boxes=_boxes(starts, lengths, number - 1, width),
    )


def _touching(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], values: NDArray[np.integer[Any]], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of runs (below, above) of one value in neighbouring rows that overlap or meet at a corner."""
    ends = starts + lengths
    first = np.searchsorted(ends, starts - width, side="left")
    last = np.searchsorted(starts, ends - width, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(starts)), counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    rows = starts // width
    good = (rows[above] == rows[below] - 1) & (values[above] == values[below])
    return below[good], above[good]


def _united(count: int, pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.int64]:
    """For each of `count` things the least thing that it hangs together with through the pairs."""
    parent = np.arange(count)
    first, second = pairs
    while len(first):
        one, other = parent[first], parent[second]
        apart = one != other
        if not apart.any():
            break
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        least = np.minimum(one, other)
        np.minimum.at(parent, one, least)
        np.minimum.at(parent, other, least)
        while (parent[parent] != parent).any():
            parent = parent[parent]
    return parent


def _boxes(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], piece: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    count = int(piece.max()) + 1 if len(piece) else 0
    rows, left = starts // width, starts % width
    least = np.full((count, 2), np.iinfo(np.int64).max)
    most = np.zeros((count, 2), dtype=np.int64)
    np.minimum.at(least, piece, np.stack([left, rows], axis=1))
    np.maximum.at(most, piece, np.stack([left + lengths, rows + 1], axis=1))
    return np.concatenate([least, most - least], axis=1)
