"""Masks of everything in a photograph, without names (docs/method.md 1.2, step 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.masks import RunLengths
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import spans
from patchword.labeling.decode_prompts import Box, boxes_of, decode, encode_masks, stability_of, suppress
from patchword.labeling.point_sampling import DecodedMasks, Step, feature_points, further_steps, grid_points
from patchword.models.batching import Batches
from patchword.models.pixels import MaskFrame, full_logits, longest_side_size, model_size, resize
from patchword.models.protocols import ImageEmbedding, MaskGenerator, PatchEncoder

_LOOKED_AT_ONCE = 16  # masks at the size of the crop that are in memory together; changes no result

Prompt = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Proposal:
    """A mask without a name.

    Attributes:
        rle: the mask, COCO compressed.
        predicted_iou: the mask generator's own estimate, brought within [0, 1] once masks are ranked.
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1].
        points: x, y of each point of its prompt in pixels of the image.
    """

    rle: RunLengths
    predicted_iou: float
    stability: float
    points: Prompt

    def mask(self) -> NDArray[np.bool_]:
        """The mask, (h, w)."""
        decoded: NDArray[np.bool_] = coco_mask.decode(dict(self.rle)).astype(bool)
        return decoded


@dataclass(frozen=True)
class ImageCrop:
    """A photograph or a part of it, on which masks are asked for.

    Attributes:
        embedding: of the part.
        points: (n, 2) x, y of the first prompts in pixels of the part.
        box: the part as x0, y0, x1, y1 in pixels of the photograph, x1 and y1 outside.
        grid: parts a side of the photograph; 1 for the whole.
        steps: what to ask afterwards, one after the other; the k of a step is one for all crops that go together.
    """

    embedding: ImageEmbedding
    points: Tensor
    box: Box
    grid: int
    steps: tuple[Step, ...] = ()

    @classmethod
    def whole(cls, embedding: ImageEmbedding, *, points: Tensor, steps: tuple[Step, ...] = ()) -> ImageCrop:
        """A whole photograph."""
        height, width = embedding.image_size
        return cls(embedding, points, (0, 0, width, height), 1, steps)


@dataclass(frozen=True)
class _Candidates:
    """Masks (n, h', w') of a crop that passed the filters, where the crop lies in them, and what is known of each (n,),
    prompts and boxes (n, 4) in pixels of the photograph, x1 and y1 the last inside."""

    logits: Tensor
    frame: MaskFrame | None
    predicted_iou: Tensor
    stability: Tensor
    boxes: Tensor
    prompts: tuple[Prompt, ...]

    @classmethod
    def together(cls, parts: Sequence[_Candidates]) -> _Candidates:
        """Those of several batches of prompts on one crop."""
        return cls(
            torch.cat([part.logits for part in parts]),
            parts[0].frame,
            torch.cat([part.predicted_iou for part in parts]),
            torch.cat([part.stability for part in parts]),
            torch.cat([part.boxes for part in parts]),
            tuple(chain.from_iterable(part.prompts for part in parts)),
        )


@dataclass(frozen=True)
class _Answered:
    """What some prompts on a crop brought: its number, the masks to choose from, all masks for the steps to come."""

    crop: int
    candidates: _Candidates
    decoded: list[DecodedMasks]


def sample_points(features: Tensor | None, *, size: tuple[int, int], settings: LabelSettings) -> Tensor:
    """First points of an image of (height, width) pixels, (n, 2) float32 x, y: of a grid, or from patch features."""
    if features is None:
        return grid_points(size, side=settings.points_per_side)
    clusters = min(settings.sampling_clusters, settings.sampling_budget)
    return feature_points(features, size=size, clusters=clusters, place=settings.sampling_position)


def propose_masks(
    proposer: MaskGenerator, *, image_crops: Sequence[Sequence[ImageCrop]], batches: Batches, settings: LabelSettings
) -> list[list[Proposal]]:
    """Ask for the masks at every prompt on photographs and keep those that are sure, stable and no repetition.

    Stability and boxes are those of masks at the crop's own pixels, or at those of the proposer's input where the crop
    is larger, and so is whether a mask touches a border of its crop that is not the photograph's, which cuts it.
    Repetitions are told by their boxes; of masks of several crops of a photograph the finer crop's stays. Only what is
    left is brought to the photograph's pixels, a few masks at a time, and run-length encoded at once. With a grid of
    points on the whole photograph this is what the generator of Segment Anything does, mask for mask; its crops are
    laid otherwise. Source: docs/method.md 1.2 step 1; Kirillov et al., Segment Anything, section 5 and appendix B.

    Args:
        proposer: draws the masks.
        crops: of each photograph; those of one photograph have its masks in common.
        settings: `pred_iou_thresh`, `stability_score_thresh`, `stability_score_offset`, `box_nms_thresh`,
            `points_per_batch`.

    Returns:
        for each photograph its masks: those of finer crops first, and the surest first among them.
    """
    flat = [crop for group in image_crops for crop in group]
    sizes = [photograph_size(group) for group in image_crops]
    size_of = [size for group, size in zip(image_crops, sizes, strict=True) for _ in group]
    found: list[list[_Candidates]] = [[] for _ in flat]
    decoded: list[list[DecodedMasks]] = [[] for _ in flat]
    for number in range(1 + max((len(crop.steps) for crop in flat), default=0)):
        prompts = [_prompts(crop, number=number, decoded=known) for crop, known in zip(flat, decoded, strict=True)]
        more = [number < len(crop.steps) for crop in flat]
        for answered in _ask(proposer, flat, prompts, more=more, sizes=size_of, batches=batches, settings=settings):
            found[answered.crop].append(answered.candidates)
            decoded[answered.crop] += answered.decoded
    chosen, first = [], 0
    for group, size in zip(image_crops, sizes, strict=True):
        own = [
            (crop, _Candidates.together(parts))
            for crop, parts in zip(group, found[first : first + len(group)], strict=True)
            if parts
        ]
        chosen.append(_choose(own, size=size, batches=batches, settings=settings))
        first += len(group)
    return chosen


def photograph_size(image_crops: Sequence[ImageCrop]) -> tuple[int, int]:
    """(height, width) in pixels of the photograph that crops cover together."""
    return max((crop.box[3] for crop in image_crops), default=0), max((crop.box[2] for crop in image_crops), default=0)


def _prompts(crop: ImageCrop, *, number: int, decoded: Sequence[DecodedMasks]) -> Tensor:
    """What to ask on a crop first (number 0) or in a later step: (n, k, 2)."""
    if number == 0:
        return crop.points[:, None]
    if number > len(crop.steps) or not decoded:
        return crop.points.new_zeros(0, 1, 2)
    return crop.steps[number - 1](DecodedMasks.together(decoded))


def _ask(
    proposer: MaskGenerator,
    image_crops: Sequence[ImageCrop],
    prompts: Sequence[Tensor],
    *,
    more: Sequence[bool],
    sizes: Sequence[tuple[int, int]],
    batches: Batches,
    settings: LabelSettings,
) -> list[_Answered]:
    """Ask the prompts of all crops, some at a time; masks for later steps are kept only where there is `more`."""

    def some(start: int, stop: int) -> list[_Answered]:
        embeddings = [crop.embedding for crop in image_crops]
        answered = []
        for part in decode(proposer, embeddings=embeddings, points=prompts, start=start, stop=stop):
            proposals = part.proposals
            box, sure = image_crops[part.image].box, proposals.predicted_iou  # (n, m)
            accepted = sure >= settings.pred_iou_thresh  # (n, m)
            whole = proposals.logits if proposals.padded is None else proposals.padded
            logits = whole[accepted]  # (c, h', w'); only of sure masks is the stability worth its time
            seen = _looked_at(proposals.image_size, input_size=proposer.record.input_size)
            stability, boxes = _look_at(
                logits, size=seen, frame=proposals.frame, offset=settings.stability_score_offset
            )
            stable = stability >= settings.stability_score_thresh
            accepted = accepted.masked_scatter(accepted, stable)
            asked = prompts[part.image][part.first : part.first + len(accepted)]
            places = _places(asked, accepted=accepted, box=box)
            found = _Candidates(
                logits[stable], proposals.frame, sure[accepted], stability[stable], boxes[stable], places
            )
            uncut = _uncut(found, seen=seen, box=box, size=sizes[part.image])
            decoded = []
            if more[part.image]:
                decoded = [DecodedMasks.of(proposals.logits, predicted_iou=sure, accepted=accepted)]
            answered.append(_Answered(part.image, uncut, decoded))
        return answered

    total = sum(len(points) for points in prompts)
    return list(chain.from_iterable(batches.run(some, count=total, size=settings.points_per_batch, what="masks")))


def _looked_at(size: tuple[int, int], *, input_size: int) -> tuple[int, int]:
    """The size (height, width) at which masks are looked at: the crop's own, or that of the proposer's input where the
    crop is larger, for the time that large photographs would take."""
    return size if max(size) <= input_size else longest_side_size(size, target=input_size)


def _look_at(logits: Tensor, *, size: tuple[int, int], frame: MaskFrame | None, offset: float) -> tuple[Tensor, Tensor]:
    """Stability (n,) and box (n, 4) of masks (n, h', w') at a size in pixels, a few at a time."""
    stability, boxes = [stability_of(logits[:0], offset=offset)], [boxes_of(logits[:0] > 0)]
    for first in range(0, len(logits), _LOOKED_AT_ONCE):
        full = full_logits(logits[first : first + _LOOKED_AT_ONCE], size=size, frame=frame)
        stability.append(stability_of(full, offset=offset))
        boxes.append(boxes_of(full > 0))
    return torch.cat(stability), torch.cat(boxes)


def _places(asked: Tensor, *, accepted: Tensor, box: Box) -> tuple[Prompt, ...]:
    """The prompt (k points) of every accepted mask, in pixels of the photograph."""
    owners = torch.nonzero(accepted)[:, 0].cpu()
    moved = asked.cpu() + asked.new_tensor([box[0], box[1]]).cpu()  # (n, k, 2)
    return tuple(tuple((x, y) for x, y in points) for points in moved[owners].tolist())


def _uncut(found: _Candidates, *, seen: tuple[int, int], box: Box, size: tuple[int, int]) -> _Candidates:
    """The masks that the crop does not cut; their boxes, so far in pixels of the crop as `seen`, in the photograph's.

    From here on x1 and y1 are the last pixels inside: so Segment Anything measures how much boxes overlap.
    """
    x0, y0, x1, y1 = box
    rows, columns = seen
    kept = torch.nonzero(~_cut(found.boxes, cells=(rows, columns), box=box, size=size))[:, 0]
    scale = torch.tensor([(x1 - x0) / columns, (y1 - y0) / rows] * 2, dtype=torch.float64)
    inside = (found.boxes[kept].cpu() - torch.tensor([0, 0, 1, 1])).clamp(min=0)
    boxes = inside * scale + torch.tensor([x0, y0, x0, y0], dtype=torch.float64)
    prompts = tuple(found.prompts[position] for position in kept.tolist())
    return _Candidates(
        found.logits[kept], found.frame, found.predicted_iou[kept], found.stability[kept], boxes, prompts
    )


def _cut(boxes: Tensor, *, cells: tuple[int, int], box: Box, size: tuple[int, int]) -> Tensor:
    """Which boxes (n, 4), in cells, touch a border of the crop that is not the photograph's: (n,) boolean."""
    x0, y0, x1, y1 = box
    touching = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for side, border, inner in (
        (0, 0, x0 > 0),
        (1, 0, y0 > 0),
        (2, cells[1], x1 < size[1]),
        (3, cells[0], y1 < size[0]),
    ):
        if inner:
            touching |= boxes[:, side] == border
    return touching


