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

    Time and memory go by the number of runs in the masks: between two neighbouring ends of runs, of whichever mask, all
    pixels have the same claims, and are decided once. Beside that, 2 bytes a pixel are kept.

    Args:
        segments: claims, whose masks all have the given size.
        size: (height, width) of the image in pixels.
        names: the vocabulary's classes, in order.
        margin: smallest difference of score (0 to 1) at which a contested pixel is still given away.
        rule: "highest" or "sum", how the claims of several generators for one class count.
        colours: (n, 3) uint8, of the classes; none for those of the palette.
    """
    height, width = size
    # From the highest score down, the first claim on a pixel is its best; a later one can only contest it.
    ranked = sorted(segments, key=lambda claim: (-claim.score, claim.class_index))
    ends = [_ends(claim, size=size) for claim in ranked]
    is_start = np.zeros(height * width + 1, dtype=bool)
    is_start[0] = True
    for each in ends:
        is_start[each] = True
    starts = np.flatnonzero(is_start[:-1])  # of n stretches of pixels, counted down the columns
    claims = [_Claim.of(claim, ends=each, starts=starts) for claim, each in zip(ranked, ends, strict=True)]
    ignore = ignore_index(len(names))
    by = _by_sum if rule == "sum" and len({claim.generator for claim in segments}) > 1 else _by_highest
    found = by(claims, count=len(starts), ignore=ignore, margin=margin).astype(np.uint8 if ignore == 255 else np.uint16)
    pixels = np.repeat(found, np.diff(starts, append=height * width)).reshape(width, height).T
    return LabelMap(indices=pixels, names=names, colours=colours)


@dataclass(frozen=True, eq=False)
class _Claim:
    """A segment, and which of some stretches of pixels, those in `window`, are inside its mask (n',)."""

    segment: Segment
    window: slice
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, segment: Segment, *, ends: NDArray[np.int64], starts: NDArray[np.int64]) -> _Claim:
        """Of the ends of the segment's runs, which are among the starts of the stretches, or the last one's end."""
        places = np.searchsorted(starts, ends)
        first, last = int(places[0]), int(places[-1])
        runs = np.arange(1, len(places)) % 2 == 1
        return cls(segment, slice(first, last), np.repeat(runs, np.diff(places)))


def _ends(claim: Segment, *, size: tuple[int, int]) -> NDArray[np.int64]:
    if claim.runs.size != size:
        raise PatchwordError(
            f"a mask of class {claim.class_name!r} has shape {claim.runs.size}; it must have the image's, {size}"
        )
    return claim.runs.ends


def _by_highest(claims: Sequence[_Claim], *, count: int, ignore: int, margin: float) -> NDArray[np.int64]:
    """Class or ignore (count,) of each stretch, by the highest score alone; claims come from the highest down."""
    nobody = len(claims)
    classes = np.array([*(claim.segment.class_index for claim in claims), ignore])
    scores = np.array([claim.segment.score for claim in claims])
    owner: NDArray[np.int32] = np.full(count, nobody, dtype=np.int32)
    contested = np.zeros(count, dtype=bool)
    for number, claim in enumerate(claims):
        holder = owner[claim.window]
        rivals = np.zeros(nobody + 1, dtype=bool)  # for each holder, or nobody: does this claim contest it?
        rivals[:number] = (classes[:number] != classes[number]) & (scores[:number] - scores[number] < margin)
        if rivals.any():
            contested[claim.window] |= claim.inside & rivals[holder]
        np.copyto(holder, number, where=claim.inside & (holder == nobody))
    indices = classes[owner]
    indices[contested] = ignore
    return indices


def _by_sum(claims: Sequence[_Claim], *, count: int, ignore: int, margin: float) -> NDArray[np.int64]:
    """Class or ignore (count,) of each stretch, by the sum of the generators' highest scores for a class."""
    best, second = np.full(count, -np.inf), np.full(count, -np.inf)
    indices: NDArray[np.int64] = np.full(count, ignore)
    for class_index in sorted({claim.segment.class_index for claim in claims}):
        total = _summed([claim for claim in claims if claim.segment.class_index == class_index], count=count)
        wins = total > best  # of equal ones the first stays
        np.maximum(second, np.minimum(total, best), out=second)
        np.copyto(best, total, where=wins)
        indices[wins] = class_index
    rivalled = second > -np.inf
    indices[rivalled] = np.where(best[rivalled] - second[rivalled] < margin, ignore, indices[rivalled])
    return indices


def _summed(claims: Sequence[_Claim], *, count: int) -> NDArray[np.float64]:
    """Sum (count,) of each generator's highest score on every stretch; minus infinity where nobody claims it."""
    total = np.full(count, -np.inf)
    for generator in sorted({claim.segment.generator for claim in claims}):
        top = np.full(count, -np.inf)
        for claim in claims:
            if claim.segment.generator == generator:
                part = top[claim.window]
                np.maximum(part, claim.segment.score, out=part, where=claim.inside)
        claimed = top > -np.inf
        np.copyto(total, 0.0, where=claimed & (total == -np.inf))
        np.add(total, top, out=total, where=claimed)
    return total
