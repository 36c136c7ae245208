"""Names for nameless masks: what their patches and the masked crop say (docs/method.md 1.2, step 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.labeling.clip_crops import ClassLocalization, crop_side
from patchword.labeling.localize import Uncertainty, cell_shares, pooled, uncertainties, word_scores
from patchword.labeling.mask_generator import Proposal
from patchword.models.batching import Batches, within
from patchword.models.pixels import resize
from patchword.models.protocols import ImageTextEncoder

_CONTEXT = 0.1  # of the longer side of a mask's box, around it in its crop


@dataclass(frozen=True)
class MaskClass:
    """Which of the kept classes a mask shows.

    Attributes:
        proposal: the mask.
        position: which of the kept classes.
        share: mean evidence for the class inside the mask, in [0, 1].
        uncertainty: what speaks against the name.
    """

    proposal: Proposal
    position: int
    share: float
    uncertainty: Uncertainty


def classify_masks(
    images: Sequence[Tensor],
    proposals: Sequence[Sequence[Proposal]],
    *,
    located: Sequence[ClassLocalization],
    encoder: ImageTextEncoder,
    batches: Batches,
    settings: LabelSettings,
) -> list[list[MaskClass]]:
    """Give every mask the name that leads all others, background words included, by enough; leave out the rest.

    A word's cosine with a mask is the mean of two: that of the patches inside and that of the masked crop's class
    token, weighed by `token_weight`. Masked crops of all images share batches. Source: docs/method.md 1.2 step 2
    [chosen].

    Args:
        images: each (1, 3, h, w), RGB in [0, 1], of the size that its masks have.
        proposals: the masks of each image.
        located: where the kept classes of each image are.
        encoder: sees the masked crops.
        settings: `name_margin`, `token_weight`, `crop_batch`, `entropy_temperature`.

    Returns:
        for each image the masks that have a name, in the given order.
    """
    counts = [len(found) for found in proposals]

    def some(start: int, stop: int) -> list[tuple[int, list[MaskClass]]]:
        owners = within(counts, start=start, stop=stop)
        chosen = [proposals[image][first:last] for image, first, last in owners]
        masks = [[proposal.mask() for proposal in own] for own in chosen]
        tokens: Sequence[Tensor | None] = [None] * len(owners)
        if settings.token_weight > 0:
            seen = [(images[image], own) for (image, _, _), own in zip(owners, masks, strict=True)]
            tokens = _tokens(seen, encoder=encoder, settings=settings)
        return [
            (image, _names(own, inside, located=located[image], tokens=token, settings=settings))
            for (image, _, _), own, inside, token in zip(owners, chosen, masks, tokens, strict=True)
        ]

    named: list[list[MaskClass]] = [[] for _ in images]
    for batch in batches.run(some, count=sum(counts), size=settings.crop_batch, what="masked crops"):
        for image, names in batch:
            named[image] += names
    return named


def _tokens(
    seen: Sequence[tuple[Tensor, Sequence[NDArray[np.bool_]]]], *, encoder: ImageTextEncoder, settings: LabelSettings
) -> Sequence[Tensor]:
    """Class tokens (n, d) of the masked crops of each image."""
    side = crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    crops = [masked_crop(image, mask, encoder=encoder, side=side) for image, masks in seen for mask in masks]
    return torch.split(encoder.encode_images(torch.cat(crops)).cpu(), [len(masks) for _, masks in seen])


def _names(
    proposals: Sequence[Proposal],
    masks: Sequence[NDArray[np.bool_]],
    *,
    located: ClassLocalization,
    tokens: Tensor | None,
    settings: LabelSettings,
) -> list[MaskClass]:
    """The names of some masks of one image."""
    grid = (located.similarity.shape[-2], located.similarity.shape[-1])
    inside = torch.cat([cell_shares(torch.from_numpy(mask)[None], grid=grid) for mask in masks])
    cosines = pooled(inside, located.similarity)  # (n, k + m)
    if tokens is not None:
        cosines = torch.lerp(cosines, word_scores(tokens, text=located.text), settings.token_weight)
    shares = pooled(inside, located.relevance)  # (n, k)
    count = len(located.kept)
    about = uncertainties(cosines, positions=cosines[:, :count].argmax(1), temperature=settings.entropy_temperature)
    named = []
    for proposal, row, share, uncertainty in zip(proposals, cosines, shares, about, strict=True):
        position = leader(row, count=count, margin=settings.name_margin)
        if position is not None:
            named.append(MaskClass(proposal, position, float(share[position]), uncertainty))
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
