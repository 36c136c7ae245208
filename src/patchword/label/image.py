"""One photograph: which classes it shows, where they are, and a label for every pixel that one can be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.label.detect import Detection, crop_boxes, crop_side, cut_crops, shrink, vote
from patchword.label.fuse import fuse
from patchword.label.localise import evidence, mean_inside, narrow, stitch
from patchword.label.prompt import ask, build_prompts
from patchword.label.settings import LabelSettings
from patchword.maps import LabelMap, Segment
from patchword.models.protocols import ImageTextEncoder, MaskProposer, check_images
from patchword.text import BACKGROUND, TextVectors, encode_vocabulary
from patchword.vocabulary import Vocabulary

GENERATOR = "clip-prompts-sam"


@dataclass(frozen=True)
class LabelParts:
    """What labelling is done with.

    Attributes:
        image_text: names what is in a crop and finds where.
        mask_proposer: draws masks at points.
        vocabulary: what can be named.
        text: its unit text vectors, background words included.
    """

    image_text: ImageTextEncoder
    mask_proposer: MaskProposer
    vocabulary: Vocabulary
    text: TextVectors

    @classmethod
    def of(cls, image_text: ImageTextEncoder, *, mask_proposer: MaskProposer, vocabulary: Vocabulary) -> LabelParts:
        """Put the parts together and encode the vocabulary."""
        text = encode_vocabulary(image_text, vocabulary=vocabulary, background=True)
        return cls(image_text, mask_proposer, vocabulary, text)


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


@torch.no_grad()
def label_image(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> ImageLabels:
    """Label an image by prompting the mask proposer where the image-text encoder sees a class.

    Source: docs/method.md 1.1 and fusion. All pixels are ignored if no class wins enough crops or no mask is accepted.

    Args:
        image: (1, 3, h, w), RGB in [0, 1], any size from 1 x 1.

    Returns:
        label map (h, w), segments and the vote.

    Raises:
        PatchwordError: when the image has another shape or type, or the encoder returns numbers that are not finite.
    """
    check_images(image)
    if len(image) != 1:
        raise PatchwordError(f"image is a batch of {len(image)}; allowed is one image (1, 3, height, width)")
    crops = _take_crops(image, parts=parts, settings=settings)
    detected = _detect(crops, parts=parts, settings=settings)
    segments: list[Segment] = []
    if detected.kept:
        maps = _locate(crops, parts=parts, kept=detected.kept, settings=settings)
        segments = _claim(image, maps, parts=parts, kept=detected.kept, settings=settings)
    size = (image.shape[-2], image.shape[-1])
    label_map = fuse(segments, size=size, names=parts.vocabulary.names, margin=settings.margin)
    return ImageLabels(label_map, tuple(segments), detected)


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
    return vote(similarity, classes=parts.text.classes, count=parts.text.count, settings=settings)


def _locate(crops: _Crops, *, parts: LabelParts, kept: tuple[int, ...], settings: LabelSettings) -> Tensor:
    """Evidence (k, rows, columns) for each kept class; a cell is a patch of the finest crop."""
    text = narrow(parts.text, kept=kept)
    background = (text.classes == BACKGROUND).cpu()

    def similarity(pixels: Tensor) -> Tensor:
        patches = parts.image_text.encode_patches(pixels)  # (b, d, p, q)
        words = torch.einsum("bdpq,nd->bnpq", patches, text.words.to(patches))
        return torch.cat([text.class_scores(words, dim=1), words[:, background]], dim=1)  # (b, k + background, p, q)

    values = _finite(_in_batches(similarity, crops.pixels, settings.crop_batch), parts)
    finest = max(settings.grids)
    cells = (finest * values.shape[-2], finest * values.shape[-1])
    maps = stitch(values, boxes=crops.boxes, size=crops.size, cells=cells).cpu()
    return evidence(maps[: len(kept)], background=maps[len(kept) :])


def _claim(
    image: Tensor, maps: Tensor, *, parts: LabelParts, kept: tuple[int, ...], settings: LabelSettings
) -> list[Segment]:
    """Turn evidence (k, rows, columns) into masks with names and scores.

    A mask's similarity is the mean evidence for its class inside it [chosen], so that a mask that spills over what the
    class covers ranks below one that does not.
    """
    embedding = parts.mask_proposer.embed(image)
    prompts = build_prompts(maps, image_size=embedding.image_size, settings=settings)
    answers = ask(parts.mask_proposer, embedding=embedding, prompts=prompts, settings=settings)
    if not answers:
        return []
    coarse = torch.stack([answer.coarse_mask for answer in answers]).cpu()  # (n, h', w')
    similarities = mean_inside(coarse, maps[[answer.prompt.position for answer in answers]]).tolist()
    segments = []
    for answer, similarity in zip(answers, similarities, strict=True):
        class_index = kept[answer.prompt.position]
        segment = Segment.from_mask(
            answer.mask(),
            class_index=class_index,
            class_name=parts.vocabulary.names[class_index],
            score=similarity * answer.predicted_iou,
            predicted_iou=answer.predicted_iou,
            similarity=similarity,
            generator=GENERATOR,
            points=answer.prompt.points,
        )
        if segment.area:
            segments.append(segment)
    return segments


def _in_batches(encode: Callable[[Tensor], Tensor], pixels: Tensor, size: int) -> Tensor:
    return torch.cat([encode(batch) for batch in torch.split(pixels, size)])


def _finite(values: Tensor, parts: LabelParts) -> Tensor:
    if not torch.isfinite(values).all():
        name = parts.image_text.record.name
        raise PatchwordError(f"{name} returned values that are not finite; use it in float32")
    return values
