"""PAMR: maps of classes are averaged over neighbours of like colour (Araslanov and Roth, arXiv 2005.08104)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import PamrSettings
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import resize
from patchword.segmentation.pixels import (
    PixelClasses,
    PostprocessConfig,
    assign_maps,
    assign_pixels,
    class_shares,
    pieces,
)
from patchword.segmentation.scores import GridScores, PixelScores, at_size

_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
_LEAST_DEVIATION = 1e-8  # keeps flat areas, where all differences are 0 too, from dividing by 0


def neighbour_weights(image: Tensor, *, dilations: Sequence[int], contrast: float) -> Tensor:
    """How much each neighbour counts in a pixel's average.

    Args:
        image: (c, h, w) colours on any scale.
        dilations: distances in pixels of the rings of neighbours.
        contrast: share of the local standard deviation over which a weight falls by a factor e, above 0.

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


_CLASSES_AT_ONCE = 4  # whose refined maps are in memory; changes no result


def refine_by_pamr(
    scores: PixelScores,
    *,
    decision: PostprocessConfig,
    image: NDArray[np.uint8],
    seen: Tensor | None,
    settings: PamrSettings,
) -> PixelClasses:
    """Give every pixel a class and a confidence, which is the refined probability; no threshold.

    Args:
        scores: of the image.
        decision: how scores become classes; its thresholds come afterwards.
        image: (h, w, 3) uint8, of the size of the scores.
        seen: (1, 3, h', w'), the image as the model sees it, where that is the guide; None for the image.
        settings: of the refinement.
    """
    guide = to_tensor(image) if seen is None else resize(seen, size=scores.size, mode="bilinear", antialias=False)
    small = at_size(scores, bounded_size(scores.size, pixels=settings.pixels))
    colours = resize(guide.to(scores.device), size=small.size)[0]
    weights = neighbour_weights(colours, dilations=settings.dilations, contrast=settings.contrast)
    if settings.spreads == "cosines":
        maps = _spread_scores(small, size=scores.size, weights=weights, settings=settings)
        return assign_maps(maps, decision=decision)
    return _spread_shares(small, size=scores.size, decision=decision, weights=weights, settings=settings)


def _spread_scores(
    small: PixelScores, *, size: tuple[int, int], weights: Tensor, settings: PamrSettings
) -> Iterator[Tensor]:
    """All maps of scores, refined and brought to a size, a few at a time (k, h, w)."""
    for first in range(0, small.count, _CLASSES_AT_ONCE):
        maps = small.rows(range(small.size[0]), maps=range(first, min(first + _CLASSES_AT_ONCE, small.count)))
        refined = spread(maps, weights=weights, iterations=settings.iterations, dilations=settings.dilations)
        if small.size != size:
            refined = GridScores(refined, size).rows(range(size[0]), maps=range(len(refined)))
        yield refined


def _spread_shares(
    small: PixelScores, *, size: tuple[int, int], decision: PostprocessConfig, weights: Tensor, settings: PamrSettings
) -> PixelClasses:
    """Refine the probabilities of the classes that win somewhere; the best one wins.

    Only the weights of neighbours, the maps of a few classes and the best of the classes before are in memory.
    """
    before = assign_pixels(small, decision=decision)
    winners = np.unique(before.indices).astype(np.int64)
    indices = np.zeros(size, dtype=before.indices.dtype)
    highest = np.full(size, -1, dtype=np.float32)
    for first in range(0, len(winners), _CLASSES_AT_ONCE):
        classes = winners[first : first + _CLASSES_AT_ONCE]
        shares = class_shares(
            small, class_of=decision.class_of, classes=classes.tolist(), temperature=decision.temperature
        )
        refined = spread(shares, weights=weights, iterations=settings.iterations, dilations=settings.dilations)
        upsampled = GridScores(refined, size)
        for rows, _ in pieces(upsampled):
            value, winner = (part.cpu().numpy() for part in upsampled.rows(rows, maps=range(len(classes))).max(dim=0))
            strip = slice(rows.start, rows.stop)
            better = value > highest[strip]
            indices[strip][better], highest[strip][better] = classes[winner][better], value[better]
    return PixelClasses(indices, highest.clip(0, 1))


def bounded_size(size: tuple[int, int], *, pixels: int) -> tuple[int, int]:
    """The size (height, width) itself, or one of at most about `pixels` pixels with its proportions."""
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
