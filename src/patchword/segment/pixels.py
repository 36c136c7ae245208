"""From class scores on patches to a class and a confidence for every pixel, in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.maps import ignore_index
from patchword.segment.scores import PixelScores

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
    scores: PixelScores,
    *,
    temperature: float,
    threshold: float = 0.0,
    most_values: int = MOST_VALUES,
) -> PixelClasses:
    """Take the best class of every pixel, and its share in a softmax.

    Scores are upsampled before the maximum is taken, so that borders are smooth, a strip of rows and a few classes at a
    time: a running maximum and a running sum of exponentials are all that is kept of the classes before.

    Args:
        scores: of n classes at any pixel.
        temperature: of the softmax over classes whose largest value is the confidence; above 0.
        threshold: pixels of a confidence below it are ignored; 0 ignores none.
        most_values: upsampled scores in memory at once; at least one row of one class is.

    Returns:
        A class and a confidence for every pixel; of classes with the same score the first.

    Source: docs/method.md, stage 3.
    """
    count = scores.count
    height, width = scores.size
    classes_at_once = max(1, min(count, most_values // width))
    rows_at_once = max(1, most_values // (width * classes_at_once))
    indices = np.empty(scores.size, dtype=np.uint8 if count < 255 else np.uint16)
    confidence = np.empty(scores.size, dtype=np.float32)
    for top in range(0, height, rows_at_once):
        rows = range(top, min(top + rows_at_once, height))
        best, total = _best_of_strip(scores, rows, temperature, classes_at_once)
        certainty = total.reciprocal()  # the best class's own exponential is 1, so this is its share
        best[certainty < threshold] = ignore_index(count)
        indices[rows.start : rows.stop] = best.cpu().numpy()
        confidence[rows.start : rows.stop] = certainty.float().cpu().numpy()
    return PixelClasses(indices, confidence)


def _best_of_strip(scores: PixelScores, rows: range, temperature: float, classes_at_once: int) -> tuple[Tensor, Tensor]:
    """The best class (rows, width) of a strip and sum over classes of exp((score - best score) / temperature)."""
    best: Tensor | None = None
    for first in range(0, scores.count, classes_at_once):
        part = scores.rows(rows, maps=range(first, min(first + classes_at_once, scores.count)))  # (k, rows, width)
        value, index = part.max(dim=0)
        if best is None:
            best, highest, total = index, value, ((part - value) / temperature).exp().sum(dim=0)
            continue
        best = torch.where(value > highest, index + first, best)
        raised = torch.maximum(value, highest)
        total = total * ((highest - raised) / temperature).exp() + ((part - raised) / temperature).exp().sum(dim=0)
        highest = raised
    if best is None:
        raise PatchwordError("there are no maps to choose from; allowed is one class or more")
    return best, total
