"""Masks of everything at a grid of points, mask for mask those of Segment Anything's generator, written out naively."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from patchword.config.label import LabelSettings
from patchword.data.images import to_tensor
from patchword.labeling.mask_generator import AutomaticMaskGenerator
from patchword.models.loading import load_mask_generator
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene

GRID = 8
SETTINGS = LabelSettings(point_sampling="grid", points_per_side=GRID, pred_iou_thresh=0.5, stability_score_thresh=0.7)
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def sam() -> Any:
    return load_mask_generator(str(miniatures.SAM), device="cpu")


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """The first and the last column and row inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1], rows[-1]


def overlap_of(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    wide = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return wide * high / (sum(areas) - wide * high)


@torch.no_grad()
def generate(sam: Any, image: Mask) -> list[tuple[float, Mask]]:
    """Every point alone; masks enlarged to the square, cropped, brought to the image; then the greedy suppression."""
    height, width = image.shape[:2]
    (embedding,) = sam.embed([to_tensor(image)])
    (high, wide), side = embedding.input_size, sam.record.input_size
    found = []
    for row in range(GRID):
        for column in range(GRID):
            x, y = (column + 0.5) / GRID * width, (row + 0.5) / GRID * height
            point = torch.tensor([[[[x * wide / width, y * high / height]]]])
            answer = sam.model(image_embeddings=embedding.features[0], input_points=point, multimask_output=True)
            for logits, iou in zip(answer.pred_masks[0, 0], answer.iou_scores[0, 0].tolist(), strict=True):
                square = functional.interpolate(logits[None, None], (side, side), mode="bilinear")
                full = functional.interpolate(square[..., :high, :wide], (height, width), mode="bilinear")[0, 0]
                inner, outer = int((full > 1).sum()), int((full > -1).sum())
                if iou > 0.5 and outer and inner / outer >= 0.7 and bool((full > 0).any()):
                    found.append((iou, (full > 0).numpy()))
    kept: list[tuple[float, Mask]] = []
    for iou, mask in sorted(found, key=lambda entry: -entry[0]):
        if all(overlap_of(box_of(mask), box_of(other)) <= 0.7 for _, other in kept):
            kept.append((iou, mask))
    return kept


def ours(sam: Any, image: Mask) -> list[tuple[float, Mask]]:
    return [
        (mask.predicted_iou, mask.runs.whole())
        for mask in AutomaticMaskGenerator(sam, SETTINGS).generate(to_tensor(image))
    ]


@pytest.mark.parametrize("size", [(192, 192), (96, 128), (125, 90)])
def test_the_list_is_segment_anythings(sam: Any, size: tuple[int, int]) -> None:
    image = draw_scene(3, size=192).image[: size[0], : size[1]].copy()
    expected, found = generate(sam, image), ours(sam, image)
    assert len(expected) >= 4
    assert [iou for iou, _ in found] == pytest.approx([min(iou, 1.0) for iou, _ in expected], abs=1e-4)
    for (_, mask), (_, its) in zip(found, expected, strict=True):
        assert (mask & its).sum() / (mask | its).sum() > 0.999  # a pixel of a logit of 0 may be on either side


def test_a_photograph_larger_than_the_models_input_is_looked_at_at_that_size(sam: Any) -> None:
    """Stability and boxes are nearly the same there, so that nearly all of the masks are."""
    image = draw_scene(4, size=(200, 300)).image
    expected, found = generate(sam, image), ours(sam, image)
    best = [max((mask & its).sum() / (mask | its).sum() for _, mask in found) for _, its in expected]
    assert np.mean(np.array(best) > 0.95) >= 0.9
