"""From claims to one label a pixel (docs/method.md, fusion)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.maps import LabelMap, Segment, ignore_index


def fuse(
    segments: Sequence[Segment],
    *,
    size: tuple[int, int],
    names: tuple[str, ...],
    margin: float,
    colours: NDArray[np.uint8] | None = None,
) -> LabelMap:
    """Give every pixel to the class that claims it with the highest score.

    A pixel that nobody claims is ignored, and so is one where the best scores of two different classes differ by less
    than the margin; it never becomes background. Claims of one class do not contest each other. Of equal scores, which
    only a margin of 0 lets pass, the class that comes first in the vocabulary wins. The segments may come from any
    generator and in any order: the result is the same. Source: docs/method.md, fusion [chosen].

    Memory: one mask at a time is decoded, and about 10 bytes a pixel are kept, however many segments there are.

    Args:
        segments: claims, whose masks all have the given size.
        size: (height, width) of the image in pixels.
        names: the vocabulary's classes, in order.
        margin: smallest difference of score (0 to 1) at which a contested pixel is still given away.
        colours: (n, 3) uint8, of the classes; none for those of the palette.

    Raises:
        PatchwordError: when a mask has another size.
    """
    # From the highest score down, the first claim on a pixel is its best; a later one can only contest it.
    claims = sorted(segments, key=lambda claim: (-claim.score, claim.class_index))
    nobody = len(claims)
    owner: NDArray[np.int32] = np.full(size, nobody, dtype=np.int32)
    contested = np.zeros(size, dtype=bool)
    for number, claim in enumerate(claims):
        mask = claim.mask()
        if mask.shape != size:
            raise PatchwordError(
                f"a mask of class {claim.class_name!r} has shape {mask.shape}; allowed is the image's {size}"
            )
        window = _window(claim)
        inside, holder = mask[window], owner[window]
        rivals = _rivals(claims, number=number, margin=margin)
        if rivals.any():  # looked up at every pixel, which takes longer than all the rest
            contested[window] |= inside & rivals[holder]
        np.copyto(holder, number, where=inside & (holder == nobody))
    indices = np.array([*(claim.class_index for claim in claims), ignore_index(len(names))], dtype=np.int32)[owner]
    indices[contested] = ignore_index(len(names))
    return LabelMap(indices=indices, names=names, colours=colours)


def _rivals(claims: Sequence[Segment], *, number: int, margin: float) -> NDArray[np.bool_]:
    """For each holder of a pixel (a claim, or nobody in the last place): does this claim contest it?"""
    claim = claims[number]
    rivals = np.zeros(len(claims) + 1, dtype=bool)
    for position, holder in enumerate(claims[:number]):
        rivals[position] = holder.class_index != claim.class_index and holder.score - claim.score < margin
    return rivals


def _window(segment: Segment) -> tuple[slice, slice]:
    """The part of the image that a segment touches."""
    x, y, width, height = segment.box
    return slice(y, y + height), slice(x, x + width)
