"""Names for nameless masks: what their patches and the masked crop say (docs/method.md 1.2, step 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.label.doubt import Doubt, doubts
from patchword.label.localise import cell_shares, pooled, word_scores
from patchword.label.propose import Proposal
from patchword.label.settings import LabelSettings
from patchword.models.pixels import resize
from patchword.models.protocols import ImageTextEncoder
from patchword.text import TextVectors

_CONTEXT = 0.1  # of the longer side of a mask's box, around it in its crop


@dataclass(frozen=True)
class Name:
    """Which of the kept classes a mask shows.

    Attributes:
        proposal: the mask.
        position: which of the kept classes.
        share: mean evidence for the class inside the mask, in [0, 1].
        doubt: what speaks against the name.
    """

    proposal: Proposal
    position: int
    share: float
    doubt: Doubt


def name_masks(
    image: Tensor,
    proposals: Sequence[Proposal],
    *,
    similarity: Tensor,
    evidence: Tensor,
    text: TextVectors,
    encoder: ImageTextEncoder,
    side: int,
    settings: LabelSettings,
) -> list[Name]:
    """Give every mask the name that leads all others, background words included, by enough; leave out the rest.

    A word's cosine with a mask is the mean of two: that of the patches inside and that of the masked crop's class
    token, weighed by `token_weight`. Source: docs/method.md 1.2 step 2 [chosen].

    Args:
        image: (1, 3, h, w), RGB in [0, 1], of the size that the masks have.
        proposals: the masks.
        similarity: (k + m, rows, columns) cosine of patches with the k kept classes and m background words.
        evidence: (k, rows, columns) of the kept classes, in [0, 1].
        text: words of the kept classes and background words.
        encoder: sees the masked crops.
        side: of the crops that it sees, in pixels.
        settings: `name_margin`, `token_weight`, `crop_batch`, `entropy_temperature`.

    Returns:
        the masks that have a name, in the given order.
    """
    named = []
    for batch in _batches(proposals, settings.crop_batch):
        masks = [proposal.mask() for proposal in batch]
        grid = (similarity.shape[-2], similarity.shape[-1])
        inside = torch.cat([cell_shares(torch.from_numpy(mask)[None], grid=grid) for mask in masks])
        cosines = pooled(inside, similarity)  # (n, k + m)
        if settings.token_weight > 0:
            crops = torch.cat([masked_crop(image, mask, encoder=encoder, side=side) for mask in masks])
            tokens = encoder.encode_images(crops).cpu()  # (n, d)
            cosines = torch.lerp(cosines, word_scores(tokens, text=text), settings.token_weight)
        shares = pooled(inside, evidence)  # (n, k)
        first = cosines[:, : len(evidence)].argmax(1)  # (n,)
        about = doubts(cosines, positions=first, temperature=settings.entropy_temperature)
        for proposal, row, share, doubt in zip(batch, cosines, shares, about, strict=True):
            position = leader(row, count=len(evidence), margin=settings.name_margin)
            if position is not None:
                named.append(Name(proposal, position, float(share[position]), doubt))
    return named


def leader(cosines: Tensor, *, count: int, margin: float) -> int | None:
    """The class that leads every other and every background word by the margin.

    Args:
        cosines: (count + m,) classes first, then background words.
        count: number of classes.
        margin: smallest lead.

    Returns:
        its position; None when nothing leads by enough or a background word does. A single class without any
        background word leads.
    """
    ranked = torch.topk(cosines, min(2, len(cosines)))
    best = int(ranked.indices[0])
    if best >= count or (len(cosines) > 1 and float(ranked.values[0] - ranked.values[1]) < margin):
        return None
    return best


def masked_crop(image: Tensor, mask: NDArray[np.bool_], *, encoder: ImageTextEncoder, side: int) -> Tensor:
    """Cut out what a mask covers, a little context around it, everything outside in the encoder's mean colour.

    Args:
        image: (1, 3, h, w).
        mask: (h, w), not empty.
        encoder: whose mean colour the outside takes, which is zero to it.
        side: of the result in pixels.

    Returns:
        (1, 3, side, side).
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    around = round(_CONTEXT * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    top, left = max(int(rows[0]) - around, 0), max(int(columns[0]) - around, 0)
    window = (slice(top, int(rows[-1]) + 1 + around), slice(left, int(columns[-1]) + 1 + around))
    inside = torch.from_numpy(np.ascontiguousarray(mask[window])).to(image.device)
    mean = image.new_tensor(encoder.record.mean).view(1, 3, 1, 1)
    return resize(torch.where(inside, image[(..., *window)], mean), size=(side, side))


def _batches(proposals: Sequence[Proposal], size: int) -> list[Sequence[Proposal]]:
    return [proposals[start : start + size] for start in range(0, len(proposals), size)]
