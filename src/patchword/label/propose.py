"""Masks of everything in an image, without names: many prompts, and of the answers only those that hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from patchword.label.seeds import feature_points, grid_points
from patchword.label.settings import LabelSettings
from patchword.maps import RunLengths, run_lengths
from patchword.models.protocols import ImageEmbedding, MaskProposals, MaskProposer

_UPSAMPLED_AT_ONCE = 16  # masks of full size that are in memory together


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
class _Candidates:
    """Masks (n, h', w') of one window that passed the filters, with what is known of each, and their boxes (n, 4)."""

    logits: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor
    boxes: Tensor


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
    proposer: MaskProposer, *, embedding: ImageEmbedding, points: Tensor, settings: LabelSettings
) -> list[Proposal]:
    """Ask for the masks at every point and keep those that are sure, stable and no repetition.

    Predicted IoU and stability are looked at on the decoder's own low resolution, repetitions are told by their boxes
    there, and only what is left is brought to the image's pixels, a few masks at a time, and run-length encoded at
    once. Source: docs/method.md 1.2 step 1; the filters are those of Kirillov et al., Segment Anything, section 5.

    Args:
        proposer: draws the masks.
        embedding: of one image.
        points: (n, 2) as x, y in pixels of the image.
        settings: `minimum_predicted_iou`, `minimum_stability`, `stability_offset`, `box_overlap`, `prompt_batch`.

    Returns:
        the masks, the surest first.
    """
    found = [_candidates(proposer, embedding, batch, settings) for batch in torch.split(points, settings.prompt_batch)]
    if not found:
        return []
    together = _Candidates(
        *(torch.cat([getattr(part, name) for part in found]) for name in _Candidates.__dataclass_fields__)
    )
    kept = suppress(together.boxes, scores=together.predicted_iou, overlap=settings.box_overlap)
    return list(_finish(together, kept, image_size=embedding.image_size))


def stability_of(logits: Tensor, *, offset: float) -> Tensor:
    """IoU of masks cut `offset` above zero and `offset` below it.

    Args:
        logits: (..., h, w).
        offset: in logits, at least 0.

    Returns:
        (...) in [0, 1]; 0 for a mask that is empty even at the lower cut.

    Source:
        Kirillov et al., Segment Anything, section 5 (stable masks).
    """
    inner = (logits > offset).sum((-1, -2))
    outer = (logits > -offset).sum((-1, -2))  # the inner mask lies within the outer one
    return inner / outer.clamp(min=1)


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
    ranked = boxes[order].float()
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


def _candidates(
    proposer: MaskProposer, embedding: ImageEmbedding, points: Tensor, settings: LabelSettings
) -> _Candidates:
    """All masks at points (n, 2) that are sure and stable enough."""
    answers: MaskProposals = proposer.masks_at(embedding, points[:, None])
    logits, sure = answers.logits, answers.predicted_iou.clamp(0, 1)  # (n, m, h', w'), (n, m)
    stability = stability_of(logits, offset=settings.stability_offset)  # (n, m)
    keep = (sure >= settings.minimum_predicted_iou) & (stability >= settings.minimum_stability)
    places = points.to(sure.device)[:, None].expand(*sure.shape, 2)
    chosen = logits[keep]
    return _Candidates(chosen, sure[keep], stability[keep], places[keep], boxes_of(chosen > 0))


def _finish(found: _Candidates, kept: Tensor, *, image_size: tuple[int, int]) -> Iterator[Proposal]:
    for positions in torch.split(kept, _UPSAMPLED_AT_ONCE):
        proposals = MaskProposals(found.logits[positions][:, None], found.predicted_iou[positions][:, None], image_size)
        masks = proposals.upsample(proposals.logits[:, 0]).cpu().numpy()
        for mask, position in zip(masks, positions.tolist(), strict=True):
            if mask.any():
                x, y = found.points[position].tolist()
                yield Proposal(
                    run_lengths(mask), float(found.predicted_iou[position]), float(found.stability[position]), (x, y)
                )
