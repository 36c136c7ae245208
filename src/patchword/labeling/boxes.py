"""Boxes around masks, and which of them repeat one another."""

from __future__ import annotations

import torch
from torch import Tensor


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
        (k,) positions of what is kept, best first; on the CPU, where all is computed box by box and in float64.
    """
    boxes, scores = boxes.cpu(), scores.cpu()
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order].double()
    repeats = _box_iou(ranked) > overlap  # (n, n)
    kept = torch.zeros(len(order), dtype=torch.bool)
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
