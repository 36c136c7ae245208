"""Scores of classes (or words) at any pixel of an image, never of all pixels at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class PixelScores(Protocol):
    """What a segmentation has found, before anything is decided: one map a class, or one a word.

    Attributes:
        count: how many maps.
        size: (height, width) of the image in pixels.
        device: that the scores are on.
    """

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def device(self) -> torch.device: ...

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        """Scores of some maps in some rows of pixels.

        Args:
            rows: rows of the image, one after the other.
            maps: which maps.

        Returns:
            (len(maps), len(rows), width) float32.
        """


@dataclass(frozen=True, eq=False)
class GridScores:
    """Scores on patches, upsampled bilinearly where they are asked for.

    Attributes:
        patches: (n, h, w) scores of n maps on patches.
        size: (height, width) of the image in pixels.
    """

    patches: Tensor
    size: tuple[int, int]

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
        return upsample_rows(take(self.patches, maps), rows=rows, size=self.size)


def take(scores: Tensor, maps: range | Sequence[int]) -> Tensor:
    """Some of the maps (n, ...) along the first dimension; a view where they lie next to each other."""
    if isinstance(maps, range) and maps.step == 1:
        return scores[maps.start : maps.stop]
    return scores[list(maps)]


def upsample_rows(scores: Tensor, *, rows: range, size: tuple[int, int]) -> Tensor:
    """A strip of the bilinear upsampling of a map (corners not aligned), without the rest of it.

    Args:
        scores: (k, h, w).
        rows: the rows of the result that are wanted, one after the other.
        size: (height, width) of the whole result.

    Returns:
        (k, len(rows), width), as `interpolate(scores, size, mode="bilinear")` has in those rows.
    """
    height = scores.shape[1]
    wanted = torch.arange(rows.start, rows.stop, device=scores.device, dtype=torch.float64)
    position = ((wanted + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    lower = position.long().clamp(max=height - 1)
    upper = (lower + 1).clamp(max=height - 1)
    weight = (position - lower).to(scores.dtype)[:, None]
    between = torch.lerp(scores[:, lower], scores[:, upper], weight)  # (k, rows, w)
    return functional.interpolate(between, size=size[1], mode="linear", align_corners=False)
