"""Photographs: which classes each shows, where they are, and a label for every pixel that one can be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.masks import LabelMap, Segment
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.classify_masks import classify_masks
from patchword.labeling.clip_crops import ClassLocalization, Detection, localize_classes
from patchword.labeling.decode_prompts import DecodedMask, build_prompts, decode_prompts, encode_masks
from patchword.labeling.fuse import fuse
from patchword.labeling.localize import cell_shares, pooled, uncertainties
from patchword.labeling.mask_generator import make_image_crops, propose_masks
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.protocols import ImageEmbedding, ImageTextEncoder, MaskGenerator, PatchEncoder, check_each
from patchword.models.text_embeddings import TextVectors, check_words, encode_vocabulary

CLIP_PROMPTS_SAM, SAM_THEN_CLIP = "clip-prompts-sam", "sam-then-clip"


@dataclass(frozen=True)
class LabelParts:
    """What labelling is done with.

    Attributes:
        image_text: names what is in a crop and finds where.
        mask_proposer: draws masks at points.
        vocabulary: what can be named.
        text: its unit text vectors, background words included.
        patch_encoder: whose features say where to ask for masks of everything, where the settings want that.
        batches: how much fits into memory, learnt on the way.
    """

    image_text: ImageTextEncoder
    mask_proposer: MaskGenerator
    vocabulary: Vocabulary
    text: TextVectors
    patch_encoder: PatchEncoder | None = None
    batches: Batches = field(default_factory=Batches, compare=False)

    @classmethod
    def of(
        cls,
        image_text: ImageTextEncoder,
        *,
        mask_proposer: MaskGenerator,
        vocabulary: Vocabulary,
        patch_encoder: PatchEncoder | None = None,
    ) -> LabelParts:
        """Put the parts together and encode the vocabulary."""
        text = encode_vocabulary(image_text, vocabulary=vocabulary, background=True)
        check_words(text, encoder=image_text, vocabulary=vocabulary)
        return cls(image_text, mask_proposer, vocabulary, text, patch_encoder)


@dataclass(frozen=True)
class MaskCandidates:
    """Masks with classes and scores that the models give for one image, before fusion.

    Attributes:
        size: (height, width) of the image in pixels.
        segments: the masks, by generator, each with its class, score and points.
        detected: the vote on which classes are present.
    """

    size: tuple[int, int]
    segments: tuple[Segment, ...]
    detected: Detection


@dataclass(frozen=True)
class ImageLabels:
    """What labelling found in one image.

    Attributes:
        label_map: (h, w) a class or ignore a pixel, at the image's own size.
        segments: the claims that the map was fused from, by class, each with its score, points and generator.
        detected: the vote on which classes are present.
    """

    label_map: LabelMap
    segments: tuple[Segment, ...]
    detected: Detection


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

    def some(start: int, stop: int) -> list[MaskCandidates | PatchwordError]:
        return _try_generate(images[start:stop], parts=parts, settings=settings)

    found = parts.batches.run(some, count=len(images), size=settings.image_batch, what="images")
    return [candidates for batch in found for candidates in batch]


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
    return ImageLabels(label_map, candidates.segments, candidates.detected)


def _try_generate(
    images: Sequence[Tensor], *, parts: LabelParts, settings: LabelSettings
) -> list[MaskCandidates | PatchwordError]:
    """Candidates of images that go through the models together; where one fails, each on its own."""
    try:
        return list(_generate(images, parts=parts, settings=settings))
    except PatchwordError as error:
        if len(images) == 1:
            return [error]
    except (MemoryError, RuntimeError) as error:
        if len(images) > 1 or not is_out_of_memory(error):
            raise
        height, width = images[0].shape[-2:]
        return [PatchwordError(f"not enough memory to label {height} x {width} pixels")]
    return [candidates for image in images for candidates in _try_generate([image], parts=parts, settings=settings)]


@torch.no_grad()
def _generate(images: Sequence[Tensor], *, parts: LabelParts, settings: LabelSettings) -> list[MaskCandidates]:
    check_each(images)
    found_classes = localize_classes(
        images, encoder=parts.image_text, text=parts.text, batches=parts.batches, settings=settings
    )
    shown = [(number, one.located) for number, one in enumerate(found_classes) if one.located is not None]
    segments: list[list[Segment]] = [[] for _ in images]
    if shown:
        chosen, located = [images[number] for number, _ in shown], [where for _, where in shown]
        embeddings = parts.mask_proposer.embed(chosen)
        found = []
        if settings.generator != SAM_THEN_CLIP:
            found.append(_prompt(embeddings, located, parts=parts, settings=settings))
        if settings.generator != CLIP_PROMPTS_SAM:
            found.append(_classify(chosen, embeddings, located, parts=parts, settings=settings))
        for generated in found:
            for (number, _), candidates in zip(shown, generated, strict=True):
                segments[number] += candidates
    return [
        MaskCandidates((image.shape[-2], image.shape[-1]), tuple(candidates), one.detected)
        for image, candidates, one in zip(images, segments, found_classes, strict=True)
    ]


def _prompt(
    embeddings: Sequence[ImageEmbedding],
    located: Sequence[ClassLocalization],
    *,
    parts: LabelParts,
    settings: LabelSettings,
) -> list[list[Segment]]:
    """Turn peaks of evidence into masks with names and scores (docs/method.md 1.1, step 4)."""
    prompts = [
        build_prompts(where.relevance, image_size=embedding.image_size, settings=settings)
        for embedding, where in zip(embeddings, located, strict=True)
    ]
    answers = decode_prompts(
        parts.mask_proposer, embeddings=embeddings, prompts=prompts, batches=parts.batches, settings=settings
    )
    return [
        _prompted(found, where, size=embedding.image_size, parts=parts, settings=settings) if found else []
        for found, where, embedding in zip(answers, located, embeddings, strict=True)
    ]


def _prompted(
    answers: Sequence[DecodedMask],
    where: ClassLocalization,
    *,
    size: tuple[int, int],
    parts: LabelParts,
    settings: LabelSettings,
) -> list[Segment]:
    """One image's masks at its peaks.

    A mask's similarity is the mean evidence for its class inside it [chosen], so that a mask that spills over what the
    class covers ranks below one that does not.
    """
    logits = torch.stack([answer.logits for answer in answers])  # (n, h', w')
    inside = cell_shares((logits > 0).cpu(), grid=(where.relevance.shape[-2], where.relevance.shape[-1]))
    positions = torch.tensor([answer.prompt.position for answer in answers])
    similarities = pooled(inside, where.relevance).gather(1, positions[:, None])[:, 0].tolist()
    cosines = pooled(inside, where.similarity)  # (n, k + m)
    about = uncertainties(cosines, positions=positions, temperature=settings.entropy_temperature)
    masks = encode_masks(logits, box=(0, 0, size[1], size[0]), image_size=size, batches=parts.batches)
    segments = [
        Segment.from_run_lengths(
            mask,
            class_index=where.kept[answer.prompt.position],
            class_name=parts.vocabulary.names[where.kept[answer.prompt.position]],
            score=similarity * answer.predicted_iou,
            predicted_iou=answer.predicted_iou,
            similarity=similarity,
            generator=CLIP_PROMPTS_SAM,
            points=answer.prompt.points,
            stability=answer.stability,
            margin=uncertainty.margin,
            entropy=uncertainty.entropy,
        )
        for mask, answer, similarity, uncertainty in zip(masks, answers, similarities, about, strict=True)
    ]
    return [segment for segment in segments if segment.area]


def _classify(
    images: Sequence[Tensor],
    embeddings: Sequence[ImageEmbedding],
    located: Sequence[ClassLocalization],
    *,
    parts: LabelParts,
    settings: LabelSettings,
) -> list[list[Segment]]:
    """Turn masks of everything into masks with names and scores (docs/method.md 1.2); scored as those of 1.1 are."""
    image_crops = make_image_crops(
        images,
        embeddings=embeddings,
        proposer=parts.mask_proposer,
        encoder=parts.patch_encoder,
        batches=parts.batches,
        settings=settings,
    )
    proposals = propose_masks(parts.mask_proposer, image_crops=image_crops, batches=parts.batches, settings=settings)
    named = classify_masks(
        images, proposals, located=located, encoder=parts.image_text, batches=parts.batches, settings=settings
    )
    return [
        [
            Segment.from_run_lengths(
                name.proposal.rle,
                class_index=where.kept[name.position],
                class_name=parts.vocabulary.names[where.kept[name.position]],
                score=name.share * name.proposal.predicted_iou,
                predicted_iou=name.proposal.predicted_iou,
                similarity=name.share,
                generator=SAM_THEN_CLIP,
                points=name.proposal.points,
                stability=name.proposal.stability,
                margin=name.uncertainty.margin,
                entropy=name.uncertainty.entropy,
            )
            for name in names
        ]
        for names, where in zip(named, located, strict=True)
    ]
