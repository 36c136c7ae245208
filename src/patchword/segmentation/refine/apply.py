"""The one place where a segmentation asks for sharper edges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import PamrSettings
from patchword.config.segment import SegmentSettings
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import longest_side_size, resize
from patchword.models.protocols import MaskGenerator
from patchword.segmentation.pixels import (
    PixelClasses,
    PostprocessConfig,
    assign_maps,
    assign_pixels,
    class_shares,
    pieces,
)
from patchword.segmentation.refine.jbu import JbuScores
from patchword.segmentation.refine.snap import Ballot, snap
from patchword.segmentation.scores import GridScores, PixelScores

_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
_LEAST_DEVIATION = 1e-8  # keeps flat areas, where all differences are 0 too, from dividing by 0


def pamr(probabilities: Tensor, *, image: Tensor, iterations: int, dilations: Sequence[int], contrast: float) -> Tensor:
    """Refine the maps of classes by an image.

    Args:
        probabilities: (n, h, w) of n classes; any subset of the classes, as every class is refined for itself.
        image: (c, h, w) colours on any scale.
        iterations: rounds of averaging, 0 and more.
        dilations: distances in pixels of the rings of neighbours.
        contrast: share of the local standard deviation over which a weight falls by a factor e, above 0.

    Returns:
        (n, h, w), every value within the range of its class's before.
    """
    weights = neighbour_weights(image, dilations=dilations, contrast=contrast)
    return spread(probabilities, weights=weights, iterations=iterations, dilations=dilations)


def neighbour_weights(image: Tensor, *, dilations: Sequence[int], contrast: float) -> Tensor:
    """How much each neighbour counts in a pixel's average; arguments as of `pamr`.

    Returns:
        (8 * len(dilations), h, w), at least 0, summing to 1 over the first dimension.
    """
    logits = image.new_zeros((len(_NEIGHBOURS) * len(dilations), *image.shape[1:]))
    for channel in image:
        deviation = _deviation(channel, dilations=dilations)  # (h, w)
        scale = -1 / (len(image) * (contrast * deviation + _LEAST_DEVIATION))
        for logit, neighbour in zip(logits, _shifted(channel, dilations), strict=True):
            logit.addcmul_((neighbour - channel).abs_(), scale)
    return logits.softmax(dim=0)


def spread(maps: Tensor, *, weights: Tensor, iterations: int, dilations: Sequence[int]) -> Tensor:
    """Average maps (n, h, w) over their pixels' neighbours, with the weights that `neighbour_weights` gives."""
    if maps.shape[1:] != weights.shape[1:]:
        raise PatchwordError(
            f"maps are {maps.shape[1]} x {maps.shape[2]} and the image {weights.shape[1]} x {weights.shape[2]} pixels; "
            "their sizes must be equal"
        )
    for _ in range(iterations):
        average = torch.zeros_like(maps)
        for weight, neighbour in zip(weights, _shifted(maps, dilations), strict=True):
            average.addcmul_(neighbour, weight)
        maps = average
    return maps


def _deviation(channel: Tensor, *, dilations: Sequence[int]) -> Tensor:
    """Unbiased standard deviation (h, w) of a channel (h, w) over the neighbours and the pixel at every dilation."""
    total, squares = torch.zeros_like(channel), torch.zeros_like(channel)
    for neighbour in _shifted(channel, dilations):
        difference = neighbour - channel  # the pixel's own difference is 0, so that it adds to neither sum
        total += difference
        squares.addcmul_(difference, difference)
    count = (len(_NEIGHBOURS) + 1) * len(dilations)
    return ((squares - total.square() / count) / (count - 1)).clamp_(min=0).sqrt_()


def _shifted(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The maps (..., h, w) as every neighbour sees them, dilation by dilation; views of one padded copy."""
    height, width = maps.shape[-2:]
    reach = max(dilations)
    padded = functional.pad(maps.reshape(1, -1, height, width), (reach, reach, reach, reach), mode="replicate")
    padded = padded.reshape(*maps.shape[:-2], height + 2 * reach, width + 2 * reach)
    for dilation in dilations:
        for down, right in _NEIGHBOURS:
            top, left = reach + down * dilation, reach + right * dilation
            yield padded[..., top : top + height, left : left + width]


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


_CLASSES_AT_ONCE = 4  # whose refined maps are in memory; changes no result


def refine_scores(scores: PixelScores, *, image: NDArray[np.uint8], settings: SegmentSettings) -> PixelScores:
    """Scores that follow the photograph's edges where `refine` is "jbu", else the same.

    Args:
        scores: of the image.
        image: (h, w, 3) uint8.
        settings: `refine`, and the numbers of joint bilateral upsampling.
    """
    if settings.refine != "jbu":
        return scores
    return JbuScores(patch_scores(scores), image=torch.from_numpy(image).permute(2, 0, 1), settings=settings.jbu)


def refine_pixels(
    scores: PixelScores,
    *,
    decision: PostprocessConfig,
    image: NDArray[np.uint8],
    seen: Tensor | None = None,
    settings: SegmentSettings,
    proposer: MaskGenerator | None,
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
        raise PatchwordError("refine=sam needs a SAM (--mask-proposer, mask_proposer= in Python)")
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


def _refine_by_pamr(
    scores: PixelScores, *, decision: PostprocessConfig, guide: Tensor, settings: PamrSettings
) -> PixelClasses:
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
