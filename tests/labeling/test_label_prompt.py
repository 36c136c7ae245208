"""Peaks, prompts and what becomes of the answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from label_fakes import RegionSam, picture

from patchword.config.label import LabelSettings
from patchword.data.images import to_tensor
from patchword.labeling.generators import (
    DecodedMask,
    Prompt,
    build_prompts,
    cell_points,
    decode_prompts,
    find_peaks,
)
from patchword.models.batching import Batches


def naive_peaks(values: np.ndarray, count: int, distance: float) -> list[list[int]]:
    order = sorted(np.ndindex(values.shape), key=lambda cell: (-values[cell], cell))
    chosen: list[list[int]] = []
    for row, column in order:
        if len(chosen) < count and all(max(abs(row - r), abs(column - c)) > distance for r, c in chosen):
            chosen.append([row, column])
    return chosen


@pytest.mark.parametrize(("count", "distance"), [(1, 1.0), (4, 0.0), (4, 1.0), (4, 2.5), (30, 1.0)])
def test_peaks_agree_with_the_naive_way(count: int, distance: float) -> None:
    maps = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(2))
    maps[2] = maps[2].mul(4).round()  # with ties
    found = find_peaks(maps, count=count, distance=distance)
    assert [cells.tolist() for cells in found] == [naive_peaks(each.numpy(), count, distance) for each in maps]


def test_peaks_leave_the_maps_as_they_are() -> None:
    maps = torch.ones(1, 2, 2)
    assert [cells.tolist() for cells in find_peaks(maps, count=4, distance=1.0)] == [[[0, 0]]]
    assert (maps == 1).all()


def test_cells_become_pixels_within_the_image() -> None:
    cells = torch.tensor([[0, 0], [1, 3]])
    assert cell_points(cells, cells_size=(2, 4), image_size=(20, 80)) == ((10.0, 5.0), (70.0, 15.0))
    assert cell_points(cells, cells_size=(2, 4), image_size=(1, 1)) == ((0.0, 0.0), (0.0, 0.0))


def test_one_prompt_a_peak_and_one_with_all() -> None:
    maps = torch.zeros(2, 1, 8)
    maps[0, 0, 0], maps[0, 0, 7] = 2, 1
    maps[1, 0, 4] = 1
    prompts = build_prompts(maps, image_size=(10, 80), settings=LabelSettings(peaks=2))
    assert prompts[:3] == [
        Prompt(0, ((5.0, 5.0),)),
        Prompt(0, ((75.0, 5.0),)),
        Prompt(0, ((5.0, 5.0), (75.0, 5.0))),
    ]
    assert [prompt.position for prompt in prompts] == [0, 0, 0, 1, 1, 1]
    single = build_prompts(maps, image_size=(10, 80), settings=LabelSettings(peaks=1))
    assert [len(prompt.points) for prompt in single] == [1, 1]  # one peak is not asked about twice


IMAGE = picture([["red", "blue"], ["red", "green"]], scale=2)
PROMPTS = [
    Prompt(0, ((0.0, 0.0),)),
    Prompt(0, ((0.0, 0.0), (3.0, 0.0))),
    Prompt(1, ((3.0, 3.0),)),
]


def asked(sam: RegionSam, *prompts: list[Prompt], **values: float) -> list[list[DecodedMask]]:
    embeddings = sam.embed([to_tensor(IMAGE)] * len(prompts))
    return decode_prompts(
        sam, embeddings=embeddings, prompts=prompts, batches=Batches(), settings=LabelSettings(**values)
    )


def test_prompts_go_together_and_the_best_mask_wins() -> None:
    sam = RegionSam(predicted_iou=1.25)
    (answers,) = asked(sam, PROMPTS)
    assert sam.calls == [(2, 1, 2), (1, 2, 2)]
    assert [answer.prompt for answer in answers] == PROMPTS
    assert [int((answer.logits > 0).sum()) for answer in answers] == [8, 12, 4]
    assert (answers[2].logits > 0)[2:, 2:].all()
    assert [answer.predicted_iou for answer in answers] == [1.0] * 3  # brought within range
    assert [answer.stability for answer in answers] == [0.0] * 3  # the logits of the stand-in are 1 and -1


@pytest.mark.parametrize("points_per_batch", [1, 2, 100])
def test_prompts_of_several_images_go_together(points_per_batch: int) -> None:
    sam = RegionSam()
    found = asked(sam, PROMPTS[:1], [], PROMPTS[1:], points_per_batch=points_per_batch)
    assert sum(shape[0] for shape in sam.calls) == 3
    assert max(shape[0] for shape in sam.calls) == min(2, points_per_batch)
    assert [[answer.prompt for answer in answers] for answers in found] == [PROMPTS[:1], [], PROMPTS[1:]]
    assert [[int((answer.logits > 0).sum()) for answer in answers] for answers in found] == [[8], [], [12, 4]]


@pytest.mark.parametrize(("threshold", "kept"), [(0.79, 3), (0.81, 0)])
def test_masks_of_low_predicted_iou_are_dropped(threshold: float, kept: int) -> None:
    (answers,) = asked(RegionSam(predicted_iou=0.8), PROMPTS, pred_iou_thresh=threshold)
    assert len(answers) == kept


def test_no_prompts_no_answers() -> None:
    sam = RegionSam()
    assert asked(sam, []) == [[]]
    assert sam.calls == []
