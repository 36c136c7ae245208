"""Joint bilateral upsampling: scores of patches become scores of pixels along the edges of the photograph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.config.refine import JbuSettings
from patchword.segmentation.scores import owner_of, take

_WEIGHTS_AT_ONCE = 2**23  # weights of patches at pixels in memory; bounds memory, changes no result


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
        self._means = _means(self._image, grid) / self._white  # (3, rows, columns)
        self._columns = _Columns.of(self.size[1], patches=grid[1], radius=settings.radius).to(self.device)
        # Where pixels' middles lie along each side, measured in patches; the middle of the first patch is 0.
        self._places = [
            ((torch.arange(pixels).double() + 0.5) * patches / pixels - 0.5).float().to(self.device)
            for pixels, patches in zip(self.size, grid, strict=True)
        ]
        self._scale = torch.tensor([settings.colour] * 3 + [settings.distance] * 2).to(self.device) ** -2
        self._weights_a_row = self._columns.places.numel() * (2 * settings.radius + 1) ** 2
        self._known: tuple[range, list[Strip]] = (range(0), [])

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width)."""
        chosen = self.around(maps)
        found = chosen.new_empty(chosen.shape[1], len(rows), self.size[1])
        for strip in self._kept_strips(rows):
            mixed = torch.bmm(strip.of(chosen), strip.weights)  # (g, n, r * c)
            first = strip.rows.start - rows.start
            found[:, first : first + len(strip.rows)] = self.in_rows(mixed.transpose(0, 1), strip)
        return found

    def around(self, maps: range | Sequence[int]) -> Tensor:
        """Scores (g, n, rows * l) of some maps: for each group of columns the patches around it, row after row."""
        return take(self.patches, maps)[:, :, self._columns.around].permute(2, 0, 1, 3).flatten(2)

    def in_rows(self, pixels: Tensor, strip: Strip) -> Tensor:
        """Pixels of a strip (..., g, r * c) in their own order, (..., r, width)."""
        lines = pixels.reshape(*pixels.shape[:-1], len(strip.rows), -1).transpose(-3, -2)  # (..., r, g, c)
        return lines.flatten(-2)[..., self._columns.order]

    def strips(self, rows: range) -> Iterator[Strip]:
        """Weights of rows of pixels, a row of patches at a time."""
        patches, height, radius = self.patches.shape[1], self.size[0], self._settings.radius
        most = max(1, _WEIGHTS_AT_ONCE // self._weights_a_row)
        first = rows.start
        while first < rows.stop:
            owner = owner_of(first, pixels=height, patches=patches)
            end = -((patches - 2 * height * (owner + 1)) // (2 * patches))  # the first pixel of the next row of patches
            strip = range(first, min(rows.stop, end, first + most))
            window = range(max(0, owner - radius), min(patches, owner + radius + 1))
            yield Strip(strip, window, self._weights(window, strip))
            first = strip.stop

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

    def _weights(self, window: range, rows: range) -> Tensor:
        """Weights (g, k * l, r * c); see `Strip`.

        The squares of a pixel's own colour and place are the same for all patches and fall out of the softmax; what is
        left is one product of the pixel's colour and place with those of the patches.
        """
        columns = self._columns
        near = self._means[:, window.start : window.stop, columns.around].permute(2, 1, 3, 0)  # (g, k, l, 3)
        middle = near.mean(dim=(1, 2), keepdim=True)  # (g, 1, 1, 3); numbers near 0 lose less in the product
        pixels = self._image[:, rows.start : rows.stop].float() / self._white
        pixels = pixels[:, :, columns.places].permute(2, 1, 3, 0) - middle  # (g, r, c, 3)
        y = self._places[0][rows.start : rows.stop] - window.start
        x = self._places[1][columns.places] - columns.around[:, :1]  # (g, c)
        below = torch.arange(len(window), dtype=x.dtype, device=self.device)  # (k,) patches from the window's first row
        beside = (columns.around - columns.around[:, :1]).to(x.dtype)  # (g, l)
        theirs, own = (  # (g, k * l, 5) and (g, r * c, 5): colours, then places
            torch.cat([colours, *(place[..., None].expand(*colours.shape[:3], 1) for place in places)], dim=-1).flatten(
                1, 2
            )
            for colours, places in (
                (near - middle, (below[None, :, None], beside[:, None])),
                (pixels, (y[None, :, None], x[:, None])),
            )
        )
        constant = (theirs.square() @ self._scale) / -2  # (g, k * l)
        outside = ~columns.inside[:, None].expand(-1, len(window), -1).flatten(1)
        constant = constant.masked_fill(outside, -torch.inf)[..., None]
        logits = torch.baddbmm(constant, theirs * self._scale, own.transpose(1, 2))
        return logits.softmax(dim=1).to(self.patches.dtype)


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of pixels, r of them, that lie in one row of patches, and the k rows of patches around (`window`).

    weights: (g, k * l, r * c) of k rows and l columns of patches for the pixels, in g groups of c columns; sum 1.
    """

    rows: range
    window: range
    weights: Tensor

    def of(self, around: Tensor) -> Tensor:
        """The scores (g, n, k * l) that the pixels are mixed from, of `JbuScores.around`; a view."""
        across = self.weights.shape[1] // len(self.window)
        return around[..., self.window.start * across : self.window.stop * across]


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
        owners = torch.tensor([owner_of(column, pixels=width, patches=patches) for column in range(width)])
        present, group, counts = torch.unique_consecutive(owners, return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        longest = int(counts.max())
        order = group * longest + torch.arange(width) - starts[group]
        places = starts[:, None] + torch.minimum(torch.arange(longest), counts[:, None] - 1)
        around = present[:, None] + torch.arange(-radius, radius + 1)
        inside = (around >= 0) & (around < patches)
        even = bool((counts == longest).all())
        return cls(places, around.clamp(0, patches - 1), inside, slice(None) if even else order)

    def to(self, device: torch.device) -> _Columns:
        """The same on a device."""
        order = self.order if isinstance(self.order, slice) else self.order.to(device)
        return _Columns(self.places.to(device), self.around.to(device), self.inside.to(device), order)


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
