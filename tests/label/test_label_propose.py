"""Masks of everything agree, mask for mask, with a loop over prompts that does one thing after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from label_fakes import record
from torch import Tensor

from patchword.label.propose import Proposal, boxes_of, propose_masks, seed_points, stability_of, suppress
from patchword.label.seeds import grid_points
from patchword.label.settings import LabelSettings
from patchword.models.protocols import ImageEmbedding, MaskProposals

SIZE = (60, 90)


class BumpSam:
    """Three smooth random masks a point, the same for the same point, at a third of the resolution."""

    def __init__(self) -> None:
        self.record = record("bump-sam")
        self.device = torch.device("cpu")
        self.prompts: list[int] = []

    def embed(self, images: Tensor) -> ImageEmbedding:
        size = (images.shape[-2], images.shape[-1])
        return ImageEmbedding((images,), size, size)

    def masks_at(self, embedding: ImageEmbedding, points: Tensor) -> MaskProposals:
        self.prompts.append(len(points))
        logits, scores = zip(*(self._answer(int(x), int(y)) for ((x, y),) in points.tolist()), strict=True)
        return MaskProposals(torch.stack(logits), torch.stack(scores), embedding.image_size)

    def _answer(self, x: int, y: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(x // 12 * 1000 + y // 12)  # neighbours answer alike
        rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
        masks = []
        for _ in range(3):
            centre = torch.rand(2, generator=generator) * torch.tensor([20.0, 30.0])
            radius, steep = 1 + 9 * torch.rand(2, generator=generator)
            distance = torch.hypot(rows - centre[0], columns - centre[1])
            masks.append((radius - distance) * steep / 3)
        return torch.stack(masks), 1.2 * torch.rand(3, generator=generator)


def one_by_one(sam: BumpSam, points: Tensor, settings: LabelSettings) -> list[tuple[np.ndarray, float]]:
    """Every prompt alone, every mask alone, python loops; masks (h, w) and predicted IoU, best first."""
    embedding = sam.embed(torch.zeros(1, 3, *SIZE))
    found = []
    for point in points:
        answer = sam.masks_at(embedding, point[None, None])
        for logits, score in zip(answer.logits[0], answer.predicted_iou[0].tolist(), strict=True):
            sure = min(max(score, 0.0), 1.0)
            inner = int((logits > settings.stability_offset).sum())
            outer = int((logits > -settings.stability_offset).sum())
            stable = inner / outer if outer else 0.0
            # Thresholds and scores are compared in single precision, as the masks are.
            if sure < np.float32(settings.minimum_predicted_iou) or stable < np.float32(settings.minimum_stability):
                continue
            inside = np.argwhere((logits > 0).numpy())
            box = (0, 0, 0, 0)
            if len(inside):
                (top, left), (bottom, right) = inside.min(0), inside.max(0)
                box = (left, top, right + 1, bottom + 1)
            found.append((sure, box, answer.upsample(logits[None])[0].numpy()))
    kept: list[tuple[float, tuple[int, int, int, int], np.ndarray]] = []
    for candidate in sorted(found, key=lambda entry: -entry[0]):
        if all(box_iou(candidate[1], other[1]) <= settings.box_overlap for other in kept):
            kept.append(candidate)
    return [(mask, sure) for sure, _, mask in kept if mask.any()]


def box_iou(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    wide = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - wide * high
    return wide * high / union if union else 0.0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prompt_batch": 7},
        {"minimum_predicted_iou": 0.3, "minimum_stability": 0.5, "box_overlap": 0.5},
        {"minimum_predicted_iou": 0.0, "minimum_stability": 0.0, "box_overlap": 0.95, "stability_offset": 0.3},
        {"box_overlap": 0.0},
    ],
)
def test_equals_the_reference_mask_for_mask(values: dict[str, float]) -> None:
    settings = LabelSettings(**values)
    points = grid_points(SIZE, side=9)
    found = propose_masks(
        BumpSam(), embedding=BumpSam().embed(torch.zeros(1, 3, *SIZE)), points=points, settings=settings
    )
    expected = one_by_one(BumpSam(), points, settings)
    assert len(expected) >= 2
    assert [proposal.predicted_iou for proposal in found] == pytest.approx([sure for _, sure in expected])
    for proposal, (mask, _) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(proposal.mask(), mask)


def test_prompts_go_in_batches() -> None:
    sam = BumpSam()
    embedding = sam.embed(torch.zeros(1, 3, *SIZE))
    propose_masks(sam, embedding=embedding, points=grid_points(SIZE, side=9), settings=LabelSettings(prompt_batch=50))
    assert sam.prompts == [50, 31]


def test_a_proposal_tells_where_it_was_asked_and_how_stable_it_is() -> None:
    settings = LabelSettings(minimum_stability=0.0)
    sam = BumpSam()
    points = grid_points(SIZE, side=3)
    found = propose_masks(sam, embedding=sam.embed(torch.zeros(1, 3, *SIZE)), points=points, settings=settings)
    asked = {tuple(point) for point in points.tolist()}
    assert found
    for proposal in found:
        assert proposal.point in asked
        assert 0 <= proposal.stability <= 1
        assert isinstance(proposal, Proposal)


def test_nothing_sure_is_nothing() -> None:
    settings = LabelSettings(minimum_predicted_iou=1.0, minimum_stability=1.0)
    sam = BumpSam()
    embedding = sam.embed(torch.zeros(1, 3, *SIZE))
    assert propose_masks(sam, embedding=embedding, points=grid_points(SIZE, side=2), settings=settings) == []


def test_stability_is_the_iou_of_two_cuts() -> None:
    logits = torch.tensor([[[3.0, 0.5, -0.5, -3.0]], [[-3.0, -3.0, -3.0, -3.0]]])
    assert stability_of(logits, offset=1.0).tolist() == [pytest.approx(1 / 3), 0.0]
    assert stability_of(logits, offset=0.0).tolist() == [1.0, 0.0]


def test_boxes_are_tight_and_empty_masks_have_empty_ones() -> None:
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 6] = True
    assert boxes_of(masks).tolist() == [[2, 1, 6, 3], [6, 4, 7, 5], [0, 0, 0, 0]]


boxes = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(st.lists(st.tuples(boxes, st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_suppression_is_the_greedy_loop(entries: list[tuple[tuple[int, int, int, int], float]], overlap: float) -> None:
    kept: list[int] = []
    for position in sorted(range(len(entries)), key=lambda position: -entries[position][1]):
        ious = [box_iou(entries[position][0], entries[other][0]) for other in kept]
        if any(math.isclose(iou, overlap, rel_tol=1e-5) for iou in ious):
            return  # a tie that rounding decides
        if all(iou <= overlap for iou in ious):
            kept.append(position)
    found = suppress(
        torch.tensor([box for box, _ in entries]), scores=torch.tensor([score for _, score in entries]), overlap=overlap
    )
    assert found.tolist() == kept


def test_seed_points_follow_the_settings() -> None:
    features = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(0))
    grid = seed_points(None, size=SIZE, settings=LabelSettings(grid_side=5))
    assert torch.equal(grid, grid_points(SIZE, side=5))
    assert len(seed_points(features, size=SIZE, settings=LabelSettings(seed_clusters=4))) >= 4
