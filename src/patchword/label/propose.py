"""Masks of everything in an image, without names: many prompts, and of the answers only those that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from patchword.label.decode import Answers, Box, decode, encode_masks, stability_of
from patchword.label.seeds import feature_points, grid_points
from patchword.label.settings import LabelSettings
from patchword.maps import RunLengths
from patchword.models.batching import Batches
from patchword.models.protocols import ImageEmbedding, MaskProposer


@dataclass(frozen=True)
class Proposal:
    """A mask without a name.

    Attributes:
        rle: the mask, COCO compressed.
        predicted_iou: the mask proposer's own estimate, within [0, 1].
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1].
        point: x, y of its prompt in pixels of the image.
    """

    rle: RunLengths
    predicted_iou: float
    stability: float
    point: tuple[float, float]

    def mask(self) -> NDArray[np.bool_]:
        """The mask, (h, w)."""
        decoded: NDArray[np.bool_] = coco_mask.decode(dict(self.rle)).astype(bool)
        return decoded


@dataclass(frozen=True)
class View:
    """A photograph or a part of it, on which masks are asked for.

    Attributes:
        embedding: of the part.
        points: (n, 2) x, y of the prompts in pixels of the part.
        box: the part as x0, y0, x1, y1 in pixels of the photograph, x1 and y1 outside.
        grid: parts a side of the photograph; 1 for the whole.
    """

    embedding: ImageEmbedding
    points: Tensor
    box: Box
    grid: int

    @classmethod
    def whole(cls, embedding: ImageEmbedding, *, points: Tensor) -> View:
        """A whole photograph."""
        height, width = embedding.image_size
        return cls(embedding, points, (0, 0, width, height), 1)


@dataclass(frozen=True)
class _Candidates:
    """Masks (n, h', w') of a view that passed the filters, with what is known of each (n,), prompts (n, 2) and boxes
    (n, 4) in pixels of the photograph."""

    logits: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor
    boxes: Tensor

    @classmethod
    def together(cls, parts: Sequence[_Candidates]) -> _Candidates:
        """Those of several batches of prompts on one view."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def seed_points(features: Tensor | None, *, size: tuple[int, int], settings: LabelSettings) -> Tensor:
    """The points that stand for everything in an image.

    Args:
        features: (D, rows, columns) patch features of the image; none for a grid.
        size: (height, width) of the image in pixels.
        settings: `grid_side`, or `seed_clusters` and `seed_place`.

    Returns:
        (n, 2) float32 as x, y in pixels of the image.
    """
    if features is None:
        return grid_points(size, side=settings.grid_side)
    return feature_points(features, size=size, clusters=settings.seed_clusters, place=settings.seed_place)


def propose_masks(
    proposer: MaskProposer, *, views: Sequence[Sequence[View]], batches: Batches, settings: LabelSettings
) -> list[list[Proposal]]:
    """Ask for the masks at every point of photographs and keep those that are sure, stable and no repetition.

    Predicted IoU and stability are looked at on the decoder's own low resolution, and so is whether a mask touches a
    border of its view that is not the photograph's, which cuts it. Repetitions are told by their boxes; of masks of
    several views of a photograph the finer view's stays. Only what is left is brought to the photograph's pixels, a
    few masks at a time, and run-length encoded at once. Source: docs/method.md 1.2 step 1; filters and crops are those
    of Kirillov et al., Segment Anything, section 5 and appendix B.

    Args:
        proposer: draws the masks.
        views: of each photograph; those of one photograph have its masks in common.
        settings: `minimum_predicted_iou`, `minimum_stability`, `stability_offset`, `box_overlap`, `prompt_batch`.

    Returns:
        for each photograph its masks: those of finer views first, and the surest first among them.
    """
    flat = [view for group in views for view in group]
    points = [view.points[:, None] for view in flat]  # (n, 1, 2)
    sizes = [photograph_size(group) for group in views]
    size_of = [size for group, size in zip(views, sizes, strict=True) for _ in group]

    def some(start: int, stop: int) -> list[tuple[int, _Candidates]]:
        answers = decode(proposer, embeddings=[view.embedding for view in flat], points=points, start=start, stop=stop)
        return [
            (part.image, _candidates(part, view=flat[part.image], size=size_of[part.image], settings=settings))
            for part in answers
        ]

    found: list[list[_Candidates]] = [[] for _ in flat]
    total = sum(len(places) for places in points)
    for batch in batches.run(some, count=total, size=settings.prompt_batch, what="masks"):
        for number, candidates in batch:
            found[number].append(candidates)
    chosen, first = [], 0
    for group, size in zip(views, sizes, strict=True):
        own = [
            (view, _Candidates.together(parts))
            for view, parts in zip(group, found[first : first + len(group)], strict=True)
            if parts
        ]
        chosen.append(_choose(own, size=size, batches=batches, settings=settings))
        first += len(group)
    return chosen


