"""The one place where a segmentation asks for sharper edges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import longest_side_size, resize
from patchword.models.protocols import MaskProposer
from patchword.segmentation.pixels import Decision, PixelClasses, assign_maps, assign_pixels, class_shares, pieces
from patchword.segmentation.refine.jbu import GuidedScores
from patchword.segmentation.refine.pamr import neighbour_weights, spread
from patchword.segmentation.refine.sampling import at_size, patch_scores
from patchword.segmentation.refine.settings import PamrSettings
from patchword.segmentation.refine.snap import Ballot, snap
from patchword.segmentation.scores import GridScores, PixelScores
from patchword.segmentation.settings import SegmentSettings

_CLASSES_AT_ONCE = 4  # whose refined maps are in memory; changes no result


def refine_scores(scores: PixelScores, *, image: NDArray[np.uint8], settings: SegmentSettings) -> PixelScores:
    """Scores that follow the photograph's edges where `refine` is "guided", else the same.

    Args:
        scores: of the image.
        image: (h, w, 3) uint8.
        settings: `refine`, and the numbers of guided upsampling.
    """
    if settings.refine != "guided":
        return scores
    return GuidedScores(patch_scores(scores), image=torch.from_numpy(image).permute(2, 0, 1), settings=settings.guided)


def refine_pixels(
    scores: PixelScores,
    *,
    decision: Decision,
    image: NDArray[np.uint8],
    seen: Tensor | None = None,
    settings: SegmentSettings,
    proposer: MaskProposer | None,
) -> PixelClasses:
    """Give every pixel a class and a confidence, with the edges of "pamr" or "sam" where `refine` is one of them.

    Args:
        scores: of the image; those of `refine_scores`.
        decision: how scores become classes; its thresholds come after the refinement.
        image: (h, w, 3) uint8, of the size of the scores.
        seen: (1, 3, h', w'), the image as the model sees it, where that is the guide of "pamr"; None for the image.
        settings: `refine`, and the numbers of that refinement.
        proposer: draws masks, for "sam".

    Returns:
        Classes, and confidences that are the refined probabilities.
    """
    if settings.refine == "pamr":
        guide = to_tensor(image) if seen is None else resize(seen, size=scores.size, mode="bilinear", antialias=False)
        guide = guide.to(scores.device)
        if settings.pamr.spreads == "cosines":
            maps = _spread_scores(scores, guide=guide, settings=settings.pamr)
            return assign_maps(maps, decision=decision)
        return _refine_by_pamr(scores, decision=decision, guide=guide, settings=settings.pamr)
    found = assign_pixels(scores, decision=decision)
    if settings.refine != "sam":
        return found
    if proposer is None:
        raise PatchwordError(
            "refine is 'sam' and there is no mask proposer; allowed is one beside it (mask_proposer=, --mask-proposer)"
        )
    coarse = at_size(scores, longest_side_size(scores.size, target=min(settings.sam.cells, max(scores.size))))
    ballot = Ballot.of(
        coarse,
        assign_pixels(coarse, decision=decision),
        class_of=decision.class_of,
        temperature=decision.temperature,
    )
    return snap(found, ballot=ballot, image=to_tensor(image), proposer=proposer, settings=settings.sam)


def _spread_scores(scores: PixelScores, *, guide: Tensor, settings: PamrSettings) -> Iterator[Tensor]:
    """All maps of scores, a few at a time (k, h, w), refined at a bounded number of pixels by a guide (1, 3, h, w)."""
    small = at_size(scores, bounded_size(scores.size, pixels=settings.pixels))
    weights = neighbour_weights(
        resize(guide, size=small.size)[0], dilations=settings.dilations, contrast=settings.contrast
    )
    for first in range(0, scores.count, _CLASSES_AT_ONCE):
        maps = small.rows(range(small.size[0]), maps=range(first, min(first + _CLASSES_AT_ONCE, scores.count)))
        refined = spread(maps, weights=weights, iterations=settings.iterations, dilations=settings.dilations)
        if small.size != scores.size:
            refined = GridScores(refined, scores.size).rows(range(scores.size[0]), maps=range(len(refined)))
        yield refined


def _refine_by_pamr(scores: PixelScores, *, decision: Decision, guide: Tensor, settings: PamrSettings) -> PixelClasses:
    """Refine, at a bounded number of pixels, the probabilities of the classes that win somewhere; the best one wins.

    Only the weights of neighbours, the maps of a few classes and the best of the classes before are in memory.
    """
    small = at_size(scores, bounded_size(scores.size, pixels=settings.pixels))
    before = assign_pixels(small, decision=decision)
    winners = np.unique(before.indices).astype(np.int64)
    weights = neighbour_weights(
        resize(guide, size=small.size)[0], dilations=settings.dilations, contrast=settings.contrast
    )
    indices = np.zeros(scores.size, dtype=before.indices.dtype)
    highest = np.full(scores.size, -1, dtype=np.float32)
    for first in range(0, len(winners), _CLASSES_AT_ONCE):
        classes = winners[first : first + _CLASSES_AT_ONCE]
        shares = class_shares(
            small, class_of=decision.class_of, classes=classes.tolist(), temperature=decision.temperature
        )
        refined = spread(shares, weights=weights, iterations=settings.iterations, dilations=settings.dilations)
        upsampled = GridScores(refined, scores.size)
        for rows, _ in pieces(upsampled):
            value, winner = upsampled.rows(rows, maps=range(len(classes))).max(dim=0)  # (rows, width)
            by = classes[winner.cpu().numpy()]  # a tensor of one value would be taken for a number
            _raise(indices[rows.start : rows.stop], highest[rows.start : rows.stop], value, by=by)
    return PixelClasses(indices, highest.clip(0, 1))


def _raise(
    indices: NDArray[np.unsignedinteger[Any]], highest: NDArray[np.float32], value: Tensor, *, by: NDArray[np.int64]
) -> None:
    """Where values are higher than the highest so far, they and their classes take its place."""
    found = value.cpu().numpy()
    better = found > highest
    indices[better], highest[better] = by[better], found[better]


def bounded_size(size: tuple[int, int], *, pixels: int) -> tuple[int, int]:
    """The size (height, width) itself, or one of at most about `pixels` pixels with its proportions."""
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
