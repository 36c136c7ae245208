"""Joint bilateral upsampling: scores of patches become scores of pixels along the edges of the photograph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import JbuSettings
from patchword.segmentation.scores import owner_of, take

_WEIGHTS_AT_ONCE = 2**23  # weights of patches at pixels in memory; bounds memory, changes no result
_WEIGHTS_IN_CACHE = 2**19  # the same on a processor, which is fastest where they fit
_LANES = 32  # pixels that a processor takes at once; of other numbers it takes the rest one by one


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
        self._image = image.to(self.device)
        self._white = 255 if image.dtype == torch.uint8 else 1
        self._settings = settings
        means = _means(self._image, grid) / self._white  # (3, rows, columns)
        self._columns = _Columns.of(self.size[1], patches=grid[1], radius=settings.radius).to(self.device)
        # Where pixels' middles lie along each side, measured in patches; the middle of the first patch is 0.
        self._places = [
            ((torch.arange(pixels).double() + 0.5) * patches / pixels - 0.5).float().to(self.device)
            for pixels, patches in zip(self.size, grid, strict=True)
        ]
        colours = means[:, :, self._columns.around].permute(2, 1, 3, 0)  # (g, rows, l, 3)
        below = torch.arange(grid[0], dtype=colours.dtype, device=self.device)[:, None].expand(colours.shape[:3])
        beside = self._columns.around[:, None].to(colours.dtype).expand(colours.shape[:3])
        self._near = torch.cat([colours, below[..., None], beside[..., None]], dim=3)  # colours and places of patches
        scale = torch.tensor([settings.colour] * 3 + [settings.distance] * 2).to(self.device) ** -2
        self._scale = scale * math.log2(math.e)  # powers of 2 take a tenth of the time of powers of e
        most = min(_WEIGHTS_AT_ONCE, _WEIGHTS_IN_CACHE) if self.device.type == "cpu" else _WEIGHTS_AT_ONCE
        self._weights_a_row = self._columns.places.numel() * (2 * settings.radius + 1) ** 2
        self._rows_at_once = max(1, most // self._weights_a_row)
        self._known: tuple[range, list[Strip]] = (range(0), [])

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width)."""
        chosen = self.around(take(self.patches, maps))
        found = chosen.new_empty(chosen.shape[2], len(rows), self.size[1])
        for strip in self._kept_strips(rows):
            mixed = torch.bmm(strip.of(chosen).transpose(1, 2), strip.weights)  # (g, n, p)
            first = strip.rows.start - rows.start
            found[:, first : first + len(strip.rows)] = self.in_rows(mixed.transpose(0, 1), strip)
        return found

    def around(self, maps: Tensor) -> Tensor:
        """Maps (n, rows, columns) as (g, rows * l, n): for each group of columns the patches around, row after row."""
        return maps.permute(1, 2, 0)[:, self._columns.around].transpose(0, 1).flatten(1, 2)

    def highest(self, maps: Tensor) -> Tensor:
        """The highest (n, rows, g) of maps (n, rows, columns) on the patches that a patch's pixels are mixed from."""
        radius = self._settings.radius
        for dim, padding in ((1, (0, 0, radius, radius)), (2, (radius, radius))):
            wide = functional.pad(maps, padding, value=-torch.inf)
            maps = reduce(torch.maximum, (wide.narrow(dim, first, maps.shape[dim]) for first in range(2 * radius + 1)))
        return maps[:, :, self._columns.around[:, radius]]

    def in_rows(self, pixels: Tensor, strip: Strip) -> Tensor:
        """Pixels of a strip (..., g, p) in their own order, (..., r, width)."""
        high, wide = len(strip.rows), self._columns.places.shape[1]
        lines = pixels[..., : high * wide].view(*pixels.shape[:-1], high, wide).transpose(-3, -2)  # (..., r, g, c)
        order = self._columns.order
        return lines.flatten(-2) if order is None else lines.flatten(-2).index_select(-1, order)

    def strips(self, rows: range) -> Iterator[Strip]:
        """Weights of rows of pixels, a row of patches at a time."""
        patches, height, radius = self.patches.shape[1], self.size[0], self._settings.radius
        first = rows.start
        while first < rows.stop:
            owner = owner_of(first, pixels=height, patches=patches)
            end = -((patches - 2 * height * (owner + 1)) // (2 * patches))  # the first pixel of the next row of patches
            window = range(max(0, owner - radius), min(patches, owner + radius + 1))
            around = self._around(owner, window)
            last = min(rows.stop, end)
            for top in range(first, last, self._rows_at_once):
                strip = range(top, min(top + self._rows_at_once, last))
                yield Strip(strip, owner, window, self._weights(strip, around))
            first = last

    def _kept_strips(self, rows: range) -> Iterator[Strip]:
        """The same; kept where they are few, as other maps of the same rows may be asked for next."""
        known, strips = self._known  # taken once: other threads may ask for other rows
        if known == rows:
            yield from strips
        elif len(rows) > max(1, _WEIGHTS_AT_ONCE // self._weights_a_row):
            yield from self.strips(rows)
        else:
            made = []
            for strip in self.strips(rows):
                made.append(strip)
                yield strip
            self._known = (rows, made)

    def _around(self, owner: int, window: range) -> _Around:
        """What the weights of pixels in a row of patches depend on beside the pixels."""
        near = self._near[:, window.start : window.stop]  # (g, k, l, 5)
        middle = self._near[:, owner, self._settings.radius]  # (g, 5) of the patch that the pixels lie in
        theirs = near - middle[:, None, None]  # numbers near 0 lose less in the product
        scaled = theirs * self._scale
        constant = (theirs * scaled).sum(dim=3) / -2 + self._columns.outside[:, None]  # (g, k, l)
        return _Around(middle, scaled.flatten(1, 2), constant.flatten(1)[..., None])

    def _weights(self, rows: range, around: _Around) -> Tensor:
        """Weights (g, k * l, p); see `Strip`.

        The squares of a pixel's own colour and place are the same for all patches and fall out of the softmax; what is
        left is one product of the pixel's colour and place with those of the patches.
        """
        columns = self._columns
        groups, wide = columns.places.shape
        lines = self._image[:, rows.start : rows.stop].permute(1, 2, 0)  # (r, w, 3), as photographs lie in memory
        chosen = lines.index_select(1, columns.places.flatten()).view(len(rows), groups, wide, 3)
        pixels = len(rows) * wide
        memory = torch.zeros((groups, 5, -(-pixels // _LANES) * _LANES), device=self.device)
        own = memory[..., :pixels].view(groups, 5, len(rows), wide)  # (g, 5, r, c) colours, then places
        own[:, :3] = chosen.permute(1, 3, 0, 2)
        own[:, :3] /= self._white
        own[:, 3] = self._places[0][rows.start : rows.stop, None]
        own[:, 4] = self._places[1][columns.places][:, None]
        own -= around.middle[..., None, None]
        weights = torch.baddbmm(around.constant, around.theirs, memory)
        weights.sub_(weights.amax(dim=1, keepdim=True)).exp2_()
        return weights.div_(weights.sum(dim=1, keepdim=True)).to(self.patches.dtype)


class _Around(NamedTuple):
    """What g groups of columns in a row of patches have around them, k rows and l columns of patches.

    Attributes:
        middle: (g, 5) the colour and place that others are measured from.
        theirs: (g, k * l, 5) colours, then places, times what a pixel's own are multiplied by.
        constant: (g, k * l, 1) what is added; minus infinity beyond the border.
    """

    middle: Tensor
    theirs: Tensor
    constant: Tensor


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of pixels, r of them, that lie in one row of patches (`owner`), and the k rows of patches around (`window`).

    weights: (g, k * l, p) of k rows and l columns of patches for the pixels, in g groups of c columns; sum 1. What is
        beyond r * c of the p means nothing.
    """

    rows: range
    owner: int
    window: range
    weights: Tensor

    def of(self, around: Tensor) -> Tensor:
        """The scores (g, k * l, n) that the pixels are mixed from, of `JbuScores.around`; a view."""
        across = self.weights.shape[1] // len(self.window)
        return around[:, self.window.start * across : self.window.stop * across]


@dataclass(frozen=True)
class _Columns:
    """Columns of pixels, grouped by the column of patches that they lie in; groups are padded to equal length.

    Attributes:
        places: (g, c) columns of pixels.
        around: (g, l) columns of patches around each group, clamped to the border.
        outside: (g, l) minus infinity where they were beyond the border, else 0.
        order: (w,) where each column of pixels stands in `places`, flat; None where there is no padding.
    """

    places: Tensor
    around: Tensor
    outside: Tensor
    order: Tensor | None

    @classmethod
    def of(cls, width: int, *, patches: int, radius: int) -> _Columns:
        owners = torch.tensor([owner_of(column, pixels=width, patches=patches) for column in range(width)])
        present, group, counts = torch.unique_consecutive(owners, return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        longest = int(counts.max())
        order = group * longest + torch.arange(width) - starts[group]
        places = starts[:, None] + torch.minimum(torch.arange(longest), counts[:, None] - 1)
        around = present[:, None] + torch.arange(-radius, radius + 1)
        outside = torch.where((around >= 0) & (around < patches), 0.0, -torch.inf)
        even = bool((counts == longest).all())
        return cls(places, around.clamp(0, patches - 1), outside, None if even else order)

    def to(self, device: torch.device) -> _Columns:
        """The same on a device."""
        order = None if self.order is None else self.order.to(device)
        return _Columns(self.places.to(device), self.around.to(device), self.outside.to(device), order)


def _means(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean colours (3, rows, columns) of patches of an image (3, h, w), as adaptive pooling has them.

    Whole numbers are summed exactly, whatever the device.
    """
    rows, columns = (_spans(side, count=count) for side, count in zip(image.shape[1:], grid, strict=True))
    if image.is_floating_point():
        kind = torch.float32
        lines = torch.stack([image[:, start:stop].sum(dim=1) for start, stop in rows], dim=1)  # (3, rows, w)
    else:  # channels last, as photographs lie in memory
        kind = torch.int64
        flat = image.permute(1, 2, 0).flatten(1)  # (h, w * 3)
        bands = torch.stack([flat[start:stop].sum(dim=0, dtype=torch.int32) for start, stop in rows])
        lines = bands.view(len(rows), -1, 3).permute(2, 0, 1)
    sums = torch.stack([lines[..., start:stop].sum(dim=2, dtype=kind) for start, stop in columns], dim=2)
    sides = [torch.tensor([stop - start for start, stop in spans]) for spans in (rows, columns)]
    return sums.float() / (sides[0][:, None] * sides[1]).to(image.device)


def _spans(side: int, *, count: int) -> list[tuple[int, int]]:
    """The pixels of each of `count` cells along a side; neighbours share one where cells are no whole pixels."""
    return [(cell * side // count, -(-(cell + 1) * side // count)) for cell in range(count)]
