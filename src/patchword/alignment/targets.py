"""From the pixels of a label map to one label a patch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from patchword.alignment.sampling import IGNORED
from patchword.errors import PatchwordError


def patch_labels(indices: Tensor, *, ignore: int, classes: int, grid: tuple[int, int], majority: float) -> Tensor:
    """Give each patch the class that most of its pixels have, or ignore.

    The grid covers the whole map: patch (i, j) holds the pixels whose centre lies in it, which is what it shows of the
        image after resizing. A map with fewer pixels than the grid has patches is first enlarged by a whole factor. The
        share
    of the majority is taken of all the patch's pixels, ignored ones too, so that a patch of which little is labelled
    stays ignored. Of two classes with equally many pixels the lower index wins.

    Args:
        indices: (h, w) integers, class of each pixel or `ignore`.
        ignore: the value that means no label.
        classes: number of classes; every other value must be below.
        grid: (rows, columns) of patches.
        majority: share of the patch's pixels in (0, 1] that its class must have at least.

    Returns:
        (rows, columns) int64, -1 = ignored.
    """
    indices = indices.long()
    ignored = indices == ignore
    wrong = indices[~ignored & ((indices < 0) | (indices >= classes))]
    if len(wrong):
        raise PatchwordError(
            f"the label map holds the value {int(wrong[0])}; values must be 0 to {classes - 1}, or {ignore} for ignore"
        )
    rows, columns = grid
    bins = torch.where(ignored, classes, indices)  # ignore counts in one extra bin, the last
    bins = _at_least(_at_least(bins, rows, dim=0), columns, dim=1)
    patch = _patch_of(bins.shape[0], rows)[:, None] * columns + _patch_of(bins.shape[1], columns)  # (h, w)
    counts = torch.bincount((patch * (classes + 1) + bins).flatten(), minlength=rows * columns * (classes + 1))
    counts = counts.reshape(rows * columns, classes + 1)
    most, label = counts[:, :classes].max(dim=1)
    enough = most >= majority * counts.sum(dim=1).double()
    return torch.where(enough & (most > 0), label, IGNORED).reshape(rows, columns)


def _at_least(pixels: Tensor, count: int, *, dim: int) -> Tensor:
    """Repeat every pixel along `dim` as often as it takes to have at least `count`."""
    return (
        pixels.repeat_interleave(math.ceil(count / pixels.shape[dim]), dim=dim) if pixels.shape[dim] < count else pixels
    )


def _patch_of(pixels: int, patches: int) -> Tensor:
    """Index of the patch that holds the centre of each pixel, (pixels,) int64, in whole numbers and so exact."""
    return (2 * torch.arange(pixels) + 1) * patches // (2 * pixels)