def _choose(
    found: Sequence[tuple[ImageCrop, _Candidates]], *, size: tuple[int, int], batches: Batches, settings: LabelSettings
) -> list[Proposal]:
    """Drop the repetitions among the masks of one photograph and bring the rest to its pixels."""
    if not found:
        return []
    boxes = torch.cat([candidates.boxes for _, candidates in found])
    sure = torch.cat([candidates.predicted_iou.cpu() for _, candidates in found]).double()
    grids = torch.cat([torch.full((len(candidates.boxes),), crop.grid) for crop, candidates in found])
    # A finer crop goes before any of a coarser one; predicted IoU may be below 0 and above 1.
    ranks = sure + grids * (2 + 2 * sure.abs().amax()) if len(sure) else sure
    kept = suppress(boxes, scores=ranks, overlap=settings.box_nms_thresh).tolist()
    place = {position: order for order, position in enumerate(kept)}
    proposals: dict[int, Proposal] = {}
    first = 0
    for crop, candidates in found:
        count = len(candidates.boxes)
        rows = [position - first for position in sorted(kept) if first <= position < first + count]
        masks = encode_masks(
            candidates.logits[rows], box=crop.box, image_size=size, batches=batches, frame=candidates.frame
        )
        for row, mask in zip(rows, masks, strict=True):
            iou = min(max(float(candidates.predicted_iou[row]), 0.0), 1.0)
            stability = float(candidates.stability[row])
            proposals[place[first + row]] = Proposal(mask, iou, stability, candidates.prompts[row])
        first += count
    return [proposals[order] for order in range(len(kept)) if coco_mask.area(dict(proposals[order].rle))]