def photograph_size(views: Sequence[View]) -> tuple[int, int]:
    """(height, width) in pixels of the photograph that views cover together."""
    return max((view.box[3] for view in views), default=0), max((view.box[2] for view in views), default=0)


def boxes_of(masks: Tensor) -> Tensor:
    """The box (n, 4) around each boolean mask (n, h, w) as x0, y0, x1, y1, x1 and y1 outside; 0 for an empty mask."""
    height, width = masks.shape[-2:]
    rows, columns = masks.any(2), masks.any(1)  # (n, h), (n, w)
    row, column = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)
    boxes = torch.stack(
        [
            torch.where(columns, column, width).amin(1),
            torch.where(rows, row, height).amin(1),
            torch.where(columns, column + 1, 0).amax(1),
            torch.where(rows, row + 1, 0).amax(1),
        ],
        dim=1,
    )
    return boxes * rows.any(1)[:, None]


def suppress(boxes: Tensor, *, scores: Tensor, overlap: float) -> Tensor:
    """Drop every box that overlaps a better one too much (greedy non-maximum suppression).

    Args:
        boxes: (n, 4) as x0, y0, x1, y1.
        scores: (n,), higher is better; of equal ones the first is.
        overlap: IoU above which two boxes are a repetition, in [0, 1].

    Returns:
        (k,) positions of what is kept, best first.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order].double()
    repeats = _box_iou(ranked) > overlap  # (n, n)
    kept = torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    covered = torch.zeros_like(kept)
    for rank in range(len(order)):
        if not bool(covered[rank]):
            kept[rank] = True
            covered |= repeats[rank]
    return order[kept]


def _box_iou(boxes: Tensor) -> Tensor:
    """IoU (n, n) of every two of n boxes; 0 where both are empty."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (areas[:, None] + areas[None, :] - shared).clamp(min=1e-9)


def _candidates(answers: Answers, *, view: View, size: tuple[int, int], settings: LabelSettings) -> _Candidates:
    """All masks of some prompts that are sure and stable enough, and not cut by the view."""
    proposals = answers.proposals
    predicted = proposals.predicted_iou.clamp(0, 1)  # (n, m)
    x0, y0, x1, y1 = view.box
    points = view.points[answers.first : answers.first + len(predicted)] + view.points.new_tensor([x0, y0])
    prompts, which = (predicted >= settings.minimum_predicted_iou).nonzero(as_tuple=True)
    logits = proposals.logits[prompts, which]  # (c, h', w')
    stability = stability_of(logits, offset=settings.stability_offset)
    cells = boxes_of(logits > 0)  # (c, 4)
    rows, columns = logits.shape[-2:]
    keep = (stability >= settings.minimum_stability) & ~_cut(cells, cells=(rows, columns), box=view.box, size=size)
    prompts, which = prompts[keep], which[keep]
    scale = torch.tensor([(x1 - x0) / columns, (y1 - y0) / rows] * 2, dtype=torch.float64)
    boxes = cells[keep].cpu() * scale + torch.tensor([x0, y0, x0, y0], dtype=torch.float64)
    return _Candidates(logits[keep], predicted[prompts, which], stability[keep], points[prompts.cpu()], boxes)


def _cut(boxes: Tensor, *, cells: tuple[int, int], box: Box, size: tuple[int, int]) -> Tensor:
    """Which boxes (n, 4), in cells, touch a border of the view that is not the photograph's: (n,) boolean."""
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
    found: Sequence[tuple[View, _Candidates]], *, size: tuple[int, int], batches: Batches, settings: LabelSettings
) -> list[Proposal]:
    """Drop the repetitions among the masks of one photograph and bring the rest to its pixels."""
    if not found:
        return []
    boxes = torch.cat([candidates.boxes for _, candidates in found])
    # Predicted IoU is at most 1, so that a finer view goes before any of a coarser one.
    ranks = [candidates.predicted_iou.double().cpu() + 2 * view.grid for view, candidates in found]
    kept = suppress(boxes, scores=torch.cat(ranks), overlap=settings.box_overlap).tolist()
    place = {position: order for order, position in enumerate(kept)}
    proposals: dict[int, Proposal] = {}
    first = 0
    for view, candidates in found:
        count = len(candidates.boxes)
        rows = [position - first for position in sorted(kept) if first <= position < first + count]
        masks = encode_masks(candidates.logits[rows], box=view.box, image_size=size, batches=batches)
        for row, mask in zip(rows, masks, strict=True):
            x, y = candidates.points[row].tolist()
            sure, stability = float(candidates.predicted_iou[row]), float(candidates.stability[row])
            proposals[place[first + row]] = Proposal(mask, sure, stability, (x, y))
        first += count
    return [proposals[order] for order in range(len(kept)) if coco_mask.area(dict(proposals[order].rle))]
