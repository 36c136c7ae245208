"""The one place where a segmentation asks for sharper edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.pixels import longest_side_size, resize
from patchword.models.protocols import MaskProposer
from patchword.segment.pixels import MOST_VALUES, PixelClasses
from patchword.segment.refine.guided import GuidedScores
from patchword.segment.refine.pamr import neighbour_weights, spread
from patchword.segment.refine.sampling import at_size, patch_scores
from patchword.segment.refine.settings import PamrSettings
from patchword.segment.refine.snap import snap
from patchword.segment.scores import GridScores, PixelScores
from patchword.segment.settings import SegmentSettings

Assign = Callable[[PixelScores], PixelClasses]
"""The rule by which scores become classes and confidences; no threshold has a part in it."""

_CLASSES_AT_ONCE = 4  # whose refined maps are in memory; changes no result


def refine_pixels(
    scores: PixelScores,
    *,
    assign: Assign,
    class_of: NDArray[np.int64],
    image: Tensor,
    temperature: float,
    settings: SegmentSettings,
    proposer: MaskProposer | None,
) -> PixelClasses:
    """Give every pixel a class and a confidence, with edges that follow the photograph.

    Args:
        scores: of the image.
        assign: how scores become classes; thresholds come after the refinement.
        class_of: (maps,) the class that each map of the scores speaks for.
        image: (1, 3, h, w), RGB from 0 to 1, of the size of the scores.
        temperature: of the softmax in `assign`.
        settings: `refine`, and the numbers of that refinement.
        proposer: draws masks, for "sam".

    Returns:
        Classes, and confidences that are the refined probabilities.

    Raises:
        PatchwordError: for "sam" without a mask proposer.
    """
    if settings.refine == "guided":
        patches = patch_scores(scores, cells=settings.guided.cells)
        return assign(GuidedScores.of(patches, image=image[0], settings=settings.guided))
    if settings.refine == "pamr":
        return _refine_by_pamr(
            scores, assign=assign, class_of=class_of, image=image, temperature=temperature, settings=settings.pamr
        )
    found = assign(scores)
    if settings.refine == "none":
        return found
    if proposer is None:
        raise PatchwordError(
            "refine is 'sam' and there is no mask proposer; allowed is one beside it (mask_proposer=, --mask-proposer)"
        )
    coarse = assign(at_size(scores, longest_side_size(scores.size, target=min(settings.sam.cells, max(scores.size)))))
    return snap(found, coarse=coarse, image=image, proposer=proposer, settings=settings.sam)


def _refine_by_pamr(
    scores: PixelScores,
    *,
    assign: Assign,
    class_of: NDArray[np.int64],
    image: Tensor,
    temperature: float,
    settings: PamrSettings,
) -> PixelClasses:
    """Refine, at a bounded number of pixels, the probabilities of the classes that win somewhere; the best one wins.

    Only the weights of neighbours, the maps of a few classes and the best of the classes before are in memory.
    """
    small = at_size(scores, bounded_size(scores.size, pixels=settings.pixels))
    chances = Probabilities.of(small, assign(small), class_of=class_of, temperature=temperature)
    guide = resize(image.to(scores.device), size=small.size)[0]
    weights = neighbour_weights(guide, dilations=settings.dilations, contrast=settings.contrast)
    indices = np.zeros(scores.size, dtype=chances.found.indices.dtype)
    highest = np.full(scores.size, -1, dtype=np.float32)
    for first in range(0, len(chances.classes), _CLASSES_AT_ONCE):
        classes = chances.classes[first : first + _CLASSES_AT_ONCE]
        refined = spread(
            chances.maps(classes), weights=weights, iterations=settings.iterations, dilations=settings.dilations
        )
        upsampled = GridScores(refined, scores.size)
        for rows in _strips(scores.size, maps=len(classes)):
            value, winner = upsampled.rows(rows, maps=range(len(classes))).max(dim=0)  # (rows, width)
            _raise(indices[rows.start : rows.stop], highest[rows.start : rows.stop], value, by=classes[winner.cpu()])
    return PixelClasses(indices, highest.clip(0, 1))


def _raise(
    indices: NDArray[np.unsignedinteger[Any]], highest: NDArray[np.float32], value: Tensor, *, by: NDArray[np.int64]
) -> None:
    """Where values are higher than the highest so far, they and their classes take its place."""
    found = value.cpu().numpy()
    better = found > highest
    indices[better], highest[better] = by[better], found[better]


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Probabilities of the classes that win somewhere, a few at a time.

    Attributes:
        scores: at every pixel.
        found: the best class of every pixel, and its probability.
        classes: (k,) the classes that are the best anywhere.
        class_of: (maps,) the class that each map of the scores speaks for.
        temperature: of the softmax.
        highest: (h, w) the best score of every pixel.
    """

    scores: PixelScores
    found: PixelClasses
    classes: NDArray[np.int64]
    class_of: NDArray[np.int64]
    temperature: float
    highest: Tensor

    @classmethod
    def of(
        cls, scores: PixelScores, found: PixelClasses, *, class_of: NDArray[np.int64], temperature: float
    ) -> Probabilities:
        """Probabilities that belong to classes found by scores, without any threshold."""
        classes = np.unique(found.indices).astype(np.int64)
        highest = torch.full(scores.size, -torch.inf, device=scores.device)
        for name in classes.tolist():
            highest = torch.maximum(highest, _best_of(name, scores=scores, class_of=class_of))
        return cls(scores, found, classes, class_of, temperature, highest)

    def maps(self, classes: NDArray[np.int64]) -> Tensor:
        """Probabilities (k, h, w) of some of the classes."""
        best = torch.from_numpy(self.found.confidence).to(self.scores.device)
        # The softmax's sum is what makes the best class's probability what it is, and the same for the others.
        scores = [_best_of(name, scores=self.scores, class_of=self.class_of) for name in classes.tolist()]
        return torch.stack([best * ((score - self.highest) / self.temperature).exp() for score in scores])


def _best_of(name: int, *, scores: PixelScores, class_of: NDArray[np.int64]) -> Tensor:
    """A class's score (h, w): the best of its maps."""
    maps = np.flatnonzero(class_of == name).tolist()
    return torch.cat([scores.rows(rows, maps=maps).amax(dim=0) for rows in _strips(scores.size, maps=len(maps))])


def bounded_size(size: tuple[int, int], *, pixels: int) -> tuple[int, int]:
    """The size (height, width) itself, or one of at most about `pixels` pixels with its proportions."""
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _strips(size: tuple[int, int], *, maps: int) -> Iterator[range]:
    """Rows in pieces whose maps are not too many values for memory."""
    at_once = max(1, MOST_VALUES // (size[1] * maps))
    for top in range(0, size[0], at_once):
        yield range(top, min(top + at_once, size[0]))
