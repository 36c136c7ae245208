"""Scores on a coarser grid than an image's pixels: what a refinement of bounded cost works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.segmentation.scores import GridScores, PixelScores


@dataclass(frozen=True, eq=False)
class SampledScores:
    """The scores of an image at one pixel in each cell of a grid; a `PixelScores` of the grid's size.

    Scores are smooth between patches, so that one pixel stands for a cell that is smaller than a patch.

    Attributes:
        whole: the scores at the image's own size.
        size: (height, width) of the grid.
    """

    whole: PixelScores
    size: tuple[int, int]

    @property
    def count(self) -> int:
        """How many maps."""
        return self.whole.count

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches that the image was seen as."""
        return self.whole.grid

    @property
    def device(self) -> torch.device:
        """That the scores are on."""
        return self.whole.device

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """As of `PixelScores`: (len(maps), len(rows), width of the grid)."""
        columns = torch.tensor(
            [_middle(cell, cells=self.size[1], pixels=self.whole.size[1]) for cell in range(self.size[1])]
        )
        parts = []
        for row in rows:
            middle = _middle(row, cells=self.size[0], pixels=self.whole.size[0])
            parts.append(self.whole.rows(range(middle, middle + 1), maps=maps)[:, :, columns.to(self.device)])
        return torch.cat(parts, dim=1)


def at_size(scores: PixelScores, size: tuple[int, int]) -> PixelScores:
    """The scores of an image on a grid (height, width) over it; of patches, the bilinear upsampling to that grid."""
    if size == scores.size:
        return scores
    return GridScores(scores.patches, size) if isinstance(scores, GridScores) else SampledScores(scores, size)


def patch_scores(scores: PixelScores) -> Tensor:
    """Scores (n, rows, columns) on the grid of patches; of windows joined by logits, at one pixel in each patch."""
    if isinstance(scores, GridScores):
        return scores.patches
    return SampledScores(scores, scores.grid).rows(range(scores.grid[0]), maps=range(scores.count))


def _middle(cell: int, *, cells: int, pixels: int) -> int:
    """The pixel that the middle of a cell lies in, along one side."""
    return (2 * cell + 1) * pixels // (2 * cells)
