"""The mask proposer's answers: some prompts of several images at a time, and masks at the images' own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.masks import RunLengths, run_lengths
from patchword.models.batching import Batches, within
from patchword.models.pixels import MaskFrame, full_logits
from patchword.models.protocols import ImageEmbedding, MaskProposals, MaskProposer

Box = tuple[int, int, int, int]

_UPSAMPLED_AT_ONCE = 16  # masks of full size that are in memory together


@dataclass(frozen=True)
class Answers:
    """Proposals for some of an image's prompts: its number, and the first of the prompts."""

    image: int
    first: int
    proposals: MaskProposals


def decode(
    proposer: MaskProposer,
    *,
    embeddings: Sequence[ImageEmbedding],
    points: Sequence[Tensor],
    start: int,
    stop: int,
) -> list[Answers]:
    """Decode prompts `start` to `stop` - 1 of those of all images laid end to end, in one call.

    Args:
        embeddings: one an image.
        points: for each image (n, k, 2) in its pixels, one k for all.
    """
    chosen = within([len(places) for places in points], start=start, stop=stop)
    found = proposer.masks_at(
        [embeddings[image] for image, _, _ in chosen], [points[image][first:last] for image, first, last in chosen]
    )
    return [Answers(image, first, proposals) for (image, first, _), proposals in zip(chosen, found, strict=True)]


def stability_of(logits: Tensor, *, offset: float) -> Tensor:
    """IoU of masks cut `offset` above zero and `offset` below it.

    Args:
        logits: (..., h, w).
        offset: in logits, at least 0.

    Returns:
        (...) in [0, 1]; 0 for a mask that is empty even at the lower cut.

    Source:
        Kirillov et al., Segment Anything, section 5 (stable masks).
    """
    inner = (logits > offset).sum((-1, -2))
    outer = (logits > -offset).sum((-1, -2))  # the inner mask lies within the outer one
    return inner / outer.clamp(min=1)


def encode_masks(
    logits: Tensor, *, box: Box, image_size: tuple[int, int], batches: Batches, frame: MaskFrame | None = None
) -> list[RunLengths]:
    """Bring masks to an image's pixels and run-length encode them, a few at a time.

    Args:
        logits: (n, h', w') of a part of the image, above 0 = inside.
        box: the part as x0, y0, x1, y1 in pixels of the image, x1 and y1 outside.
        image_size: (height, width) in pixels of the image.
        frame: where the part lies in what the logits cover, where that is more than the part.

    Returns:
        the masks, of the image's size, nothing inside beyond the part.
    """
    x0, y0, x1, y1 = box
    whole = (x0, y0, y1 - y0, x1 - x0) == (0, 0, *image_size)

    def some(start: int, stop: int) -> list[RunLengths]:
        full = full_logits(logits[start:stop], size=(y1 - y0, x1 - x0), frame=frame) > 0
        # Columns first, as run lengths have them.
        parts = full.transpose(1, 2).contiguous().cpu().numpy()  # (n, w, h)
        encoded = []
        for part in parts:
            canvas: NDArray[np.bool_] = part
            if not whole:
                canvas = np.zeros((image_size[1], image_size[0]), dtype=bool)
                canvas[x0:x1, y0:y1] = part
            encoded.append(run_lengths(canvas.T))
        return encoded

    found = batches.run(some, count=len(logits), size=_UPSAMPLED_AT_ONCE, what="full-size masks")
    return [mask for part in found for mask in part]
