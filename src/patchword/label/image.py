"""One photograph: which classes it shows, where they are, and a label for every pixel that one can be given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.label.detect import Detection, crop_boxes, crop_side, cut_crops, shrink, vote
from patchword.label.doubt import doubts
from patchword.label.fuse import fuse
from patchword.label.localise import cell_shares, evidence, narrow, pooled, stitch, word_scores
from patchword.label.name import name_masks
from patchword.label.prompt import ask, build_prompts
from patchword.label.propose import propose_masks, seed_points
from patchword.label.settings import LabelSettings
from patchword.maps import LabelMap, Segment
from patchword.models.pixels import model_size, resize
from patchword.models.protocols import ImageEmbedding, ImageTextEncoder, MaskProposer, PatchEncoder, check_images
from patchword.text import TextVectors, encode_vocabulary
from patchword.vocabulary import Vocabulary

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
    """

    image_text: ImageTextEncoder
    mask_proposer: MaskProposer
    vocabulary: Vocabulary
    text: TextVectors
    patch_encoder: PatchEncoder | None = None

    @classmethod
    def of(
        cls,
        image_text: ImageTextEncoder,
        *,
        mask_proposer: MaskProposer,
        vocabulary: Vocabulary,
        patch_encoder: PatchEncoder | None = None,
    ) -> LabelParts:
        """Put the parts together and encode the vocabulary."""
        text = encode_vocabulary(image_text, vocabulary=vocabulary, background=True)
        return cls(image_text, mask_proposer, vocabulary, text, patch_encoder)


