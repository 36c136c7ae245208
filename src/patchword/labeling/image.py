"""Photographs: masks with classes by two generators, and their fusion to one label a pixel (docs/method.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.masks import LabelMap, Segment, ignore_index
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import Detection, localize_classes
from patchword.labeling.embeddings import MaskEmbeddings
from patchword.labeling.generators import (
    CLIP_PROMPTS_SAM,
    SAM_THEN_CLIP,
    build_prompts,
    classify_masks,
    decode_prompts,
    score_prompted,
)
from patchword.labeling.mask_generator import AutomaticMaskGenerator
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder, check_each
from patchword.models.text_embeddings import TextVectors, check_words, encode_vocabulary

FusionRule = Literal["highest", "sum"]


@dataclass(frozen=True)
class LabelParts:
    """What labelling is done with.

    Attributes:
        image_text: names what is in a crop and finds where.
        mask_generator: draws masks at points.
        vocabulary: what can be named.
        text: its unit text vectors, background words included.
        patch_encoder: whose features say where to ask for masks of everything, where the settings want that.
        batches: how much fits into memory, learnt on the way.
    """

    image_text: ImageTextEncoder
    mask_generator: MaskGenerator
    vocabulary: Vocabulary
    text: TextVectors
    patch_encoder: PatchEncoder | None = None
    batches: Batches = field(default_factory=Batches, compare=False)

    @classmethod
    def of(
        cls,
        image_text: ImageTextEncoder,
        *,
        mask_generator: MaskGenerator,
        vocabulary: Vocabulary,
        patch_encoder: PatchEncoder | None = None,
    ) -> LabelParts:
        """Put the parts together and encode the vocabulary."""
        text = encode_vocabulary(image_text, vocabulary=vocabulary, background=True)
        check_words(text, encoder=image_text, vocabulary=vocabulary)
        return cls(image_text, mask_generator, vocabulary, text, patch_encoder)


@dataclass(frozen=True)
class MaskCandidates:
    """Masks with classes and scores that the models give for one image, before fusion.

    Attributes:
        size: (height, width) of the image in pixels.
        segments: the masks, by generator, each with its class, score and points.
        detected: the vote on which classes are present.
        embeddings: of all masks of the second generator; none where the setting `mask_embeddings` is off.
    """

    size: tuple[int, int]
    segments: tuple[Segment, ...]
    detected: Detection
    embeddings: MaskEmbeddings | None = None


@dataclass(frozen=True)
class ImageLabels:
    """What labelling found in one image.

    Attributes:
        label_map: (h, w) a class or ignore a pixel, at the image's own size.
        segments: the claims that the map was fused from, by class, each with its score, points and generator.
        detected: the vote on which classes are present.
        embeddings: as of `MaskCandidates`.
    """

    label_map: LabelMap
    segments: tuple[Segment, ...]
    detected: Detection
    embeddings: MaskEmbeddings | None = None


def generate_masks(
    images: Sequence[Tensor], *, parts: LabelParts, settings: LabelSettings
) -> list[MaskCandidates | PatchwordError]:
    """Generate masks with classes: prompt the mask generator where CLIP sees a class, classify the masks that it finds
    by itself, or both.

    `settings.image_batch` images go through the models together, fewer where memory runs out. Source: docs/method.md
    1.1 and 1.2.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1], any size from 1 x 1.

    Returns:
        for each image its candidates, or why there are none: an image that fails does not fail the others.
    """

    found: list[MaskCandidates | PatchwordError] = []
    waiting = [images[start : start + settings.image_batch] for start in range(0, len(images), settings.image_batch)][
        ::-1
    ]
    while waiting:
        group = waiting.pop()
        try:
            found += _generate(group, parts=parts, settings=settings)
            continue
        except PatchwordError as error:
            reason = error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = group[0].shape[-2:]
            reason = PatchwordError(f"not enough memory to label {height} x {width} pixels")
        if len(group) == 1:
            found.append(reason)
        else:
            waiting += [[image] for image in reversed(group)]
    return found


@torch.no_grad()
def _generate(images: Sequence[Tensor], *, parts: LabelParts, settings: LabelSettings) -> list[MaskCandidates]:
    """Candidates of images that go through the models together."""
    check_each(images)
    found_classes = localize_classes(
        images, encoder=parts.image_text, text=parts.text, batches=parts.batches, settings=settings
    )
    shown = [(number, one.located) for number, one in enumerate(found_classes) if one.located is not None]
    segments: list[list[Segment]] = [[] for _ in images]
    nothing = MaskEmbeddings.together([], dim=parts.image_text.record.dim) if settings.mask_embeddings else None
    embeddings_of = dict.fromkeys(range(len(images)), nothing)
    if shown:
        chosen, located = [images[number] for number, _ in shown], [where for _, where in shown]
        embedded = parts.batches.run(
            lambda start, stop: parts.mask_generator.embed(chosen[start:stop]),
            count=len(chosen),
            size=settings.image_batch,
            what="images",
        )
        embeddings = [embedding for batch in embedded for embedding in batch]
        found = []
        if settings.generator != SAM_THEN_CLIP:
            pairs = list(zip(embeddings, located, strict=True))
            prompts = [
                build_prompts(where.relevance, image_size=one.image_size, settings=settings) for one, where in pairs
            ]
            answers = decode_prompts(
                parts.mask_generator, embeddings=embeddings, prompts=prompts, batches=parts.batches, settings=settings
            )
            found.append(
                [
                    score_prompted(own, where, size=one.image_size, parts=parts, settings=settings)
                    for own, (one, where) in zip(answers, pairs, strict=True)
                ]
            )
        if settings.generator != CLIP_PROMPTS_SAM:
            everything = AutomaticMaskGenerator(parts.mask_generator, settings, parts.patch_encoder, parts.batches)
            masks = everything.masks_on(everything.crops_of(chosen, embeddings))
            classified = classify_masks(chosen, masks, located=located, parts=parts, settings=settings)
            found.append([list(own.segments) for own in classified])
            embeddings_of |= {number: own.embeddings for (number, _), own in zip(shown, classified, strict=True)}
        for generated in found:
            for (number, _), candidates in zip(shown, generated, strict=True):
                segments[number] += candidates
    return [
        MaskCandidates((image.shape[-2], image.shape[-1]), tuple(segments[number]), one.detected, embeddings_of[number])
        for number, (image, one) in enumerate(zip(images, found_classes, strict=True))
    ]


def fuse_masks(
    candidates: MaskCandidates,
    *,
    names: tuple[str, ...],
    settings: LabelSettings,
    colours: NDArray[np.uint8] | None = None,
) -> ImageLabels:
    """Fuse mask candidates into one label a pixel; no model takes part (docs/method.md, fusion).

    All pixels are ignored if no class won enough crops or no mask was accepted.

    Args:
        names: the vocabulary's classes, in order.
        settings: `margin`.
        colours: (n, 3) uint8, the vocabulary's; none for those of the palette.
    """
    label_map = fuse(
        candidates.segments,
        size=candidates.size,
        names=names,
        margin=settings.margin,
        rule=settings.fusion,
        colours=colours,
    )
    return ImageLabels(label_map, candidates.segments, candidates.detected, candidates.embeddings)


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
    mask = claim.window()
    if mask.size != size:
        raise PatchwordError(
            f"a mask of class {claim.class_name!r} has shape {mask.size}; it must have the image's, {size}"
        )
    window = _window(claim)
    return mask.inside if (mask.rows, mask.columns) == window else mask.whole()[window]


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
