"""Scores of classes (or words) at any pixel of an image, never of all pixels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from patchword.segmentation.upsampling import Axis, whole_axis, windows_axis
from patchword.segmentation.windows import WindowPlan

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