@dataclass(frozen=True)
class ImageClaims:
    """What the models say of one image, before anybody decides.

    Attributes:
        size: (height, width) of the image in pixels.
        segments: the claims, by generator, each with its class, score and points.
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


@dataclass(frozen=True)
class _Crops:
    """Overlapping crops (n, 3, s, s) of an image, and where (n, 4) they were cut on it at the given size."""

    pixels: Tensor
    boxes: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class _Located:
    """Where the kept classes are: their words, cosines (k + m, rows, columns) of classes and background words, and
    evidence (k, rows, columns)."""

    kept: tuple[int, ...]
    text: TextVectors
    similarity: Tensor
    evidence: Tensor


def label_image(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> ImageLabels:
    """Label an image: `claim_images` and `settle` for one.

    Args:
        image: (1, 3, h, w), RGB in [0, 1], any size from 1 x 1.

    Returns:
        label map (h, w), segments and the vote.

    Raises:
        PatchwordError: when the image has another shape or type, memory does not suffice, or the encoder returns
            numbers that are not finite.
    """
    (claims,) = claim_images([image], parts=parts, settings=settings)
    if isinstance(claims, PatchwordError):
        raise claims
    vocabulary = parts.vocabulary
    return settle(claims, names=vocabulary.names, settings=settings, colours=vocabulary.colours)


def claim_images(
    images: Sequence[Tensor], *, parts: LabelParts, settings: LabelSettings
) -> list[ImageClaims | PatchwordError]:
    """Ask the models what is where: prompt the mask proposer where a class is seen, name the masks that it finds by
    itself, or both.

    Source: docs/method.md 1.1 and 1.2.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1], any size from 1 x 1.

    Returns:
        for each image its claims, or why there are none: an image that fails does not fail the others.
    """
    return [_try_claim(image, parts=parts, settings=settings) for image in images]


def settle(
    claims: ImageClaims,
    *,
    names: tuple[str, ...],
    settings: LabelSettings,
    colours: NDArray[np.uint8] | None = None,
) -> ImageLabels:
    """Turn claims into one label a pixel; no model takes part (docs/method.md, fusion).

    All pixels are ignored if no class won enough crops or no mask was accepted.

    Args:
        names: the vocabulary's classes, in order.
        settings: `margin`.
        colours: (n, 3) uint8, the vocabulary's; none for those of the palette.
    """
    label_map = fuse(
        claims.segments,
        size=claims.size,
        names=names,
        margin=settings.margin,
        colours=colours,
    )
    return ImageLabels(label_map, claims.segments, claims.detected)


def _try_claim(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> ImageClaims | PatchwordError:
    try:
        return _claim(image, parts=parts, settings=settings)
    except PatchwordError as error:
        return error
    except (MemoryError, torch.OutOfMemoryError):
        return PatchwordError(f"not enough memory to label {image.shape[-2]} x {image.shape[-1]} pixels")


@torch.no_grad()
def _claim(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> ImageClaims:
    check_images(image)
    if len(image) != 1:
        raise PatchwordError(f"image is a batch of {len(image)}; allowed is one image (1, 3, height, width)")
    crops = _take_crops(image, parts=parts, settings=settings)
    detected = _detect(crops, parts=parts, settings=settings)
    segments: list[Segment] = []
    if detected.kept:
        located = _locate(crops, parts=parts, kept=detected.kept, settings=settings)
        embedding = parts.mask_proposer.embed(image)
        if settings.generator != SAM_THEN_CLIP:
            segments += _prompt(embedding, located, parts=parts, settings=settings)
        if settings.generator != CLIP_PROMPTS_SAM:
            segments += _name(image, embedding, located, parts=parts, settings=settings)
    return ImageClaims((image.shape[-2], image.shape[-1]), tuple(segments), detected)


def _take_crops(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> _Crops:
    record = parts.image_text.record
    side = crop_side(settings, input_size=record.input_size, patch_size=record.patch_size)
    reduced = shrink(image, limit=side * max(settings.grids)).to(parts.image_text.device)
    size = (reduced.shape[-2], reduced.shape[-1])
    boxes = crop_boxes(size, settings=settings)
    return _Crops(cut_crops(reduced, boxes, side=side), boxes, size)


def _detect(crops: _Crops, *, parts: LabelParts, settings: LabelSettings) -> Detection:
    words = parts.text.words
    tokens = _in_batches(parts.image_text.encode_images, crops.pixels, settings.crop_batch)  # (n, d)
    similarity = _finite(tokens @ words.to(tokens).T, parts)  # (n, words)
    return vote(similarity, text=parts.text, settings=settings)


def _locate(crops: _Crops, *, parts: LabelParts, kept: tuple[int, ...], settings: LabelSettings) -> _Located:
    """Cosines and evidence for each kept class; a cell is a patch of the finest crop."""
    text = narrow(parts.text, kept=kept)

    def similarity(pixels: Tensor) -> Tensor:
        patches = parts.image_text.encode_patches(pixels)  # (b, d, p, q)
        return word_scores(patches, text=text)  # (b, k + background, p, q)

    values = _finite(_in_batches(similarity, crops.pixels, settings.crop_batch), parts)
    finest = max(settings.grids)
    cells = (finest * values.shape[-2], finest * values.shape[-1])
    maps = stitch(values, boxes=crops.boxes, size=crops.size, cells=cells).cpu()
    return _Located(kept, text, maps, evidence(maps[: len(kept)], background=maps[len(kept) :]))


def _prompt(
    embedding: ImageEmbedding, located: _Located, *, parts: LabelParts, settings: LabelSettings
) -> list[Segment]:
    """Turn peaks of evidence into masks with names and scores (docs/method.md 1.1, step 4).

    A mask's similarity is the mean evidence for its class inside it [chosen], so that a mask that spills over what the
    class covers ranks below one that does not.
    """
    maps = located.evidence
    prompts = build_prompts(maps, image_size=embedding.image_size, settings=settings)
    answers = ask(parts.mask_proposer, embedding=embedding, prompts=prompts, settings=settings)
    if not answers:
        return []
    coarse = torch.stack([answer.coarse_mask for answer in answers]).cpu()  # (n, h', w')
    inside = cell_shares(coarse, grid=(maps.shape[-2], maps.shape[-1]))
    positions = torch.tensor([answer.prompt.position for answer in answers])
    similarities = pooled(inside, maps).gather(1, positions[:, None])[:, 0].tolist()
    cosines = pooled(inside, located.similarity)  # (n, k + m)
    about = doubts(cosines, positions=positions, temperature=settings.entropy_temperature)
    segments = [
        Segment.from_mask(
            answer.mask(),
            class_index=located.kept[answer.prompt.position],
            class_name=parts.vocabulary.names[located.kept[answer.prompt.position]],
            score=similarity * answer.predicted_iou,
            predicted_iou=answer.predicted_iou,
            similarity=similarity,
            generator=CLIP_PROMPTS_SAM,
            points=answer.prompt.points,
            stability=answer.stability,
            margin=doubt.margin,
            entropy=doubt.entropy,
        )
        for answer, similarity, doubt in zip(answers, similarities, about, strict=True)
    ]
    return [segment for segment in segments if segment.area]


def _name(
    image: Tensor, embedding: ImageEmbedding, located: _Located, *, parts: LabelParts, settings: LabelSettings
) -> list[Segment]:
    """Turn masks of everything into masks with names and scores (docs/method.md 1.2); scored as those of 1.1 are."""
    features = _seed_features(image, embedding, parts=parts, settings=settings)
    points = seed_points(features, size=embedding.image_size, settings=settings)
    proposals = propose_masks(parts.mask_proposer, embedding=embedding, points=points, settings=settings)
    record = parts.image_text.record
    named = name_masks(
        image,
        proposals,
        similarity=located.similarity,
        evidence=located.evidence,
        text=located.text,
        encoder=parts.image_text,
        side=crop_side(settings, input_size=record.input_size, patch_size=record.patch_size),
        settings=settings,
    )
    return [
        Segment.from_mask(
            name.proposal.mask(),
            class_index=located.kept[name.position],
            class_name=parts.vocabulary.names[located.kept[name.position]],
            score=name.share * name.proposal.predicted_iou,
            predicted_iou=name.proposal.predicted_iou,
            similarity=name.share,
            generator=SAM_THEN_CLIP,
            points=(name.proposal.point,),
            stability=name.proposal.stability,
            margin=name.doubt.margin,
            entropy=name.doubt.entropy,
        )
        for name in named
    ]


def _seed_features(
    image: Tensor, embedding: ImageEmbedding, *, parts: LabelParts, settings: LabelSettings
) -> Tensor | None:
    """Patch features (D, rows, columns) of the whole image; none for a grid.

    Raises:
        PatchwordError: when the settings want a vision encoder's and there is none.
    """
    if settings.seeds == "grid":
        return None
    if settings.seeds == "embedding":
        cells, side = embedding.features[0].shape[-1], parts.mask_proposer.record.input_size
        rows, columns = (math.ceil(length * cells / side) for length in embedding.input_size)  # the rest is padding
        return embedding.features[0][0, :, :rows, :columns]
    encoder = parts.patch_encoder
    if encoder is None:
        raise PatchwordError("setting 'seeds' is 'encoder', but there is no vision encoder; name one")
    size = (image.shape[-2], image.shape[-1])
    seen = model_size(size, image_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    return encoder(resize(image, size=seen).to(encoder.device))[0]


def _in_batches(encode: Callable[[Tensor], Tensor], pixels: Tensor, size: int) -> Tensor:
    return torch.cat([encode(batch) for batch in torch.split(pixels, size)])


def _finite(values: Tensor, parts: LabelParts) -> Tensor:
    if not torch.isfinite(values).all():
        name = parts.image_text.record.name
        raise PatchwordError(f"{name} returned values that are not finite; use it in float32")
    return values