def make_image_crops(
    images: Sequence[Tensor],
    *,
    embeddings: Sequence[ImageEmbedding],
    proposer: MaskGenerator,
    encoder: PatchEncoder | None,
    batches: Batches,
    settings: LabelSettings,
) -> list[list[ImageCrop]]:
    """The crops of photographs; parts of all of them are embedded together, `image_batch` at a time.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1].
        embeddings: of the whole images.
        encoder: whose features the points come from, where the settings want that.
        settings: `proposal_grids`, `proposal_overlap`, `proposal_enlargement`, `image_batch`, and those of seeds.

    Returns:
        for each image its crops, the coarsest first.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    boxes = [part_boxes(size, input_size=proposer.record.input_size, settings=settings) for size in sizes]
    parts = [
        images[number][..., y0:y1, x0:x1]
        for number, found in enumerate(boxes)
        for grid, (x0, y0, x1, y1) in found
        if grid > 1
    ]

    def embed(start: int, stop: int) -> tuple[ImageEmbedding, ...]:
        return proposer.embed(parts[start:stop])

    batched = batches.run(embed, count=len(parts), size=settings.image_batch, what="parts of photographs")
    fine = iter(zip(parts, [embedding for batch in batched for embedding in batch], strict=True))
    image_crops: list[list[ImageCrop]] = []
    for image, embedding, found in zip(images, embeddings, boxes, strict=True):
        image_crops.append([])
        for grid, box in found:
            pixels, seen = next(fine) if grid > 1 else (image, embedding)
            features = point_features(pixels, embedding=seen, proposer=proposer, encoder=encoder, settings=settings)
            points = sample_points(features, size=seen.image_size, settings=settings)
            steps = further_steps(features, size=seen.image_size, settings=settings)
            image_crops[-1].append(ImageCrop(seen, points, box, grid, steps))
    return image_crops


def part_boxes(size: tuple[int, int], *, input_size: int, settings: LabelSettings) -> list[tuple[int, Box]]:
    """Lay each grid of overlapping parts over a photograph.

    A grid is left out where its parts would have to be enlarged too much to fill the mask generator's input, since
    nothing new could be seen on them [chosen].

    Args:
        size: (height, width) in pixels.
        input_size: side of the proposer's input in pixels.
        settings: `proposal_grids`, `proposal_overlap`, `proposal_enlargement`.

    Returns:
        grid and box (x0, y0, x1, y1) of each part, the coarsest grid first; the whole is never left out where it is
        asked for.
    """
    found = []
    for grid in sorted(settings.proposal_grids):
        height, width = (math.ceil(side / (grid - (grid - 1) * settings.proposal_overlap) - 1e-9) for side in size)
        if grid > 1 and input_size > settings.proposal_enlargement * max(height, width):
            continue
        found += [
            (grid, (x0, y0, x1, y1))
            for y0, y1 in spans(size[0], length=height, count=grid)
            for x0, x1 in spans(size[1], length=width, count=grid)
        ]
    return found


def point_features(
    pixels: Tensor,
    *,
    embedding: ImageEmbedding,
    proposer: MaskGenerator,
    encoder: PatchEncoder | None,
    settings: LabelSettings,
) -> Tensor | None:
    """Patch features (D, rows, columns) of what a crop shows (1, 3, h, w); none for a grid of points."""
    if settings.point_sampling == "grid":
        return None
    if settings.point_sampling == "embedding":
        cells, side = embedding.features[0].shape[-1], proposer.record.input_size
        rows, columns = (math.ceil(length * cells / side) for length in embedding.input_size)  # the rest is padding
        return embedding.features[0][0, :, :rows, :columns]
    if encoder is None:
        raise PatchwordError("setting 'point_sampling' is 'encoder', but there is no vision encoder; name one")
    size = (pixels.shape[-2], pixels.shape[-1])
    side = round(settings.sampling_scale * encoder.record.input_size)
    seen = model_size(size, image_size=side, patch_size=encoder.record.patch_size)
    return encoder(resize(pixels, size=seen).to(encoder.device))[0]
