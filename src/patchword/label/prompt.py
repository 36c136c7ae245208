"""From evidence to masks: peaks become point prompts, the mask proposer answers (docs/method.md 1.1, step 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.label.propose import stability_of
from patchword.label.settings import LabelSettings
from patchword.models.protocols import ImageEmbedding, MaskProposals, MaskProposer

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
class Answer:
    """The mask proposer's best mask for a prompt.

    Attributes:
        prompt: what was asked.
        proposal: of this one prompt and mask, at the decoder's resolution.
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1].
    """

    prompt: Prompt
    proposal: MaskProposals
    stability: float

    @property
    def predicted_iou(self) -> float:
        """The proposer's own estimate of the mask's IoU, brought within [0, 1]."""
        return min(1.0, max(0.0, float(self.proposal.predicted_iou)))

    @property
    def coarse_mask(self) -> Tensor:
        """Boolean mask (h', w') at the decoder's resolution."""
        return self.proposal.logits[0, 0] > 0

    def mask(self) -> NDArray[np.bool_]:
        """Boolean mask (h, w) in pixels of the image; the only array of that size, made when it is asked for."""
        pixels: NDArray[np.bool_] = self.proposal.upsample(self.proposal.logits[0])[0].cpu().numpy()
        return pixels


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


def ask(
    proposer: MaskProposer, *, embedding: ImageEmbedding, prompts: Sequence[Prompt], settings: LabelSettings
) -> list[Answer]:
    """Decode the prompts and keep each one's mask of highest predicted IoU.

    Prompts of all classes with the same number of points go together in one call. Masks below
    `settings.minimum_predicted_iou` are dropped. Source: docs/method.md 1.1 step 4 [chosen].

    Args:
        embedding: of one image.

    Returns:
        answers in the order of the prompts.
    """
    answers: dict[int, Answer] = {}
    for count in sorted({len(prompt.points) for prompt in prompts}):
        numbers = [number for number, prompt in enumerate(prompts) if len(prompt.points) == count]
        points = torch.tensor([prompts[number].points for number in numbers], dtype=torch.float32)  # (n, count, 2)
        proposals = proposer.masks_at(embedding, points)
        logits, predicted_iou = proposals.best()  # (n, h', w'), (n,)
        stability = stability_of(logits, offset=settings.stability_offset)  # (n,)
        for row, number in enumerate(numbers):
            if float(predicted_iou[row]) >= settings.minimum_predicted_iou:
                # A copy, so that the masks that were not chosen are not kept alive.
                chosen, iou = logits[row][None, None].clone(), predicted_iou[row][None, None].clone()
                kept = MaskProposals(chosen, iou, proposals.image_size)
                answers[number] = Answer(prompts[number], kept, float(stability[row]))
    return [answers[number] for number in sorted(answers)]
