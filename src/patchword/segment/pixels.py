"""From class scores on patches to a class and a confidence for every pixel, in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.maps import ignore_index

MOST_VALUES = 2**22  # class scores of pixels in memory at once; bounds memory, changes no result


@dataclass(frozen=True)
class PixelClasses:
    """A class and a confidence for every pixel.

    Attributes:
        indices: (h, w) uint8 below 255 classes, else uint16; `maps.ignore_index` where no class is given.
        confidence: (h, w) float32 in (0, 1].
    """

    indices: NDArray[np.uint8] | NDArray[np.uint16]
    confidence: NDArray[np.float32]


def assign_pixels(
    scores: Tensor,
    *,
    size: tuple[int, int],
    temperature: float,
    threshold: float = 0.0,
    most_values: int = MOST_VALUES,
) -> PixelClasses:
    """Upsample class scores bilinearly and take the best class of every pixel.

    The scores are upsampled before the maximum is taken, so that borders are smooth, a strip of rows and a few classes
    at a
    time: a running maximum and a running sum of exponentials are all that is kept of the classes before.

    Args:
        scores: (n, h, w) of n classes on patches.
        size: (height, width) in pixels of the result.
        temperature: of the softmax over classes whose largest value is the confidence; above 0.
        threshold: pixels of a confidence below it are ignored; 0 ignores none.
        most_values: upsampled scores in memory at once; at least one row of one class is.

    Returns:
        A class and a confidence for every pixel; of classes with the same score the first.

    Source: docs/method.md, stage 3.
    """
    count = len(scores)
    height, width = size
    classes_at_once = max(1, min(count, most_values // width))
    rows_at_once = max(1, most_values // (width * classes_at_once))
    indices = np.empty(size, dtype=np.uint8 if count < 255 else np.uint16)
    confidence = np.empty(size, dtype=np.float32)
    for top in range(0, height, rows_at_once):
        rows = range(top, min(top + rows_at_once, height))
        best, total = _best_of_strip(scores, rows, size, temperature, classes_at_once)
        certainty = total.reciprocal()  # the best class's own exponential is 1, so this is its share
        best[certainty < threshold] = ignore_index(count)
        indices[rows.start : rows.stop] = best.cpu().numpy()
        confidence[rows.start : rows.stop] = certainty.float().cpu().numpy()
    return PixelClasses(indices, confidence)


def _best_of_strip(
    scores: Tensor, rows: range, size: tuple[int, int], temperature: float, classes_at_once: int
) -> tuple[Tensor, Tensor]:
    """The best class (rows, width) of a strip and sum over classes of exp((score - best score) / temperature)."""
    best = torch.zeros((len(rows), size[1]), dtype=torch.int64, device=scores.device)
    highest = torch.full(best.shape, -torch.inf, dtype=scores.dtype, device=scores.device)
    total = torch.zeros_like(highest)
    for first in range(0, len(scores), classes_at_once):
        part = upsample_rows(scores[first : first + classes_at_once], rows=rows, size=size)  # (k, rows, width)
        value, index = part.max(dim=0)
        best = torch.where(value > highest, index + first, best)
        raised = torch.maximum(value, highest)
        total = total * ((highest - raised) / temperature).exp() + ((part - raised) / temperature).exp().sum(dim=0)
        highest = raised
    return best, total


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
