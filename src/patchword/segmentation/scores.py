"""Scores of classes (or words) at any pixel of an image, never of all pixels at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.segmentation.sliding_window import WindowPlan

# Of a row, in one product: few cells, so that few zeros are multiplied, but no fewer pixels than pay for a call.
_CELLS, _LEAST_COLUMNS = 12, 64


class PixelScores(Protocol):
    """What a segmentation has found, before anything is decided: one map a class, or one a word.

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


class GridScores:
    """Scores on patches, upsampled bilinearly where they are asked for.

    Args:
        patches: (n, h, w) scores of n maps on patches.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, patches: Tensor, size: tuple[int, int]) -> None:
        self.patches = patches
        self.size = size
        height, width = self.grid = (patches.shape[1], patches.shape[2])
        self._upsampled = _Upsampled(
            patches, rows=whole_axis(cells=height, pixels=size[0]), columns=whole_axis(cells=width, pixels=size[1])
        )

    @property
    def count(self) -> int:
        """How many maps."""
        return len(self.patches)

    @property
    def device(self) -> torch.device:
        """That the scores are on."""
        return self.patches.device

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: `interpolate(patches, size, mode="bilinear")` in those rows."""
        return self._upsampled.rows(rows, maps=maps)


class WindowScores:
    """Scores of sliding windows: each brought to its window's pixels, averaged where windows overlap, then brought to
    the image; all bilinear, all linear, so that no step needs all pixels at once.

    Args:
        windows: (windows, n, h, w) scores of n maps on the patches of each window, in the order of the plan.
        plan: where the windows are in the image as it is seen.
        size: (height, width) of the image in pixels.

    Source: sliding evaluation of mmsegmentation, as the protocols of docs/method.md have it.
    """

    def __init__(self, windows: Tensor, *, plan: WindowPlan, size: tuple[int, int]) -> None:
        self.count = windows.shape[1]
        self.size = size
        height, width = windows.shape[2:]
        self.grid = (round(height * plan.size[0] / plan.window[0]), round(width * plan.size[1] / plan.window[1]))
        down, across = len(plan.rows), len(plan.columns)
        grid = windows.reshape(down, across, *windows.shape[1:]).permute(2, 0, 3, 1, 4)  # (n, down, h, across, w)
        self._upsampled = _Upsampled(
            grid.reshape(self.count, down * height, across * width),
            rows=windows_axis(cells=height, window=plan.window[0], starts=plan.rows, seen=plan.size[0], pixels=size[0]),
            columns=windows_axis(
                cells=width, window=plan.window[1], starts=plan.columns, seen=plan.size[1], pixels=size[1]
            ),
        )

    @property
    def device(self) -> torch.device:
        """That the scores are on."""
        return self._upsampled.maps.device

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`."""
        return self._upsampled.rows(rows, maps=maps)


class _Upsampled:
    """Maps (n, h, w) and how they become pixels along either axis."""

    def __init__(self, maps: Tensor, *, rows: Axis, columns: Axis) -> None:
        self.maps = maps
        self._rows = rows
        length = max(_LEAST_COLUMNS, _CELLS * columns.pixels // columns.cells)
        self._columns = columns.blocks(length, device=maps.device)

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """(len(maps), len(rows), width) float32."""
        cells, weights = self._rows.part(rows)
        chosen = take(self.maps, maps)[:, cells.start : cells.stop].float()  # (k, c, w)
        with torch.autocast(chosen.device.type, enabled=False):
            wide = torch.cat([chosen[..., part.start : part.stop] @ block for part, block in self._columns], dim=-1)
            return torch.from_numpy(weights).to(chosen.device) @ wide  # (r, c) @ (k, c, width) -> (k, r, width)


def take(scores: Tensor, maps: range | Sequence[int]) -> Tensor:
    """Some of the maps (n, ...) along the first dimension; a view where they lie next to each other."""
    if isinstance(maps, range) and maps.step == 1:
        return scores[maps.start : maps.stop]
    return scores[list(maps)]


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


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image (h, w, 3) uint8, and the size and the windows that it is seen at."""

    pixels: NDArray[np.uint8]
    plan: WindowPlan

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def share_batches(seen: Mapping[int, SeenImage], *, most: int) -> Iterator[list[int]]:
    """Which images go through the model together: those whose windows have one size, until a batch is full.

    Args:
        seen: images by number.
        most: windows in a batch.

    Returns:
        numbers of images; more windows than `most` are there only where one image has more.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    for number, image in seen.items():
        together = waiting.setdefault(image.plan.window, [])
        if together and sum(len(seen[other].plan) for other in together) + len(image.plan) > most:
            yield together
            together = waiting[image.plan.window] = []
        together.append(number)
    yield from waiting.values()


class FeatureJoin:
    """Features of windows, averaged where windows overlap and brought back to unit length.

    Args:
        plan: windows that begin at whole patches.
        score: unit patch vectors (d, h, w) -> scores (n, h, w).
        patch_size: side of a patch in pixels.
    """

    def __init__(self, plan: WindowPlan, *, score: Callable[[Tensor], Tensor], patch_size: int) -> None:
        self._plan = plan
        self._score = score
        self._patch_size = patch_size
        self._features: Tensor | None = None

    def add(self, place: int, patches: Tensor) -> None:
        """Take in the features (d, h, w) of the window at a place of the plan."""
        if len(self._plan) == 1:
            self._features = patches
            return
        if self._features is None:
            grid = (side // self._patch_size for side in self._plan.size)
            self._features = torch.zeros((len(patches), *grid), dtype=torch.float32, device=patches.device)
        top, left = (start // self._patch_size for start in self._plan.start(place))
        self._features[:, top : top + patches.shape[1], left : left + patches.shape[2]] += patches

    def scores(self, size: tuple[int, int]) -> PixelScores:
        """The scores of the whole, at any pixel of an image of that size, once every window is in."""
        if self._features is None:
            raise ValueError("no window has been added")
        whole = self._features
        if len(self._plan) > 1:
            whole = functional.normalize(whole, dim=0)  # a mean and a sum of vectors have one direction
        return GridScores(self._score(whole), size)


class LogitJoin:
    """Scores of windows, averaged at every pixel, as the benchmark protocols do; see `WindowScores`.

    Args:
        plan: the windows.
        score: unit patch vectors (d, h, w) -> scores (n, h, w).
    """

    def __init__(self, plan: WindowPlan, *, score: Callable[[Tensor], Tensor]) -> None:
        self._plan = plan
        self._score = score
        self._scores: dict[int, Tensor] = {}

    def add(self, place: int, patches: Tensor) -> None:
        """Take in the features (d, h, w) of the window at a place of the plan."""
        self._scores[place] = self._score(patches)

    def scores(self, size: tuple[int, int]) -> PixelScores:
        """The scores of the whole, at any pixel of an image of that size, once every window is in."""
        windows = torch.stack([self._scores[place] for place in range(len(self._plan))])  # (windows, n, h, w)
        return WindowScores(windows, plan=self._plan, size=size)
