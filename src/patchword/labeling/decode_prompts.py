"""Point prompts at peaks and the masks that SAM decodes for them (docs/method.md 1.1, step 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.data.masks import RunLengths, run_lengths
from patchword.models.batching import Batches, within
from patchword.models.pixels import MaskFrame, full_logits
from patchword.models.protocols import ImageEmbedding, MaskGenerator, MaskProposals


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


Box = tuple[int, int, int, int]

_UPSAMPLED_AT_ONCE = 16  # masks of full size that are in memory together


@dataclass(frozen=True)
class DecodedPrompts:
    """Proposals for some of an image's prompts: its number, and the first of the prompts."""

    image: int
    first: int
    proposals: MaskProposals


def decode(
    proposer: MaskGenerator,
    *,
    embeddings: Sequence[ImageEmbedding],
    points: Sequence[Tensor],
    start: int,
    stop: int,
) -> list[DecodedPrompts]:
    """Decode prompts `start` to `stop` - 1 of those of all images laid end to end, in one call.

    Args:
        embeddings: one an image.
        points: for each image (n, k, 2) in its pixels, one k for all.
    """
    chosen = within([len(places) for places in points], start=start, stop=stop)
    found = proposer.masks_at(
        [embeddings[image] for image, _, _ in chosen], [points[image][first:last] for image, first, last in chosen]
    )
    return [DecodedPrompts(image, first, proposals) for (image, first, _), proposals in zip(chosen, found, strict=True)]


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


def encode_masks(
    logits: Tensor, *, box: Box, image_size: tuple[int, int], batches: Batches, frame: MaskFrame | None = None
) -> list[RunLengths]:
    """Bring masks to an image's pixels and run-length encode them, a few at a time.

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

    def some(start: int, stop: int) -> list[RunLengths]:
        full = full_logits(logits[start:stop], size=(y1 - y0, x1 - x0), frame=frame) > 0
        # Columns first, as run lengths have them.
        parts = full.transpose(1, 2).contiguous().cpu().numpy()  # (n, w, h)
        encoded = []
        for part in parts:
            canvas: NDArray[np.bool_] = part
            if not whole:
                canvas = np.zeros((image_size[1], image_size[0]), dtype=bool)
                canvas[x0:x1, y0:y1] = part
            encoded.append(run_lengths(canvas.T))
        return encoded

    found = batches.run(some, count=len(logits), size=_UPSAMPLED_AT_ONCE, what="full-size masks")
    return [mask for part in found for mask in part]


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
    """The mask generator's best mask for a prompt.

    Attributes:
        prompt: what was asked.
        logits: (h', w') at the decoder's resolution, above 0 = inside.
        predicted_iou: the proposer's own estimate of the mask's IoU, brought within [0, 1].
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
    proposer: MaskGenerator,
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
        some = partial(_best, proposer, embeddings, points, settings)
        for batch in batches.run(some, count=total, size=settings.points_per_batch, what="masks"):
            for image, row, found in batch:
                number = numbers[image][row]
                answers[image][number] = DecodedMask(prompts[image][number], *found)
    return [[found[number] for number in sorted(found)] for found in answers]


def _best(
    proposer: MaskGenerator,
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
    for part in decode(proposer, embeddings=embeddings, points=points, start=start, stop=stop):
        logits, predicted_iou = part.proposals.best()  # (n, h', w'), (n,)
        stability = stability_of(logits, offset=settings.stability_score_offset).tolist()
        for row, sure in enumerate(predicted_iou.tolist()):
            if sure >= settings.pred_iou_thresh:
                # A copy, so that the masks that were not chosen are not kept alive.
                found.append((part.image, part.first + row, (logits[row].clone(), min(1.0, sure), stability[row])))
    return found
