"""Arithmetic on masks that a mask generator decodes: boxes, suppression, stability, points inside, run lengths."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.data.masks import RunLengths, run_lengths
from patchword.models.pixels import MaskFrame, full_logits

Box = tuple[int, int, int, int]

ENCODED_AT_ONCE = 16
"""Masks of full size that are in memory together."""


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


def box_nms(boxes: Tensor, *, scores: Tensor, thresh: float) -> Tensor:
    """Drop every box that overlaps a better one too much (greedy non-maximum suppression).

    Args:
        boxes: (n, 4) as x0, y0, x1, y1.
        scores: (n,), higher is better; of equal ones the first is.
        thresh: IoU above which two boxes are a repetition, in [0, 1].

    Returns:
        (k,) positions of what is kept, best first; on the CPU, where all is computed box by box and in float64.
    """
    boxes, scores = boxes.cpu(), scores.cpu()
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order].double()
    low = torch.maximum(ranked[:, None, :2], ranked[None, :, :2])
    high = torch.minimum(ranked[:, None, 2:], ranked[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # (n, n)
    areas = (ranked[:, 2:] - ranked[:, :2]).prod(-1)
    repeats = shared / (areas[:, None] + areas[None, :] - shared).clamp(min=1e-9) > thresh
    kept = torch.zeros(len(order), dtype=torch.bool)
    covered = torch.zeros_like(kept)
    for rank in range(len(order)):
        if not bool(covered[rank]):
            kept[rank] = True
            covered |= repeats[rank]
    return order[kept]


def stability_score(logits: Tensor, *, offset: float) -> Tensor:
    """IoU of masks (..., h, w) cut `offset` above zero and `offset` below it; 0 where even the lower cut is empty.

    Source: Kirillov et al., Segment Anything, section 5 (stable masks).
    """
    inner = (logits > offset).sum((-1, -2))
    outer = (logits > -offset).sum((-1, -2))  # the inner mask lies within the outer one
    return inner / outer.clamp(min=1)


def encode_masks(
    logits: Tensor, start: int, stop: int, *, box: Box, image_size: tuple[int, int], frame: MaskFrame | None = None
) -> list[RunLengths]:
    """Bring masks `start` to `stop` - 1 to an image's pixels and run-length encode them.

    Args:
        logits: (n, h', w') of a part of the image, above 0 = inside.
        box: the part as x0, y0, x1, y1 in pixels of the image, x1 and y1 outside.
        image_size: (height, width) in pixels of the image.
        frame: where the part lies in what the logits cover, where that is more than the part.

    Returns:
        the masks, of the image's size, nothing inside beyond the part.
    """
    x0, y0, x1, y1 = box
    whole = (x0, y0, y1 - y0, x1 - x0) == (0, 0, *image_size)
    full = full_logits(logits[start:stop], size=(y1 - y0, x1 - x0), frame=frame) > 0
    parts = full.transpose(1, 2).contiguous().cpu().numpy()  # (n, w, h), columns first as run lengths have them
    encoded = []
    for part in parts:
        canvas: NDArray[np.bool_] = part
        if not whole:
            canvas = np.zeros((image_size[1], image_size[0]), dtype=bool)
            canvas[x0:x1, y0:y1] = part
        encoded.append(run_lengths(canvas.T))
    return encoded


def inner_points(masks: Tensor, *, size: tuple[int, int], count: int, depth: float) -> Tensor:
    """Points in the inner part of masks: the innermost, then always the one farthest from those before.

    How deep a cell lies is the number of rings between it and the mask's border; the image's edge is a border. Of
    equally good cells the first in reading order is taken.

    Args:
        masks: (n, h, w) bool over the whole image, none empty.
        size: (height, width) of the image in pixels.
        count: points a mask, 0 and more; they repeat in a mask of fewer cells.
        depth: how deep the inner part is, relative to the mask's greatest depth, in [0, 1].

    Returns:
        (n, count, 2) float32 as x, y in pixels of the image; (0, 1, 2) where there is nothing to ask.
    """
    if not len(masks) or not count:
        return torch.zeros(0, 1, 2)
    columns = masks.shape[2]
    depths = depths_of(masks).flatten(1)  # (n, h * w)
    inner = depths >= (depth * depths.amax(1, keepdim=True)).clamp(min=1)
    number = torch.arange(depths.shape[1])
    places = torch.stack([number // columns, number % columns], dim=1).float()  # (h * w, 2)
    chosen = [depths.argmax(1)]  # each (n,)
    nearest = torch.where(inner, torch.inf, -1.0)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (places - places[chosen[-1]][:, None]).square().sum(-1))
        chosen.append(nearest.argmax(1))
    positions = torch.stack(chosen, dim=1)  # (n, count)
    return pixels_of(positions // columns, positions % columns, cells=(masks.shape[1], columns), size=size)


def depths_of(masks: Tensor) -> Tensor:
    """How deep each cell of boolean masks (n, rows, columns) lies inside: 0 outside, 1 at the border, then by rings."""
    inside = masks.float()
    depths = torch.zeros_like(inside)
    while bool(inside.any()):
        depths += inside
        inside = -functional.max_pool2d(-functional.pad(inside, (1, 1, 1, 1)), kernel_size=3, stride=1)
    return depths


def pixels_of(rows: Tensor, columns: Tensor, *, cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The pixels (..., 2) float32 x, y, whole, in the middle of cells (...) of a map that covers an image.

    Args:
        cells: (rows, columns) of the map.
        size: (height, width) of the image in pixels.
    """
    x = (columns.double() + 0.5) * size[1] / cells[1]
    y = (rows.double() + 0.5) * size[0] / cells[0]
    return torch.stack([x, y], dim=-1).floor().float()
