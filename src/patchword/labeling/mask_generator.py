"""Masks of everything in a photograph, without names (docs/method.md 1.2, step 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.run_lengths import Runs
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import spans
from patchword.labeling.point_sampling import DecodedMasks, sample_points
from patchword.models.batching import Batches, within
from patchword.models.mask_pixels import ENCODED_AT_ONCE, Box, encode_masks
from patchword.models.pixels import MaskFrame, full_logits, longest_side_size, model_size, resize
from patchword.models.protocols import ImageEmbedding, MaskGenerator, PatchEncoder
from patchword.models.sam import box_nms, boxes_of, stability_score

_FILTERED_AT_ONCE = 16  # masks at the size of the crop that are in memory together; changes no result

Prompt = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class GeneratedMask:
    """A mask without a name.

    Attributes:
        runs: the mask.
        predicted_iou: the model's own estimate, brought within [0, 1] once masks are ranked.
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1].
        points: x, y of each point of its prompt in pixels of the image.
    """

    runs: Runs
    predicted_iou: float
    stability: float
    points: Prompt


@dataclass(frozen=True)
class ImageCrop:
    """A photograph or a part of it, on which masks are asked for.

    Attributes:
        embedding: of the part.
        features: (D, rows, columns) of the part, which points are sampled from; none for a grid of points.
        box: the part as x0, y0, x1, y1 in pixels of the photograph, x1 and y1 outside.
        grid: parts a side of the photograph; 1 for the whole.
    """

    embedding: ImageEmbedding
    features: Tensor | None
    box: Box
    grid: int

    @classmethod
    def whole(cls, embedding: ImageEmbedding, *, features: Tensor | None = None) -> ImageCrop:
        """A whole photograph."""
        height, width = embedding.image_size
        return cls(embedding, features, (0, 0, width, height), 1)


@dataclass(frozen=True)
class _Masks:
    """Masks (n, h', w') of a crop that passed the filters, where the crop lies in them, and what is known of each (n,),
    prompts and boxes (n, 4) in pixels of the photograph, x1 and y1 the last inside."""

    logits: Tensor
    frame: MaskFrame | None
    predicted_iou: Tensor
    stability: Tensor
    boxes: Tensor
    prompts: tuple[Prompt, ...]

    @classmethod
    def together(cls, parts: Sequence[_Masks]) -> _Masks:
        return cls(
            torch.cat([part.logits for part in parts]),
            parts[0].frame,
            torch.cat([part.predicted_iou for part in parts]),
            torch.cat([part.stability for part in parts]),
            torch.cat([part.boxes for part in parts]),
            tuple(chain.from_iterable(part.prompts for part in parts)),
        )


@dataclass(frozen=True)
class AutomaticMaskGenerator:
    """Masks of everything, as Segment Anything's automatic mask generator makes them.

    Masks are kept that are sure, stable and no repetition. Stability and boxes are those of masks at the crop's own
    pixels, or at those of the model's input where the crop is larger, and so is whether a mask touches a border of its
    crop that is not the photograph's, which cuts it. Repetitions are told by their boxes; of masks of several crops of
    a photograph the finer crop's stays. Only what is left is brought to the photograph's pixels, a few masks at a time,
    and kept as runs. With a grid of points on the whole photograph this is what Segment Anything's own
    does, mask for mask; its crops are laid otherwise. Besides a grid, points come from clusters of features, and masks
    that were refused are asked for again. Source: docs/method.md 1.2 steps 1 and 3; Kirillov et al., Segment Anything,
    section 5 and appendix B.

    Args:
        model: decodes masks at points.
        settings: `points_per_side`, `points_per_batch`, `pred_iou_thresh` or its own, `stability_score_thresh`,
            `stability_score_offset`, `box_nms_thresh`, and those of points and of crops (`proposal_...`).
        encoder: whose features the points come from, where `point_sampling` is "encoder".
        batches: how much fits into memory, learnt on the way.
    """

    model: MaskGenerator
    settings: LabelSettings
    encoder: PatchEncoder | None = None
    batches: Batches = field(default_factory=Batches)

    def generate(self, image: Tensor) -> list[GeneratedMask]:
        """Masks of one image (1, 3, h, w), RGB in [0, 1]: those of finer crops first, surest first among them."""
        return self.masks_on(self.crops_of([image], self.model.embed([image])))[0]

    def crops_of(self, images: Sequence[Tensor], embeddings: Sequence[ImageEmbedding]) -> list[list[ImageCrop]]:
        """The crops of each image, the coarsest first; parts are embedded together, `image_batch` at a time."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        boxes = [crop_boxes(size, input_size=self.model.record.input_size, settings=self.settings) for size in sizes]
        parts = [
            image[..., y0:y1, x0:x1]
            for image, found in zip(images, boxes, strict=True)
            for grid, (x0, y0, x1, y1) in found
            if grid > 1
        ]
        batched = self.batches.run(
            lambda start, stop: self.model.embed(parts[start:stop]),
            count=len(parts),
            size=self.settings.image_batch,
            what="parts of photographs",
        )
        fine = iter(zip(parts, chain.from_iterable(batched), strict=True))
        crops: list[list[ImageCrop]] = []
        for image, embedding, found in zip(images, embeddings, boxes, strict=True):
            crops.append([])
            for grid, box in found:
                pixels, seen = next(fine) if grid > 1 else (image, embedding)
                crops[-1].append(ImageCrop(seen, self.features_of(pixels, seen), box, grid))
        return crops

    def features_of(self, pixels: Tensor, embedding: ImageEmbedding) -> Tensor | None:
        """Patch features (D, rows, columns) of what a crop shows (1, 3, h, w); none for a grid of points."""
        settings, encoder = self.settings, self.encoder
        if settings.point_sampling == "grid":
            return None
        if settings.point_sampling == "embedding":
            cells, side = embedding.features[0].shape[-1], self.model.record.input_size
            rows, columns = (math.ceil(length * cells / side) for length in embedding.input_size)  # the rest is padding
            return embedding.features[0][0, :, :rows, :columns]
        if encoder is None:
            raise PatchwordError("setting 'point_sampling' is 'encoder', but there is no vision encoder; name one")
        side = round(settings.sampling_scale * encoder.record.input_size)
        size = (pixels.shape[-2], pixels.shape[-1])
        seen = model_size(size, image_size=side, patch_size=encoder.record.patch_size)
        return encoder(resize(pixels, size=seen).to(encoder.device))[0]

    def masks_on(self, crops: Sequence[Sequence[ImageCrop]]) -> list[list[GeneratedMask]]:
        """Masks on the crops of each image, which has the masks of its crops in common; prompts of all go together."""
        flat = [crop for group in crops for crop in group]
        # The image's size is that of what its crops cover together.
        sizes = [_covered(group) for group in crops]
        size_of = [size for group, size in zip(crops, sizes, strict=True) for _ in group]
        found: list[list[_Masks]] = [[] for _ in flat]
        decoded: list[list[DecodedMasks]] = [[] for _ in flat]
        rounds = 1 if all(crop.features is None for crop in flat) else 3
        for number in range(rounds):
            prompts = [
                sample_points(
                    crop.features, size=crop.embedding.image_size, decoded=known, number=number, settings=self.settings
                )
                for crop, known in zip(flat, decoded, strict=True)
            ]
            answer = partial(self._decode, flat, prompts, size_of, keep=number < rounds - 1)
            total = sum(map(len, prompts))
            for batch in self.batches.run(answer, count=total, size=self.settings.points_per_batch, what="masks"):
                for crop_number, masks, coarse in batch:
                    found[crop_number].append(masks)
                    if coarse is not None:
                        decoded[crop_number].append(coarse)
        parts = iter(found)
        return [
            self._choose([(crop, _Masks.together(own)) for crop in group if (own := next(parts))], size=size)
            for group, size in zip(crops, sizes, strict=True)
        ]

    def _decode(
        self,
        crops: Sequence[ImageCrop],
        prompts: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        start: int,
        stop: int,
        *,
        keep: bool,
    ) -> list[tuple[int, _Masks, DecodedMasks | None]]:
        """For some prompts of all crops: the crop's number, its masks that pass, and all masks where they are kept."""
        settings, answered = self.settings, []
        chosen = within([len(points) for points in prompts], start=start, stop=stop)
        found = self.model.masks_at(
            [crops[crop].embedding for crop, _, _ in chosen],
            [prompts[crop][first:last] for crop, first, last in chosen],
        )
        for (crop, first, last), proposals in zip(chosen, found, strict=True):
            box, sure = crops[crop].box, proposals.predicted_iou  # (n, m)
            accepted = sure >= settings.proposal_threshold  # (n, m)
            whole = proposals.logits if proposals.padded is None else proposals.padded
            rows, columns = torch.nonzero(accepted, as_tuple=True)  # asked once: the host waits for how many
            logits = whole[rows, columns]  # (c, h', w'); only of sure masks is the stability worth its time
            size = proposals.image_size
            if max(size) > self.model.record.input_size:  # for the time that large photographs would take
                size = longest_side_size(size, target=self.model.record.input_size)
            stability, boxes = _measure(
                logits, size=size, frame=proposals.frame, offset=settings.stability_score_offset
            )
            stable = stability >= settings.stability_score_thresh
            accepted = accepted.masked_scatter(accepted, stable)
            passing = torch.nonzero(stable)[:, 0]
            rows, columns = rows[passing], columns[passing]
            asked = prompts[crop][first:last].cpu()  # (n, k, 2)
            moved = asked + asked.new_tensor([box[0], box[1]])
            places = tuple(tuple((x, y) for x, y in points) for points in moved[rows.cpu()].tolist())
            chosen_sure, measured = sure[rows, columns], stability[passing]
            masks = _Masks(logits[passing], proposals.frame, chosen_sure, measured, boxes[passing], places)
            masks = _without_cut(masks, seen=size, box=box, size=sizes[crop])
            coarse = DecodedMasks.of(proposals.logits, predicted_iou=sure, accepted=accepted) if keep else None
            answered.append((crop, masks, coarse))
        return answered

    def _choose(self, found: Sequence[tuple[ImageCrop, _Masks]], *, size: tuple[int, int]) -> list[GeneratedMask]:
        """Drop the repetitions among the masks of one photograph and bring the rest to its pixels."""
        if not found:
            return []
        boxes = torch.cat([masks.boxes for _, masks in found])
        sure = torch.cat([masks.predicted_iou for _, masks in found]).cpu().double()
        stability = torch.cat([masks.stability for _, masks in found]).tolist()
        ious = sure.clamp(0, 1).tolist()
        grids = torch.cat([torch.full((len(masks.boxes),), crop.grid) for crop, masks in found])
        # A finer crop goes before any of a coarser one; predicted IoU may be below 0 and above 1.
        ranks = sure + grids * (2 + 2 * sure.abs().amax()) if len(sure) else sure
        kept = box_nms(boxes, scores=ranks, thresh=self.settings.box_nms_thresh).tolist()
        chosen: dict[int, GeneratedMask] = {}
        first = 0
        for crop, masks in found:
            rows = [position - first for position in sorted(kept) if first <= position < first + len(masks.boxes)]
            logits = masks.logits[rows]
            encode = partial(encode_masks, logits, box=crop.box, image_size=size, frame=masks.frame)
            batched = self.batches.run(encode, count=len(rows), size=ENCODED_AT_ONCE, what="full-size masks")
            encoded = list(chain.from_iterable(batched))
            for row, runs in zip(rows, encoded, strict=True):
                place = first + row
                chosen[place] = GeneratedMask(runs, ious[place], stability[place], masks.prompts[row])
            first += len(masks.boxes)
        return [chosen[position] for position in kept if chosen[position].runs.area]


