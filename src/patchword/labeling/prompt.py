"""From evidence to masks: peaks become point prompts, the mask proposer answers (docs/method.md 1.1, step 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patchword.labeling.decode_prompts import decode, stability_of
from patchword.labeling.settings import LabelSettings
from patchword.models.batching import Batches
from patchword.models.protocols import ImageEmbedding, MaskProposer

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


def ask(
    proposer: MaskProposer,
    *,
    embeddings: Sequence[ImageEmbedding],
    prompts: Sequence[Sequence[Prompt]],
    batches: Batches,
    settings: LabelSettings,
) -> list[list[Answer]]:
    """Decode the prompts of several images and keep each one's mask of highest predicted IoU.

    Prompts with the same number of points go together, whichever class and image they are of. Masks below
    `settings.minimum_predicted_iou` are dropped. Source: docs/method.md 1.1 step 4 [chosen].

    Args:
        embeddings: one an image.
        prompts: of each image.
        settings: `minimum_predicted_iou`, `stability_offset`, `prompt_batch`.

    Returns:
        for each image its answers in the order of its prompts.
    """
    answers: list[dict[int, Answer]] = [{} for _ in prompts]
    for count in sorted({len(prompt.points) for asked in prompts for prompt in asked}):
        numbers = [[n for n, prompt in enumerate(asked) if len(prompt.points) == count] for asked in prompts]
        points = [
            torch.tensor([asked[n].points for n in chosen], dtype=torch.float32).reshape(-1, count, 2)
            for asked, chosen in zip(prompts, numbers, strict=True)
        ]

        total = sum(len(places) for places in points)
        some = partial(_best, proposer, embeddings, points, settings)
        for batch in batches.run(some, count=total, size=settings.prompt_batch, what="masks"):
            for image, row, found in batch:
                number = numbers[image][row]
                answers[image][number] = Answer(prompts[image][number], *found)
    return [[found[number] for number in sorted(found)] for found in answers]


def _best(
    proposer: MaskProposer,
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
        stability = stability_of(logits, offset=settings.stability_offset).tolist()
        for row, sure in enumerate(predicted_iou.tolist()):
            if sure >= settings.minimum_predicted_iou:
                # A copy, so that the masks that were not chosen are not kept alive.
                found.append((part.image, part.first + row, (logits[row].clone(), min(1.0, sure), stability[row])))
    return found
