"""What the image-text encoder sees of photographs: which classes, and where (docs/method.md 1.1, steps 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.label.detect import Detection, crop_boxes, crop_side, cut_crops, shrink, vote
from patchword.label.localise import evidence, narrow, stitch, word_scores
from patchword.label.settings import LabelSettings
from patchword.models.batching import Batches, within
from patchword.models.protocols import ImageTextEncoder
from patchword.text import TextVectors


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
class _Crops:
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

    Raises:
        PatchwordError: when the encoder returns numbers that are not finite.
    """
    crops = [_take_crops(image, encoder=encoder, settings=settings) for image in images]
    votes = _detect(crops, encoder=encoder, text=text, batches=batches, settings=settings)
    found: list[Located | None] = [None] * len(crops)
    shown = [number for number, detected in enumerate(votes) if detected.kept]
    if shown:
        narrowed = [narrow(text, kept=votes[number].kept) for number in shown]
        chosen = [crops[number] for number in shown]
        maps = _similarities(chosen, texts=narrowed, encoder=encoder, batches=batches, settings=settings)
        for number, words, similarity in zip(shown, narrowed, maps, strict=True):
            kept = votes[number].kept
            certain = evidence(similarity[: len(kept)], background=similarity[len(kept) :])
            found[number] = Located(kept, words, similarity, certain)
    return [Seen(detected, located) for detected, located in zip(votes, found, strict=True)]


def _take_crops(image: Tensor, *, encoder: ImageTextEncoder, settings: LabelSettings) -> _Crops:
    side = crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    reduced = shrink(image, limit=side * max(settings.grids)).to(encoder.device)
    size = (reduced.shape[-2], reduced.shape[-1])
    boxes = crop_boxes(size, settings=settings)
    return _Crops(cut_crops(reduced, boxes, side=side), boxes, size)


def _detect(
    crops: Sequence[_Crops],
    *,
    encoder: ImageTextEncoder,
    text: TextVectors,
    batches: Batches,
    settings: LabelSettings,
) -> list[Detection]:
    pixels = torch.cat([one.pixels for one in crops])  # (n, 3, s, s)

    def encode(start: int, stop: int) -> Tensor:
        return encoder.encode_images(pixels[start:stop])

    tokens = torch.cat(batches.run(encode, count=len(pixels), size=settings.crop_batch, what="crops"))  # (n, d)
    similarity = _finite(tokens @ text.words.to(tokens).T, encoder)  # (n, words)
    parts = torch.split(similarity, [len(one.pixels) for one in crops])
    return [vote(part, text=text, settings=settings) for part in parts]


def _similarities(
    crops: Sequence[_Crops],
    *,
    texts: Sequence[TextVectors],
    encoder: ImageTextEncoder,
    batches: Batches,
    settings: LabelSettings,
) -> list[Tensor]:
    """Cosines (k + m, rows, columns) of each image with its own words; a cell is a patch of the finest crop."""
    counts = [len(one.pixels) for one in crops]
    pixels = torch.cat([one.pixels for one in crops])

    def encode(start: int, stop: int) -> list[tuple[int, Tensor]]:
        patches = encoder.encode_patches(pixels[start:stop])  # (b, d, p, q)
        owners = within(counts, start=start, stop=stop)
        parts = torch.split(patches, [last - first for _, first, last in owners])
        # Many channels become few words at once, image by image, so that features do not pile up.
        return [
            (owner, word_scores(part, text=texts[owner])) for (owner, _, _), part in zip(owners, parts, strict=True)
        ]

    found: list[list[Tensor]] = [[] for _ in crops]
    for batch in batches.run(encode, count=len(pixels), size=settings.crop_batch, what="crops"):
        for owner, values in batch:
            found[owner].append(values)
    finest = max(settings.grids)
    maps = []
    for one, parts in zip(crops, found, strict=True):
        values = _finite(torch.cat(parts), encoder)  # (n, k + m, p, q)
        cells = (finest * values.shape[-2], finest * values.shape[-1])
        maps.append(stitch(values, boxes=one.boxes, size=one.size, cells=cells).cpu())
    return maps


def _finite(values: Tensor, encoder: ImageTextEncoder) -> Tensor:
    if not torch.isfinite(values).all():
        raise PatchwordError(f"{encoder.record.name} returned values that are not finite; use it in float32")
    return values
