"""Scores of classes (or words) at any pixel of an image, never of all pixels at once: of patches and of windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from patchword.segmentation.sliding_window import WindowPlan

# Of a row, in one product: few cells, so that few zeros are multiplied, but no fewer pixels than pay for a call.
_CELLS, _LEAST_COLUMNS = 12, 64


class PixelScores(Protocol):
    """Scores before anything is decided: one map a class, or one a word.

    Attributes:
        count: how many maps.
        size: (height, width) of the image in pixels.
        grid: (rows, columns) of patches that the image was seen as; scores are smooth in between.
        device: that the scores are on.
    """

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def device(self) -> torch.device: ...

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """Scores of some maps in some rows of pixels.

        Args:
            rows: rows of the image, one after the other.
            maps: which maps.

        Returns:
            (len(maps), len(rows), width) float32; a tensor of its own, which the caller may overwrite.
        """


class BilinearScores:
    """Maps (n, h, w), and how they become pixels along either axis."""

    def __init__(self, maps: Tensor, *, size: tuple[int, int], rows: Axis, columns: Axis) -> None:
        self.count = len(maps)
        self.size = size
        self.device = maps.device
        self._maps = maps
        self._rows = rows
        length = max(_LEAST_COLUMNS, _CELLS * columns.pixels // columns.cells)
        self._columns = columns.blocks(length, device=maps.device)

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`."""
        cells, weights = self._rows.part(rows)
        chosen = take(self._maps, maps)[:, cells.start : cells.stop].float()  # (k, c, w)
        with torch.autocast(chosen.device.type, enabled=False):
            wide = torch.cat([chosen[..., part.start : part.stop] @ block for part, block in self._columns], dim=-1)
            return torch.from_numpy(weights).to(chosen.device) @ wide  # (r, c) @ (k, c, width) -> (k, r, width)


class GridScores(BilinearScores):
    """Scores on patches, upsampled bilinearly where they are asked for, as `interpolate(mode="bilinear")` does.

    Args:
        patches: (n, h, w) scores of n maps on patches.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, patches: Tensor, size: tuple[int, int]) -> None:
        self.patches = patches
        height, width = self.grid = (patches.shape[1], patches.shape[2])
        rows, columns = whole_axis(cells=height, pixels=size[0]), whole_axis(cells=width, pixels=size[1])
        super().__init__(patches, size=size, rows=rows, columns=columns)


class WindowScores(BilinearScores):
    """Scores of sliding windows: each brought to its window's pixels, averaged where windows overlap, then brought to
    the image; all bilinear, all linear, so that no step needs all pixels at once.

    Args:
        windows: (windows, n, h, w) scores of n maps on the patches of each window, in the order of the plan.
        plan: where the windows are in the image as it is seen.
        size: (height, width) of the image in pixels.

    Source: sliding evaluation of mmsegmentation, as the protocols of docs/method.md have it.
    """

    def __init__(self, windows: Tensor, *, plan: WindowPlan, size: tuple[int, int]) -> None:
        height, width = windows.shape[2:]
        self.grid = (round(height * plan.size[0] / plan.window[0]), round(width * plan.size[1] / plan.window[1]))
        down, across = len(plan.rows), len(plan.columns)
        grid = windows.reshape(down, across, *windows.shape[1:]).permute(2, 0, 3, 1, 4)  # (n, down, h, across, w)
        super().__init__(
            grid.reshape(windows.shape[1], down * height, across * width),
            size=size,
            rows=windows_axis(cells=height, window=plan.window[0], starts=plan.rows, seen=plan.size[0], pixels=size[0]),
            columns=windows_axis(
                cells=width, window=plan.window[1], starts=plan.columns, seen=plan.size[1], pixels=size[1]
            ),
        )


def take(scores: Tensor, maps: range | Sequence[int]) -> Tensor:
    """Some of the maps (n, ...) along the first dimension; a view where they lie next to each other."""
    if isinstance(maps, range) and maps.step == 1:
        return scores[maps.start : maps.stop]
    return scores[list(maps)]


@dataclass(frozen=True, eq=False)
class Axis:
    """Which cells a pixel is mixed from, along one axis.

    Attributes:
        cells, pixels: how many there are.
        pixel, cell, weight: (n,) entries, ordered by pixel; a pixel's weights sum to 1.
    """

    cells: int
    pixels: int
    pixel: NDArray[np.int64]
    cell: NDArray[np.int64]
    weight: NDArray[np.float64]

    def part(self, pixels: range) -> tuple[range, NDArray[np.float32]]:
        """The neighbouring cells c that some neighbouring pixels are mixed from, and (len(pixels), c) weights."""
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


class SampledScores:
    """The scores of an image at one pixel in each cell of a grid (height, width); a `PixelScores` of the grid's size.

    Scores are smooth between patches, so that one pixel stands for a cell that is smaller than a patch.
    """

    def __init__(self, whole: PixelScores, size: tuple[int, int]) -> None:
        self.count, self.grid, self.device, self.size = whole.count, whole.grid, whole.device, size
        self._whole = whole
        self._middles = [
            [owner_of(cell, pixels=cells, patches=pixels) for cell in range(cells)]  # the pixel that a middle lies in
            for cells, pixels in zip(size, whole.size, strict=True)
        ]

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width of the grid)."""
        columns = torch.tensor(self._middles[1]).to(self.device)
        middles = (self._middles[0][row] for row in rows)
        return torch.cat([self._whole.rows(range(at, at + 1), maps=maps)[:, :, columns] for at in middles], dim=1)


def at_size(scores: PixelScores, size: tuple[int, int]) -> PixelScores:
    """The scores of an image on a grid (height, width) over it; of patches, the bilinear upsampling to that grid."""
    if size == scores.size:
        return scores
    return GridScores(scores.patches, size) if isinstance(scores, GridScores) else SampledScores(scores, size)


def patch_scores(scores: PixelScores) -> Tensor:
    """Scores (n, rows, columns) on the grid of patches; of windows merged by logits, at one pixel in each patch."""
    if isinstance(scores, GridScores):
        return scores.patches
    return SampledScores(scores, scores.grid).rows(range(scores.grid[0]), maps=range(scores.count))


def owner_of(pixel: int, *, pixels: int, patches: int) -> int:
    """The patch that the middle of a pixel lies in, along one side."""
    return (2 * pixel + 1) * patches // (2 * pixels)
