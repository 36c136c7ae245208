"""Scores of classes (or words) at any pixel of an image, never of all pixels at once: three ways to upsample them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import JbuSettings

if TYPE_CHECKING:
    from patchword.segmentation.sliding_window import WindowPlan

# Of a row, in one product: few cells, so that few zeros are multiplied, but no fewer pixels than pay for a call.
_CELLS, _LEAST_COLUMNS = 12, 64
_WEIGHTS_AT_ONCE = 2**23  # weights of patches at pixels in memory; bounds memory, changes no result


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
            [_owner(cell, pixels=cells, patches=pixels) for cell in range(cells)]  # the pixel that a middle lies in
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


class JbuScores:
    """Joint bilateral upsampling: scores of patches at pixels, along the edges of the photograph (Kopf et al. 2007).

    For pixel p and the patches q within `radius` rows and columns of the patch that p lies in:

        score(p) = sum over q of weight(p, q) * score(q)
        weight(p, q) = softmax over q of ( -|p' - q|^2 / (2 distance^2) - |x(p) - x(q)|^2 / (2 colour^2) )

    p' is p's place measured in patches, x(p) the photograph's colour there, x(q) its mean colour over the patch, all in
    RGB from 0 to 1. Patches beyond the border have no part. Scores stay within the range of the patches around.

    Every map is upsampled for itself, and weights are made for a few rows at a time, so that any part is exactly that
    part of the whole, and memory does not grow with maps x pixels.

    Args:
        patches: (n, rows, columns) scores of n maps on patches that cover the whole photograph.
        image: (3, h, w) the photograph, RGB from 0 to 1, or uint8.
        settings: radius, and the two Gaussians.
    """

    def __init__(self, patches: Tensor, *, image: Tensor, settings: JbuSettings) -> None:
        self.patches = patches
        self.count = len(patches)
        self.size = (image.shape[1], image.shape[2])
        self.device = patches.device
        self.grid = grid = (patches.shape[1], patches.shape[2])
        self._image = image
        self._white = 255 if image.dtype == torch.uint8 else 1
        self._settings = settings
        means = [
            functional.adaptive_avg_pool2d(part[None].float() / self._white, grid) for part in image
        ]  # one at a time
        self._means = torch.cat(means).to(patches.device)  # (3, rows, columns)
        self._columns = _Columns.of(self.size[1], patches=grid[1], radius=settings.radius)
        # Where pixels' middles lie along each side, measured in patches; the middle of the first patch is 0.
        self._places = [
            ((torch.arange(pixels).double() + 0.5) * patches / pixels - 0.5).float()
            for pixels, patches in zip(self.size, grid, strict=True)
        ]
        self._weights_a_row = self._columns.places.numel() * (2 * settings.radius + 1) ** 2
        self._known: tuple[range, list[_Strip]] = (range(0), [])

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width)."""
        chosen = take(self.patches, maps)
        found = chosen.new_empty(len(chosen), len(rows), self.size[1])
        for strip in self._strips(rows):
            around = chosen[:, strip.window][:, :, self._columns.around]  # (n, k, g, l)
            around = around.permute(2, 0, 1, 3).flatten(2)  # (g, n, k * l)
            mixed = torch.bmm(around, strip.weights)  # (g, n, r * c)
            mixed = mixed.view(*mixed.shape[:2], len(strip.rows), -1).permute(1, 2, 0, 3).flatten(2)  # (n, r, g * c)
            first = strip.rows.start - rows.start
            found[:, first : first + len(strip.rows)] = mixed[..., self._columns.order]
        return found

    def _strips(self, rows: range) -> Iterator[_Strip]:
        """Weights of rows; kept where they are few, as other maps of the same rows may be asked for next."""
        known, strips = self._known  # taken once: other threads may ask for other rows
        if known == rows:
            yield from strips
            return
        patches, height, radius = self.patches.shape[1], self.size[0], self._settings.radius
        most = max(1, _WEIGHTS_AT_ONCE // self._weights_a_row)
        first, made = rows.start, list[_Strip]()
        while first < rows.stop:
            owner = _owner(first, pixels=height, patches=patches)
            end = -((patches - 2 * height * (owner + 1)) // (2 * patches))  # the first pixel of the next row of patches
            strip = range(first, min(rows.stop, end, first + most))
            window = [row for row in range(owner - radius, owner + radius + 1) if 0 <= row < patches]
            found = _Strip(strip, window, self._weights(window, strip))
            if len(rows) <= most:
                made.append(found)
            yield found
            first = strip.stop
        if len(rows) <= most:
            self._known = (rows, made)

    def _weights(self, window: list[int], rows: range) -> Tensor:
        """Weights (g, k * l, r * c); see `_Strip`.

        The squares of a pixel's own colour and place are the same for all patches and fall out of the softmax; what is
        left is one product of the pixel's colour and place with those of the patches.
        """
        columns = self._columns
        near = self._means[:, window][:, :, columns.around].permute(2, 1, 3, 0)  # (g, k, l, 3)
        middle = near.mean(dim=(1, 2), keepdim=True)  # (g, 1, 1, 3); numbers near 0 lose less in the product
        pixels = self._image[:, rows.start : rows.stop].to(self.device).float() / self._white
        pixels = pixels[:, :, columns.places.to(self.device)].permute(2, 1, 3, 0) - middle  # (g, r, c, 3)
        y = self._places[0][rows.start : rows.stop] - window[0]
        x = self._places[1][columns.places] - columns.around[:, :1]  # (g, c)
        below = torch.arange(len(window), dtype=x.dtype)  # (k,) patches from the first row of the window
        beside = (columns.around - columns.around[:, :1]).to(x.dtype)  # (g, l)
        theirs, own = (  # (g, k * l, 5) and (g, r * c, 5): colours, then places
            torch.cat(
                [colours, *(place.to(colours)[..., None].expand(*colours.shape[:3], 1) for place in places)], dim=-1
            ).flatten(1, 2)
            for colours, places in (
                (near - middle, (below[None, :, None], beside[:, None])),
                (pixels, (y[None, :, None], x[:, None])),
            )
        )
        scale = theirs.new_tensor([self._settings.colour] * 3 + [self._settings.distance] * 2) ** -2
        constant = (theirs.square() @ scale) / -2  # (g, k * l)
        outside = ~columns.inside.to(self.device)[:, None].expand(-1, len(window), -1).flatten(1)
        constant = constant.masked_fill(outside, -torch.inf)[..., None]
        logits = torch.baddbmm(constant, theirs * scale, own.transpose(1, 2))
        return logits.softmax(dim=1).to(self.patches.dtype)


@dataclass(frozen=True, eq=False)
class _Strip:
    """Rows of pixels, r of them, that lie in one row of patches, and the k rows of patches around (`window`).

    weights: (g, k * l, r * c) of k rows and l columns of patches for the pixels, in g groups of c columns; sum 1.
    """

    rows: range
    window: list[int]
    weights: Tensor


@dataclass(frozen=True)
class _Columns:
    """Columns of pixels, grouped by the column of patches that they lie in; groups are padded to equal length.

    Attributes:
        places: (g, c) columns of pixels.
        around: (g, l) columns of patches around each group, clamped to the border.
        inside: (g, l) whether they were not beyond the border.
        order: (w,) where each column of pixels stands in `places`, flat; all of them where there is no padding.
    """

    places: Tensor
    around: Tensor
    inside: Tensor
    order: Tensor | slice

    @classmethod
    def of(cls, width: int, *, patches: int, radius: int) -> _Columns:
        owners = torch.tensor([_owner(column, pixels=width, patches=patches) for column in range(width)])
        present, group, counts = torch.unique_consecutive(owners, return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        longest = int(counts.max())
        order = group * longest + torch.arange(width) - starts[group]
        places = starts[:, None] + torch.minimum(torch.arange(longest), counts[:, None] - 1)
        around = present[:, None] + torch.arange(-radius, radius + 1)
        inside = (around >= 0) & (around < patches)
        even = bool((counts == longest).all())
        return cls(places, around.clamp(0, patches - 1), inside, slice(None) if even else order)


def _owner(pixel: int, *, pixels: int, patches: int) -> int:
    """The patch that the middle of a pixel lies in, along one side."""
    return (2 * pixel + 1) * patches // (2 * pixels)
