"""Guided upsampling: class scores of patches at the pixels of a photograph, following its edges (Kopf et al. 2007).

For pixel p and the patches q within `radius` rows and columns of the patch that p lies in:

    score(p) = sum over q of weight(p, q) * score(q)
    weight(p, q) = softmax over q of ( -|p' - q|^2 / (2 distance^2) - |x(p) - x(q)|^2 / (2 colour^2) )

p' is p's place measured in patches, x(p) the photograph's colour there, x(q) its mean colour over the patch, all in RGB
from 0 to 1. Patches beyond the border have no part. Scores stay within the range of those of the patches around.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.segment.refine.settings import GuidedSettings
from patchword.segment.scores import take

_WEIGHTS_AT_ONCE = 2**23  # weights of patches at pixels in memory; bounds memory, changes no result


@dataclass(frozen=True, eq=False)
class GuidedScores:
    """Scores of patches, upsampled along the photograph's edges where they are asked for; a `PixelScores`.

    Every map is upsampled for itself, and weights are made for a few rows at a time, so that any part is exactly that
    part of the whole, and memory does not grow with maps x pixels.

    Attributes:
        patches: (n, rows, columns) scores of n maps on patches.
        image: (3, h, w) the photograph, RGB from 0 to 1.
        colours: (3, rows, columns) its mean colour over each patch.
        settings: radius, and the two Gaussians.
    """

    patches: Tensor
    image: Tensor
    colours: Tensor
    settings: GuidedSettings

    @classmethod
    def of(cls, patches: Tensor, *, image: Tensor, settings: GuidedSettings) -> GuidedScores:
        """Scores (n, rows, columns) that cover the whole of an image (3, h, w)."""
        colours = functional.adaptive_avg_pool2d(image, (patches.shape[1], patches.shape[2])).to(patches.device)
        return cls(patches, image, colours, settings)

    @property
    def count(self) -> int:
        """How many maps."""
        return len(self.patches)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph in pixels."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def device(self) -> torch.device:
        """That the scores are on."""
        return self.patches.device

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width)."""
        columns = _Columns.of(self.size[1], patches=self.patches.shape[2], radius=self.settings.radius)
        chosen = take(self.patches, maps)
        strips = [self._strip(chosen, owner, strip, columns) for owner, strip in self._strips(rows, columns)]
        return torch.cat(strips, dim=1) if strips else chosen.new_zeros(len(chosen), 0, self.size[1])

    def _strips(self, rows: range, columns: _Columns) -> Iterator[tuple[int, range]]:
        """Rows of pixels in pieces, each within one row of patches and not too many for memory."""
        most = max(1, _WEIGHTS_AT_ONCE // (columns.places.numel() * (2 * self.settings.radius + 1) ** 2))
        first = rows.start
        while first < rows.stop:
            owner = _owner(first, pixels=self.size[0], patches=self.patches.shape[1])
            last = first + 1
            while last < min(rows.stop, first + most):
                if _owner(last, pixels=self.size[0], patches=self.patches.shape[1]) != owner:
                    break
                last += 1
            yield owner, range(first, last)
            first = last

    def _strip(self, scores: Tensor, owner: int, rows: range, columns: _Columns) -> Tensor:
        """Scores (n, len(rows), width) of rows of pixels that all lie in row `owner` of the patches."""
        radius = self.settings.radius
        window = [row for row in range(owner - radius, owner + radius + 1) if 0 <= row < scores.shape[1]]  # k rows
        weights = self._weights(window, rows, columns)  # (g, r * c, k * l)
        around = scores[:, window][:, :, columns.around]  # (n, k, g, l)
        around = around.permute(2, 1, 3, 0).flatten(1, 2)  # (g, k * l, n)
        mixed = torch.bmm(weights, around)  # (g, r * c, n)
        mixed = mixed.view(len(mixed), len(rows), -1, len(scores))[columns.group, :, columns.rank]  # (w, r, n)
        return mixed.permute(2, 1, 0)

    def _weights(self, window: list[int], rows: range, columns: _Columns) -> Tensor:
        """Weights (g, r * c, k * l) of k rows and l columns of patches for r rows of pixels, c columns in g groups."""
        device, (height, width) = self.device, self.size
        pixels = self.image[:, rows.start : rows.stop].to(device)[:, :, columns.places.to(device)]  # (3, r, g, c)
        near = self.colours[:, window][:, :, columns.around]  # (3, k, g, l)
        apart = torch.zeros((), device=device)
        for pixel, patch in zip(pixels.permute(0, 2, 1, 3), near.permute(0, 2, 1, 3), strict=True):
            apart = apart + (pixel[:, :, :, None, None] - patch[:, None, None]).square_()  # (g, r, c, k, l)
        y = _place(torch.arange(rows.start, rows.stop), pixels=height, patches=self.patches.shape[1])
        down = (y[:, None] - torch.tensor(window)).square()  # (r, k)
        x = _place(columns.places, pixels=width, patches=self.patches.shape[2])
        right = (x[:, :, None] - columns.around[:, None]).square()  # (g, c, l)
        far = down[None, :, None, :, None].to(device) + right[:, None, :, None, :].to(device)  # (g, r, c, k, l)
        logits = apart / (-2 * self.settings.colour**2) - far / (2 * self.settings.distance**2)
        logits = logits.masked_fill_(~columns.inside.to(device)[:, None, None, None], -torch.inf)
        return logits.flatten(3).softmax(dim=-1).flatten(1, 2).to(self.patches.dtype)


@dataclass(frozen=True)
class _Columns:
    """Columns of pixels, grouped by the column of patches that they lie in; groups are padded to equal length.

    Attributes:
        places: (g, c) columns of pixels.
        around: (g, l) columns of patches around each group, clamped to the border.
        inside: (g, l) whether they were not beyond the border.
        group, rank: (w,) where each column of pixels stands in `places`.
    """

    places: Tensor
    around: Tensor
    inside: Tensor
    group: Tensor
    rank: Tensor

    @classmethod
    def of(cls, width: int, *, patches: int, radius: int) -> _Columns:
        owners = torch.tensor([_owner(column, pixels=width, patches=patches) for column in range(width)])
        present, group, counts = torch.unique_consecutive(owners, return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        rank = torch.arange(width) - starts[group]
        places = starts[:, None] + torch.minimum(torch.arange(int(counts.max())), counts[:, None] - 1)
        around = present[:, None] + torch.arange(-radius, radius + 1)
        inside = (around >= 0) & (around < patches)
        return cls(places, around.clamp(0, patches - 1), inside, group, rank)


def _owner(pixel: int, *, pixels: int, patches: int) -> int:
    """The patch that the middle of a pixel lies in, along one side."""
    return (2 * pixel + 1) * patches // (2 * pixels)


def _place(pixel: Tensor, *, pixels: int, patches: int) -> Tensor:
    """Where pixels' middles lie along one side, measured in patches; the middle of the first patch is 0."""
    return ((pixel.double() + 0.5) * patches / pixels - 0.5).float()
