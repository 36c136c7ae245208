"""Bilinear upsampling along one axis, as sums of a few cells: of a whole map, or of the maps of sliding windows.

Bilinear upsampling is linear and treats rows and columns alike, and so do averaging over windows and a second bilinear
upsampling after it. Together they are one sparse matrix an axis, and any strip of the result is two small products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """Which cells a pixel is mixed from, along one axis.

    Attributes:
        cells: how many cells there are.
        pixels: how many pixels.
        pixel, cell, weight: (n,) entries, ordered by pixel; a pixel's weights sum to 1.
    """

    cells: int
    pixels: int
    pixel: NDArray[np.int64]
    cell: NDArray[np.int64]
    weight: NDArray[np.float64]

    def part(self, pixels: range) -> tuple[range, NDArray[np.float32]]:
        """The matrix of some pixels that lie next to each other.

        Returns:
            the cells c that they are mixed from, next to each other too, and (len(pixels), c) weights.
        """
        first, last = np.searchsorted(self.pixel, (pixels.start, pixels.stop))
        if first == last:
            return range(0), np.zeros((len(pixels), 0), dtype=np.float32)
        cell = self.cell[first:last]
        cells = range(int(cell.min()), int(cell.max()) + 1)
        matrix = np.zeros((len(pixels), len(cells)), dtype=np.float64)
        np.add.at(matrix, (self.pixel[first:last] - pixels.start, cell - cells.start), self.weight[first:last])
        return cells, matrix.astype(np.float32)

    def blocks(self, length: int, *, device: torch.device) -> tuple[tuple[range, Tensor], ...]:
        """The matrices of all pixels, at most `length` of them at a time, each as (cells, (c, pixels) weights)."""
        found = []
        for first in range(0, self.pixels, length):
            cells, matrix = self.part(range(first, min(first + length, self.pixels)))
            found.append((cells, torch.from_numpy(np.ascontiguousarray(matrix.T)).to(device)))
        return tuple(found)


def whole_axis(*, cells: int, pixels: int) -> Axis:
    """Bilinear upsampling of cells to pixels, corners not aligned."""
    lower, upper, share = _neighbours(np.arange(pixels), cells=cells, pixels=pixels)
    pixel = np.repeat(np.arange(pixels), 2)
    cell = np.stack([lower, upper], axis=1).ravel()
    return Axis(cells, pixels, pixel, cell, np.stack([1 - share, share], axis=1).ravel())


def windows_axis(*, cells: int, window: int, starts: Sequence[int], seen: int, pixels: int) -> Axis:
    """Three steps in one: the cells of every window to its pixels, the mean over windows, and that to the image.

    Args:
        cells: of each window; the axis has those of the first window, then those of the second, and so on.
        window: pixels of a window.
        starts: first pixel of each window in the image as it is seen; together they cover it.
        seen: pixels of the image as it is seen.
        pixels: pixels of the image.
    """
    place = np.arange(seen)
    first = np.asarray(starts)
    covers = ((place[:, None] >= first) & (place[:, None] < first + window)).sum(axis=1)  # (seen,)
    lower, upper, share = _neighbours(np.arange(pixels), cells=seen, pixels=pixels)
    entries = []
    for number, start in enumerate(starts):
        for at, weight in ((lower, 1 - share), (upper, share)):
            inside = np.flatnonzero((at >= start) & (at < start + window))
            low, high, part = _neighbours(at[inside] - start, cells=cells, pixels=window)
            mean = weight[inside] / covers[at[inside]]
            entries.append((inside, low + number * cells, mean * (1 - part)))
            entries.append((inside, high + number * cells, mean * part))
    pixel, cell, weight = (np.concatenate(column) for column in zip(*entries, strict=True))
    order = np.argsort(pixel, kind="stable")
    return Axis(cells * len(first), pixels, pixel[order], cell[order], weight[order])


def _neighbours(
    at: NDArray[np.int64], *, cells: int, pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The cell before and the cell after each pixel, and the share of the one after."""
    position = np.clip((at + 0.5) * (cells / pixels) - 0.5, 0, None)
    lower = np.minimum(position.astype(np.int64), cells - 1)
    return lower, np.minimum(lower + 1, cells - 1), position - lower