def _covered(crops: Sequence[ImageCrop]) -> tuple[int, int]:
    return max((crop.box[3] for crop in crops), default=0), max((crop.box[2] for crop in crops), default=0)


def _measure(logits: Tensor, *, size: tuple[int, int], frame: MaskFrame | None, offset: float) -> tuple[Tensor, Tensor]:
    """Stability (n,) and box (n, 4) of masks (n, h', w') at a size in pixels, a few at a time."""
    stability, boxes = [stability_score(logits[:0], offset=offset)], [boxes_of(logits[:0] > 0)]
    for first in range(0, len(logits), _FILTERED_AT_ONCE):
        full = full_logits(logits[first : first + _FILTERED_AT_ONCE], size=size, frame=frame)
        stability.append(stability_score(full, offset=offset))
        boxes.append(boxes_of(full > 0))
    return torch.cat(stability), torch.cat(boxes)


def _without_cut(found: _Masks, *, seen: tuple[int, int], box: Box, size: tuple[int, int]) -> _Masks:
    """The masks that the crop does not cut; their boxes, so far in pixels of the crop as `seen`, in the photograph's.

    From here on x1 and y1 are the last pixels inside: so Segment Anything measures how much boxes overlap.
    """
    x0, y0, x1, y1 = box
    rows, columns = seen
    cut = torch.zeros(len(found.boxes), dtype=torch.bool, device=found.boxes.device)
    borders = ((0, 0, x0 > 0), (1, 0, y0 > 0), (2, columns, x1 < size[1]), (3, rows, y1 < size[0]))
    for side, border, within_photograph in borders:
        if within_photograph:
            cut |= found.boxes[:, side] == border
    kept = torch.nonzero(~cut)[:, 0]
    scale = torch.tensor([(x1 - x0) / columns, (y1 - y0) / rows] * 2, dtype=torch.float64)
    inside = (found.boxes[kept].cpu() - torch.tensor([0, 0, 1, 1])).clamp(min=0)
    boxes = inside * scale + torch.tensor([x0, y0, x0, y0], dtype=torch.float64)
    prompts = tuple(found.prompts[position] for position in kept.tolist())
    return _Masks(found.logits[kept], found.frame, found.predicted_iou[kept], found.stability[kept], boxes, prompts)


def crop_boxes(size: tuple[int, int], *, input_size: int, settings: LabelSettings) -> list[tuple[int, Box]]:
    """Lay each grid of overlapping parts over a photograph of (height, width) pixels.

    A grid is left out where its parts would have to be enlarged too much to fill the model's input of `input_size`
    pixels a side, since nothing new could be seen on them [chosen].

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
