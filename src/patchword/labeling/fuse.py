"""From claims to one label a pixel (docs/method.md, fusion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap, Segment, ignore_index
from patchword.errors import PatchwordError

FusionRule = Literal["highest", "sum"]


def fuse(
    segments: Sequence[Segment],
    *,
    size: tuple[int, int],
    names: tuple[str, ...],
    margin: float,
    rule: FusionRule = "highest",
    colours: NDArray[np.uint8] | None = None,
) -> LabelMap:
    """Give every pixel to the class that claims it with the highest score.

    A pixel that nobody claims is ignored, and so is one where the best scores of two different classes differ by less
    than the margin; it never becomes background. Claims of one class do not contest each other. Of equal scores, which
    only a margin of 0 lets pass, the class that comes first in the vocabulary wins. The segments may come from any
    generator and in any order: the result is the same. Source: docs/method.md, fusion [chosen].

    By the rule "sum" a class's score at a pixel is the sum of each generator's highest for it, so that two generators
    that agree outweigh one that is surer; for the claims of one generator both rules are the same.

    Memory: one mask at a time is decoded, and about 10 bytes a pixel are kept, by the rule "sum" about 60 at most,
    however many segments there are.

    Args:
        segments: claims, whose masks all have the given size.
        size: (height, width) of the image in pixels.
        names: the vocabulary's classes, in order.
        margin: smallest difference of score (0 to 1) at which a contested pixel is still given away.
        rule: "highest" or "sum", how the claims of several generators for one class count.
        colours: (n, 3) uint8, of the classes; none for those of the palette.
    """
    if rule == "sum" and len({claim.generator for claim in segments}) > 1:
        indices = _by_sum(segments, size=size, ignore=ignore_index(len(names)), margin=margin)
    else:
        indices = _by_highest(segments, size=size, ignore=ignore_index(len(names)), margin=margin)
    return LabelMap(indices=indices, names=names, colours=colours)


def _by_highest(segments: Sequence[Segment], *, size: tuple[int, int], ignore: int, margin: float) -> NDArray[np.int32]:
    """Class or ignore (h, w), by the highest score alone."""
    # From the highest score down, the first claim on a pixel is its best; a later one can only contest it.
    claims = sorted(segments, key=lambda claim: (-claim.score, claim.class_index))
    nobody = len(claims)
    owner: NDArray[np.int32] = np.full(size, nobody, dtype=np.int32)
    contested = np.zeros(size, dtype=bool)
    for number, claim in enumerate(claims):
        window = _window(claim)
        inside, holder = _inside(claim, size=size), owner[window]
        rivals = _rivals(claims, number=number, margin=margin)
        if rivals.any():  # looked up at every pixel, which takes longer than all the rest
            contested[window] |= inside & rivals[holder]
        np.copyto(holder, number, where=inside & (holder == nobody))
    indices = np.array([*(claim.class_index for claim in claims), ignore], dtype=np.int32)[owner]
    indices[contested] = ignore
    return indices


def _by_sum(segments: Sequence[Segment], *, size: tuple[int, int], ignore: int, margin: float) -> NDArray[np.int32]:
    """Class or ignore (h, w), by the sum of the generators' highest scores for a class."""
    best, second = np.full(size, -np.inf), np.full(size, -np.inf)
    indices: NDArray[np.int32] = np.full(size, ignore, dtype=np.int32)
    for class_index in sorted({claim.class_index for claim in segments}):
        claims = [claim for claim in segments if claim.class_index == class_index]
        window = _window(*claims)
        total = _summed(claims, size=size, window=window)
        first, next_best = best[window], second[window]
        wins = total > first  # of equal ones the first stays
        np.maximum(next_best, np.minimum(total, first), out=next_best)
        np.copyto(first, total, where=wins)
        indices[window][wins] = class_index
    rivalled = second > -np.inf
    indices[rivalled] = np.where(best[rivalled] - second[rivalled] < margin, ignore, indices[rivalled])
    return indices


def _summed(claims: Sequence[Segment], *, size: tuple[int, int], window: tuple[slice, slice]) -> NDArray[np.float64]:
    """Sum of each generator's highest score at every pixel of a window; minus infinity where nobody claims it."""
    rows, columns = window
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    total = np.full(shape, -np.inf)
    for generator in sorted({claim.generator for claim in claims}):
        top = np.full(shape, -np.inf)
        for claim in claims:
            if claim.generator == generator:
                own_rows, own_columns = _window(claim)
                part = top[
                    own_rows.start - rows.start : own_rows.stop - rows.start,
                    own_columns.start - columns.start : own_columns.stop - columns.start,
                ]
                np.maximum(part, claim.score, out=part, where=_inside(claim, size=size))
        claimed = top > -np.inf
        np.copyto(total, 0.0, where=claimed & (total == -np.inf))
        np.add(total, top, out=total, where=claimed)
    return total


def _inside(claim: Segment, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The claim's mask within its window."""
    mask = claim.mask()
    if mask.shape != size:
        raise PatchwordError(
            f"a mask of class {claim.class_name!r} has shape {mask.shape}; it must have the image's, {size}"
        )
    return mask[_window(claim)]


def _rivals(claims: Sequence[Segment], *, number: int, margin: float) -> NDArray[np.bool_]:
    """For each holder of a pixel (a claim, or nobody in the last place): does this claim contest it?"""
    claim = claims[number]
    rivals = np.zeros(len(claims) + 1, dtype=bool)
    for position, holder in enumerate(claims[:number]):
        rivals[position] = holder.class_index != claim.class_index and holder.score - claim.score < margin
    return rivals


def _window(*segments: Segment) -> tuple[slice, slice]:
    """The part of the image that segments touch."""
    boxes = [segment.box for segment in segments if segment.area]
    if not boxes:
        return slice(0, 0), slice(0, 0)
    top, left = min(y for _, y, _, _ in boxes), min(x for x, _, _, _ in boxes)
    bottom, right = max(y + height for _, y, _, height in boxes), max(x + width for x, _, width, _ in boxes)
    return slice(top, bottom), slice(left, right)
