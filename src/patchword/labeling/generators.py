"""Two generators of masks with classes: CLIP prompts SAM, and CLIP names SAM's masks (docs/method.md 1.1 and 1.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.masks import Segment
from patchword.labeling.clip_crops import (
    ClassLocalization,
    Uncertainty,
    cell_shares,
    crop_side,
    pooled,
    run_shares,
    uncertainties,
    word_scores,
)
from patchword.labeling.embeddings import CELLS, MaskEmbeddings, masked_crop, plain_crop
from patchword.labeling.mask_generator import GeneratedMask
from patchword.models.batching import Batches, within
from patchword.models.mask_pixels import ENCODED_AT_ONCE, encode_masks
from patchword.models.pixels import unit
from patchword.models.protocols import ImageEmbedding, MaskGenerator
from patchword.models.sam import stability_score

if TYPE_CHECKING:
    from patchword.labeling.image import LabelParts

CLIP_PROMPTS_SAM, SAM_THEN_CLIP = "clip-prompts-sam", "sam-then-clip"

Point = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """Points of one class that are asked about together.

    Attributes:
        position: which of the kept classes the points belong to.
        points: x, y in pixels of the image, at the pixels' indices.
    """

    position: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class DecodedMask:
    """The model's best mask for a prompt.

    Attributes:
        prompt: what was asked.
        logits: (h', w') at the decoder's resolution, above 0 = inside.
        predicted_iou: the model's own estimate of the mask's IoU, brought within [0, 1].
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1].
    """

    prompt: Prompt
    logits: Tensor
    predicted_iou: float
    stability: float


def find_peaks(maps: Tensor, *, count: int, distance: float) -> list[Tensor]:
    """Pick the cells of highest value, each ruling out the cells near it (greedy non-maximum suppression).

    Args:
        maps: (k, rows, columns) one map a class.
        count: most peaks of a class.
        distance: a peak rules out every cell up to this many cells from it along both axes.

    Returns:
        for each class (n, 2) int64 rows and columns, highest first, 1 <= n <= count; of equal cells the first in
        reading order.
    """
    classes, rows, columns = maps.shape
    remaining = maps.detach().cpu().float().clone()
    row_index, column_index = torch.arange(rows)[None, :, None], torch.arange(columns)[None, None, :]
    peaks: list[list[tuple[int, int]]] = [[] for _ in range(classes)]
    for _ in range(count):
        highest, flat = remaining.flatten(1).max(dim=1)  # (k,), (k,)
        row, column = flat // columns, flat % columns
        for position in torch.nonzero(highest > -torch.inf)[:, 0].tolist():
            peaks[position].append((int(row[position]), int(column[position])))
        near = ((row_index - row[:, None, None]).abs() <= distance) & (
            (column_index - column[:, None, None]).abs() <= distance
        )
        remaining[near] = -torch.inf
    return [torch.tensor(found, dtype=torch.int64).reshape(-1, 2) for found in peaks]


def cell_points(cells: Tensor, *, cells_size: tuple[int, int], image_size: tuple[int, int]) -> tuple[Point, ...]:
    """The pixels (x, y) of the image under the centres of map cells (n, 2) given as row, column."""
    scale = torch.tensor([image_size[0] / cells_size[0], image_size[1] / cells_size[1]], dtype=torch.float64)
    pixels = ((cells + 0.5) * scale).floor()  # (n, 2) row, column
    return tuple((column, row) for row, column in pixels.tolist())


def build_prompts(maps: Tensor, *, image_size: tuple[int, int], settings: LabelSettings) -> list[Prompt]:
    """One prompt for each peak of each class and, where a class has several peaks, one with all of them.

    Source: docs/method.md 1.1 step 4 (points of highest similarity [paper]; numbers [chosen]).

    Args:
        maps: (k, rows, columns) evidence of each kept class.
        image_size: (height, width) in pixels of the image that the points are on.
    """
    prompts = []
    found = find_peaks(maps, count=settings.peaks, distance=settings.peak_distance)
    for position, cells in enumerate(found):
        points = cell_points(cells, cells_size=(maps.shape[1], maps.shape[2]), image_size=image_size)
        prompts += [Prompt(position, (point,)) for point in points]
        if len(points) > 1:
            prompts.append(Prompt(position, points))
    return prompts


def decode_prompts(
    model: MaskGenerator,
    *,
    embeddings: Sequence[ImageEmbedding],
    prompts: Sequence[Sequence[Prompt]],
    batches: Batches,
    settings: LabelSettings,
) -> list[list[DecodedMask]]:
    """Decode the prompts of several images and keep each one's mask of highest predicted IoU.

    Prompts with the same number of points go together, whichever class and image they are of. Masks below
    `settings.pred_iou_thresh` are dropped. Source: docs/method.md 1.1 step 4 [chosen].

    Args:
        embeddings: one an image.
        prompts: of each image.
        settings: `pred_iou_thresh`, `stability_score_offset`, `points_per_batch`.

    Returns:
        for each image its answers in the order of its prompts.
    """
    answers: list[dict[int, DecodedMask]] = [{} for _ in prompts]
    for count in sorted({len(prompt.points) for asked in prompts for prompt in asked}):
        numbers = [[n for n, prompt in enumerate(asked) if len(prompt.points) == count] for asked in prompts]
        points = [
            torch.tensor([asked[n].points for n in chosen], dtype=torch.float32).reshape(-1, count, 2)
            for asked, chosen in zip(prompts, numbers, strict=True)
        ]

        total = sum(len(places) for places in points)
        some = partial(_best, model, embeddings, points, settings)
        for batch in batches.run(some, count=total, size=settings.points_per_batch, what="masks"):
            for image, row, found in batch:
                number = numbers[image][row]
                answers[image][number] = DecodedMask(prompts[image][number], *found)
    return [[found[number] for number in sorted(found)] for found in answers]


def _best(
    model: MaskGenerator,
    embeddings: Sequence[ImageEmbedding],
    points: Sequence[Tensor],
    settings: LabelSettings,
    start: int,
    stop: int,
) -> list[tuple[int, int, tuple[Tensor, float, float]]]:
    """Of some prompts of all images laid end to end the best mask, where it is sure enough.

    Returns:
        the image, the prompt's place among those of the image, and logits, predicted IoU and stability.
    """
    found = []
    chosen = within([len(places) for places in points], start=start, stop=stop)
    decoded = model.masks_at(
        [embeddings[image] for image, _, _ in chosen], [points[image][first:last] for image, first, last in chosen]
    )
    for (image, first, _), proposals in zip(chosen, decoded, strict=True):
        logits, predicted_iou = proposals.best()  # (n, h', w'), (n,)
        stability = stability_score(logits, offset=settings.stability_score_offset).tolist()
        for row, sure in enumerate(predicted_iou.tolist()):
            if sure >= settings.pred_iou_thresh:
                # A copy, so that the masks that were not chosen are not kept alive.
                found.append((image, first + row, (logits[row].clone(), min(1.0, sure), stability[row])))
    return found


def score_prompted(
    answers: Sequence[DecodedMask],
    where: ClassLocalization,
    *,
    size: tuple[int, int],
    parts: LabelParts,
    settings: LabelSettings,
) -> list[Segment]:
    """One image's masks at its peaks, with classes and scores.

    A mask's lead is that of the mean over what is inside it [chosen], so that a mask that spills over what the class
    covers ranks below one that does not.
    """
    if not answers:
        return []
    logits = torch.stack([answer.logits for answer in answers])  # (n, h', w')
    inside = cell_shares((logits > 0).cpu(), grid=(where.relevance.shape[-2], where.relevance.shape[-1]))
    positions = torch.tensor([answer.prompt.position for answer in answers])
    similarities = pooled(inside, where.relevance).gather(1, positions[:, None])[:, 0].tolist()
    cosines = pooled(inside, where.similarity)  # (n, k + m)
    about = uncertainties(cosines, positions=positions, temperature=settings.entropy_temperature)
    encode = partial(encode_masks, logits, box=(0, 0, size[1], size[0]), image_size=size)
    encoded = parts.batches.run(encode, count=len(logits), size=ENCODED_AT_ONCE, what="full-size masks")
    masks = [runs for batch in encoded for runs in batch]
    segments = [
        _segment(
            GeneratedMask(runs, answer.predicted_iou, answer.stability, answer.prompt.points),
            class_index=where.kept[answer.prompt.position],
            similarity=similarity,
            uncertainty=uncertainty,
            generator=CLIP_PROMPTS_SAM,
            parts=parts,
            settings=settings,
        )
        for runs, answer, similarity, uncertainty in zip(masks, answers, similarities, about, strict=True)
    ]
    return [segment for segment in segments if segment.area]


@dataclass(frozen=True)
class ClassifiedMasks:
    """What became of the masks of one image.

    Attributes:
        segments: those that have a class, in the given order.
        embeddings: of all masks, named or not; none where the setting `mask_embeddings` is off.
    """

    segments: tuple[Segment, ...]
    embeddings: MaskEmbeddings | None


def classify_masks(
    images: Sequence[Tensor],
    masks: Sequence[Sequence[GeneratedMask]],
    *,
    located: Sequence[ClassLocalization],
    parts: LabelParts,
    settings: LabelSettings,
) -> list[ClassifiedMasks]:
    """Give every mask the class that leads all others, background words included, by enough; leave out the rest.

    A word's cosine with a mask is the mean of two: that of the patches inside and that of the crop's class token,
    weighed by `token_weight`. Crops of all images share batches; scores are as those of `score_prompted`.
    Source: docs/method.md 1.2 step 2 [chosen].

    Args:
        images: each (1, 3, h, w), RGB in [0, 1], of the size that its masks have.
        masks: of each image.
        located: where the kept classes of each image are.
        settings: `name_margin`, `token_weight`, `crop_weight`, `crop_batch`, `entropy_temperature`, `mask_embeddings`.
    """
    segments: list[list[Segment]] = [[] for _ in images]
    embedded: list[list[MaskEmbeddings]] = [[] for _ in images]
    work = partial(_classify_some, images, masks, located, parts, settings)
    for batch in parts.batches.run(work, count=sum(map(len, masks)), size=settings.crop_batch, what="masked crops"):
        for image, named, embeddings in batch:
            segments[image] += named
            if embeddings is not None:
                embedded[image].append(embeddings)
    dim = parts.image_text.record.dim
    return [
        ClassifiedMasks(tuple(named), MaskEmbeddings.together(own, dim=dim) if settings.mask_embeddings else None)
        for named, own in zip(segments, embedded, strict=True)
    ]


def _classify_some(
    images: Sequence[Tensor],
    masks: Sequence[Sequence[GeneratedMask]],
    located: Sequence[ClassLocalization],
    parts: LabelParts,
    settings: LabelSettings,
    start: int,
    stop: int,
) -> list[tuple[int, list[Segment], MaskEmbeddings | None]]:
    """Classes of masks `start` to `stop` - 1 of those of all images laid end to end, by image."""
    owners = within([len(found) for found in masks], start=start, stop=stop)
    chosen = [masks[image][first:last] for image, first, last in owners]
    tokens: Sequence[Tensor | None] = [None] * len(owners)
    if settings.token_weight > 0 or settings.mask_embeddings:
        encoder = parts.image_text
        side = crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
        shown = [(images[image], mask.runs) for (image, _, _), own in zip(owners, chosen, strict=True) for mask in own]
        mean = images[0].new_tensor(encoder.record.mean).view(1, 3, 1, 1)  # zero to the encoder
        seen = encoder.encode_images(torch.cat([masked_crop(*each, outside=mean, side=side) for each in shown]))
        if settings.crop_weight > 0:
            plain = encoder.encode_images(torch.cat([plain_crop(*each, side=side) for each in shown]))
            seen = unit(torch.lerp(seen, plain, settings.crop_weight))
        tokens = torch.split(seen.cpu(), [len(own) for own in chosen])
    classified = []
    for (image, _, _), own, token in zip(owners, chosen, tokens, strict=True):
        where = located[image]
        grid = (where.similarity.shape[-2], where.similarity.shape[-1])
        inside = _shares(own, grid=grid)
        cosines = pooled(inside, where.similarity)  # (n, k + m)
        embeddings = None
        if token is not None and settings.mask_embeddings:
            embeddings = MaskEmbeddings.of(token, shares=_shares(own, grid=(CELLS, CELLS)))
        if token is not None and settings.token_weight > 0:
            cosines = torch.lerp(cosines, word_scores(token, text=where.text), settings.token_weight)
        similarities = pooled(inside, where.relevance)  # (n, k)
        count = len(where.kept)
        about = uncertainties(cosines, positions=cosines[:, :count].argmax(1), temperature=settings.entropy_temperature)
        segments = []
        for mask, row, similarity, uncertainty in zip(own, cosines, similarities, about, strict=True):
            position = leader(row, count=count, margin=settings.name_margin)
            if position is not None:
                segments.append(
                    _segment(
                        mask,
                        class_index=where.kept[position],
                        similarity=float(similarity[position]),
                        uncertainty=uncertainty,
                        generator=SAM_THEN_CLIP,
                        parts=parts,
                        settings=settings,
                    )
                )
        classified.append((image, segments, embeddings))
    return classified


def _shares(masks: Sequence[GeneratedMask], *, grid: tuple[int, int]) -> Tensor:
    """The share of each cell of a grid that lies inside each mask, (n, rows, columns)."""
    return torch.stack([run_shares(mask.runs, grid=grid) for mask in masks])


def _segment(
    mask: GeneratedMask,
    *,
    class_index: int,
    similarity: float,
    uncertainty: Uncertainty,
    generator: str,
    parts: LabelParts,
    settings: LabelSettings,
) -> Segment:
    sure = similarity
    if settings.score_temperature is not None:
        lead = math.inf if uncertainty.margin is None else uncertainty.margin
        sure = 1 / (1 + math.exp(-lead / settings.score_temperature))
    return Segment.from_mask(
        mask.runs,
        class_index=class_index,
        class_name=parts.vocabulary.names[class_index],
        score=sure * mask.predicted_iou,
        predicted_iou=mask.predicted_iou,
        similarity=similarity,
        generator=generator,
        points=mask.points,
        stability=mask.stability,
        margin=uncertainty.margin,
        entropy=uncertainty.entropy,
    )


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
