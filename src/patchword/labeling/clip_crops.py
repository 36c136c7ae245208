"""What the image-text encoder sees of photographs: which classes, and where (docs/method.md 1.1, steps 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.labeling.detect import Detection, crop_boxes, crop_side, cut_crops, shrink, vote
from patchword.labeling.localize import evidence, narrow, stitch, word_scores
from patchword.labeling.settings import LabelSettings
from patchword.models.batching import Batches
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import TextVectors


@dataclass(frozen=True)
class Located:
    """Where the kept classes of an image are.

    Attributes:
        kept: their indices in the vocabulary, rising, at least one.
        text: their words, renumbered, and background words.
        similarity: (k + m, rows, columns) cosines of the k kept classes and m background words.
        evidence: (k, rows, columns) for each kept class against the others, in [0, 1].
    """

    kept: tuple[int, ...]
    text: TextVectors
    similarity: Tensor
    evidence: Tensor


@dataclass(frozen=True)
class Seen:
    """What the encoder sees of an image: the vote, and where the kept classes are; none where no class is kept."""

    detected: Detection
    located: Located | None


@dataclass(frozen=True)
class Crops:
    """Overlapping crops (n, 3, s, s) of an image, and where (n, 4) they were cut on it at the given size."""

    pixels: Tensor
    boxes: Tensor
    size: tuple[int, int]


def look(
    images: Sequence[Tensor],
    *,
    encoder: ImageTextEncoder,
    text: TextVectors,
    batches: Batches,
    settings: LabelSettings,
) -> list[Seen]:
    """Vote on the classes of each image and locate those that are kept; crops of all images share batches.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1].
        text: all words of the vocabulary.
        settings: those of crops and detection.

    Returns:
        for each image what is seen.
    """
    crops = [take_crops(image, encoder=encoder, settings=settings) for image in images]
    tokens, patches = _encode(crops, encoder=encoder, batches=batches, settings=settings)
    seen = []
    for one, token, features in zip(crops, tokens, patches, strict=True):
        similarity = finite(token @ text.words.to(token).T, encoder)  # (n, words)
        detected = vote(similarity, text=text, settings=settings)
        where = _locate(one, features, text=text, kept=detected.kept, encoder=encoder, settings=settings)
        seen.append(Seen(detected, where))
    return seen


def take_crops(image: Tensor, *, encoder: ImageTextEncoder, settings: LabelSettings) -> Crops:
    """Cut the crops of one image (1, 3, h, w), on the encoder's device and at the encoder's size."""
    side = crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    reduced = shrink(image, limit=side * max(settings.grids)).to(encoder.device)
    size = (reduced.shape[-2], reduced.shape[-1])
    boxes = crop_boxes(size, settings=settings)
    return Crops(cut_crops(reduced, boxes, side=side), boxes, size)


def _encode(
    crops: Sequence[Crops], *, encoder: ImageTextEncoder, batches: Batches, settings: LabelSettings
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """For each image the class vectors (n, d) and the patches (n, d, p, q) of its crops."""
    pixels = torch.cat([one.pixels for one in crops])

    def some(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return encoder.encode_both(pixels[start:stop])

    parts = batches.run(some, count=len(pixels), size=settings.crop_batch, what="crops")
    counts = [len(one.pixels) for one in crops]
    tokens, patches = (torch.split(torch.cat(values), counts) for values in zip(*parts, strict=True))
    return tokens, patches


def _locate(
    crops: Crops,
    patches: Tensor,
    *,
    text: TextVectors,
    kept: tuple[int, ...],
    encoder: ImageTextEncoder,
    settings: LabelSettings,
) -> Located | None:
    """Where the kept classes are, a cell being a patch of the finest crop; none where no class is kept."""
    if not kept:
        return None
    words = narrow(text, kept=kept)
    values = finite(word_scores(patches, text=words), encoder)  # (n, k + m, p, q)
    finest = max(settings.grids)
    cells = (finest * values.shape[-2], finest * values.shape[-1])
    similarity = stitch(values, boxes=crops.boxes, size=crops.size, cells=cells).cpu()
    certain = evidence(similarity[: len(kept)], background=similarity[len(kept) :])
    return Located(kept, words, similarity, certain)


def finite(values: Tensor, encoder: ImageTextEncoder) -> Tensor:
    """The values, when all of them are numbers."""
    if not torch.isfinite(values).all():
        raise PatchwordError(f"{encoder.record.name} returned values that are not finite; use it in float32")
    return values
