"""Pixel-adaptive mask refinement: classes spread to neighbours that look alike (Araslanov and Roth 2020).

For the eight neighbours j of pixel i at each dilation, and the colour channels c:

    weight(i, j) = softmax over j of ( mean over c of -|x_c(i) - x_c(j)| / (contrast * s_c(i) + 1e-8) )
    m(i) <- sum over j of weight(i, j) * m(j),     `iterations` times, for the map m of every class.

s_c(i) is the unbiased standard deviation of channel c over the eight neighbours and the pixel itself at every dilation;
the pixel counts once a dilation. The pixel has no part in its own average. Beyond the border the nearest pixel stands.
Weights are at least 0 and sum to 1, so that the probabilities of all classes go on summing to 1. The channels' scales
cancel out, so that it does not matter how the image was normalised.

contrast is 0.1 and iterations is 10 in the authors' code, with dilations 1, 2, 4, 8, 12, 24; TCL and Talk2DINO take
these over, SCLIP and NACLIP have dilations 8, 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError

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
            f"allowed are equal sizes"
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
