"""Joint bilateral upsampling: class scores of patches at pixels, along the edges of the photograph (Kopf et al. 2007).

For pixel p and the patches q within `radius` rows and columns of the patch that p lies in:

    score(p) = sum over q of weight(p, q) * score(q)
    weight(p, q) = softmax over q of ( -|p' - q|^2 / (2 distance^2) - |x(p) - x(q)|^2 / (2 colour^2) )

p' is p's place measured in patches, x(p) the photograph's colour there, x(q) its mean colour over the patch, all in RGB
from 0 to 1. Patches beyond the border have no part. Scores stay within the range of those of the patches around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import JbuSettings
from patchword.segmentation.scores import take

_WEIGHTS_AT_ONCE = 2**23  # weights of patches at pixels in memory; bounds memory, changes no result


@dataclass(frozen=True, eq=False)
class _Strip:
    """Rows of pixels that lie in one row of patches, the k rows of patches around, and the weights of those.

    Attributes:
        rows: of pixels, r of them.
        window: rows of patches.
        weights: (g, k * l, r * c) of k rows and l columns of patches for the pixels, in g groups of c columns; they
            sum to 1.
    """

    rows: range
    window: list[int]
    weights: Tensor


class JbuScores:
    """Scores of patches, upsampled along the photograph's edges where they are asked for; a `PixelScores`.

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
        self._image = image
        self._settings = settings
        self.grid = grid = (patches.shape[1], patches.shape[2])
        means = [functional.adaptive_avg_pool2d(_colours(channel[None]), grid) for channel in image]  # one at a time
        self._colours = torch.cat(means).to(patches.device)  # (3, rows, columns)
        self._columns = _Columns.of(self.size[1], patches=grid[1], radius=settings.radius)
        self._weights_a_row = self._columns.places.numel() * (2 * settings.radius + 1) ** 2
        self._known: tuple[range, list[_Strip]] = (range(0), [])

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width)."""
        chosen = take(self.patches, maps)
        found = chosen.new_empty(len(chosen), len(rows), self.size[1])
        for strip in self._weighted(rows):
            around = chosen[:, strip.window][:, :, self._columns.around]  # (n, k, g, l)
            around = around.permute(2, 0, 1, 3).flatten(2)  # (g, n, k * l)
            mixed = torch.bmm(around, strip.weights)  # (g, n, r * c)
            mixed = mixed.view(*mixed.shape[:2], len(strip.rows), -1).permute(1, 2, 0, 3).flatten(2)  # (n, r, g * c)
            first = strip.rows.start - rows.start
            found[:, first : first + len(strip.rows)] = mixed[..., self._columns.order]
        return found

    def _weighted(self, rows: range) -> Iterable[_Strip]:
        """Weights of rows; kept where they are few, as other maps of the same rows may be asked for next."""
        known, strips = self._known  # taken once: other threads may ask for other rows
        if known == rows:
            return strips
        if len(rows) * self._weights_a_row > _WEIGHTS_AT_ONCE:
            return self._strips(rows)
        strips = list(self._strips(rows))
        self._known = (rows, strips)
        return strips

    def _strips(self, rows: range) -> Iterator[_Strip]:
        patches, height, radius = self.patches.shape[1], self.size[0], self._settings.radius
        most = max(1, _WEIGHTS_AT_ONCE // self._weights_a_row)
        first = rows.start
        while first < rows.stop:
            owner = _owner(first, pixels=height, patches=patches)
            end = -((patches - 2 * height * (owner + 1)) // (2 * patches))  # the first pixel of the next row of patches
            strip = range(first, min(rows.stop, end, first + most))
            window = [row for row in range(owner - radius, owner + radius + 1) if 0 <= row < patches]
            yield _Strip(strip, window, self._weights(window, strip))
            first = strip.stop

    def _weights(self, window: list[int], rows: range) -> Tensor:
        """Weights (g, k * l, r * c); see `_Strip`.

        The squares of a pixel's own colour and place are the same for all patches and fall out of the softmax; what is
        left is one product of the pixel's colour and place with those of the patches.
        """
        columns, (height, width) = self._columns, self.size
        near = self._colours[:, window][:, :, columns.around].permute(2, 1, 3, 0)  # (g, k, l, 3)
        middle = near.mean(dim=(1, 2), keepdim=True)  # (g, 1, 1, 3); numbers near 0 lose less in the product
        pixels = _colours(self._image[:, rows.start : rows.stop].to(self.device))
        pixels = pixels[:, :, columns.places.to(self.device)].permute(2, 1, 3, 0) - middle  # (g, r, c, 3)
        y = _place(torch.arange(rows.start, rows.stop), pixels=height, patches=self.patches.shape[1]) - window[0]
        x = _place(columns.places, pixels=width, patches=self.patches.shape[2]) - columns.around[:, :1]  # (g, c)
        below = torch.arange(len(window), dtype=x.dtype)  # (k,) patches from the first row of the window
        beside = (columns.around - columns.around[:, :1]).to(x.dtype)  # (g, l)
        theirs = _together(near - middle, below[None, :, None], beside[:, None]).flatten(1, 2)  # (g, k * l, 5)
        own = _together(pixels, y[None, :, None], x[:, None]).flatten(1, 2)  # (g, r * c, 5)
        scale = theirs.new_tensor([self._settings.colour] * 3 + [self._settings.distance] * 2) ** -2
        constant = (theirs.square() @ scale) / -2  # (g, k * l)
        outside = ~columns.inside.to(self.device)[:, None].expand(-1, len(window), -1).flatten(1)
        constant = constant.masked_fill(outside, -torch.inf)[..., None]
        logits = torch.baddbmm(constant, theirs * scale, own.transpose(1, 2))
        return logits.softmax(dim=1).to(self.patches.dtype)


def _colours(pixels: Tensor) -> Tensor:
    """Pixels as floats from 0 to 1."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _together(colours: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Colours (g, a, b, 3) and places, which broadcast to (g, a, b): (g, a, b, 5)."""
    shape = (*colours.shape[:3], 1)
    places = [place.to(colours)[..., None].expand(shape) for place in (y, x)]
    return torch.cat([colours, *places], dim=-1)


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


def _place(pixel: Tensor, *, pixels: int, patches: int) -> Tensor:
    """Where pixels' middles lie along one side, measured in patches; the middle of the first patch is 0."""
    return ((pixel.double() + 0.5) * patches / pixels - 0.5).float()
