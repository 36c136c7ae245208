"""Masks of everything agree, mask for mask, with a loop over prompts that does one thing after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from label_fakes import record
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.labeling.mask_generator import AutomaticMaskGenerator, GeneratedMask, crop_boxes
from patchword.labeling.point_sampling import grid_points, sample_points
from patchword.models.loading import load_mask_generator
from patchword.models.protocols import ImageEmbedding, MaskProposals
from patchword.models.sam import box_nms, boxes_of, stability_score

SIZE = (60, 90)


class BumpSam:
    """Three smooth random masks a point, the same for the same point of the same picture, at a third of its size."""

    def __init__(self, fits: int = 10**9) -> None:
        self.record = record("bump-sam", input_size=90)
        self.device = torch.device("cpu")
        self.fits = fits
        self.embedded: list[int] = []
        self.prompts: list[int] = []

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        self.embedded.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return tuple(ImageEmbedding((image,), size, size) for image, size in zip(images, sizes, strict=True))

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        self.prompts.append(sum(len(places) for places in points))
        if self.prompts[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tuple(self._masks(one, places) for one, places in zip(embeddings, points, strict=True))

    def _masks(self, embedding: ImageEmbedding, points: Tensor) -> MaskProposals:
        logits, scores = zip(*(self._answer(embedding, int(x), int(y)) for ((x, y),) in points.tolist()), strict=True)
        return MaskProposals(torch.stack(logits), torch.stack(scores), embedding.image_size)

    def _answer(self, embedding: ImageEmbedding, x: int, y: int) -> tuple[Tensor, Tensor]:
        picture = int(embedding.features[0].double().sum() * 1000)
        seed = picture * 100_000 + x // 12 * 1000 + y // 12  # neighbours answer alike
        generator = torch.Generator().manual_seed(seed)
        height, width = (-(-side // 3) for side in embedding.image_size)
        rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        masks = []
        for _ in range(3):
            centre = torch.rand(2, generator=generator) * torch.tensor([float(height), float(width)])
            radius, steep = 1 + 9 * torch.rand(2, generator=generator)
            distance = torch.hypot(rows - centre[0], columns - centre[1])
            masks.append((radius - distance) * steep / 3)
        return torch.stack(masks), 1.2 * torch.rand(3, generator=generator)


def photograph(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))


Found = tuple[float, tuple[float, ...], np.ndarray, tuple[float, float], int]


def one_by_one(image: Tensor, settings: LabelSettings) -> list[Found]:
    """Every part, every prompt and every mask alone, at full size; the masks that stay, best first."""
    sam, (height, width) = BumpSam(), image.shape[-2:]
    own = settings.proposal_pred_iou_thresh
    least = settings.pred_iou_thresh if own is None else own
    found: list[Found] = []
    for grid in sorted(settings.proposal_grids):
        tall, wide = (math.ceil(side / (grid - (grid - 1) * settings.proposal_overlap)) for side in (height, width))
        if grid > 1 and sam.record.input_size / max(tall, wide) > settings.proposal_enlargement:
            continue
        for row in range(grid):
            for column in range(grid):
                top = math.floor(row * (height - tall) / max(grid - 1, 1) + 0.5)
                left = math.floor(column * (width - wide) / max(grid - 1, 1) + 0.5)
                (embedding,) = sam.embed([image[..., top : top + tall, left : left + wide]])
                for point in grid_points((tall, wide), side=settings.points_per_side):
                    (answer,) = sam.masks_at([embedding], [point[None, None]])
                    for logits, score in zip(answer.logits[0], answer.predicted_iou[0].tolist(), strict=True):
                        sure = score
                        seen = min(1, sam.record.input_size / max(tall, wide))
                        size = (int(tall * seen + 0.5), int(wide * seen + 0.5))
                        full = torch.nn.functional.interpolate(logits[None, None], size, mode="bilinear")[0, 0]
                        inner = int((full > settings.stability_score_offset).sum())
                        outer = int((full > -settings.stability_score_offset).sum())
                        stable = inner / outer if outer else 0.0
                        # Thresholds and scores are compared in single precision, as the masks are.
                        if sure < np.float32(least):
                            continue
                        if stable < np.float32(settings.stability_score_thresh):
                            continue
                        inside = (full > 0).numpy()
                        if (inside[0].any() and top > 0) or (inside[-1].any() and top + tall < height):
                            continue
                        if (inside[:, 0].any() and left > 0) or (inside[:, -1].any() and left + wide < width):
                            continue
                        box: tuple[float, ...] = (left, top, left, top)
                        if inside.any():
                            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
                            x, y = wide / inside.shape[1], tall / inside.shape[0]
                            box = (
                                left + columns[0] * x,
                                top + rows[0] * y,
                                left + columns[-1] * x,
                                top + rows[-1] * y,
                            )
                        mask = np.zeros((height, width), dtype=bool)
                        mask[top : top + tall, left : left + wide] = answer.upsample(logits[None])[0].numpy()
                        asked = (left + float(point[0]), top + float(point[1]))
                        found.append((sure, box, mask, asked, grid))
    kept: list[Found] = []
    for candidate in sorted(found, key=lambda entry: (-entry[4], -entry[0])):
        if all(box_iou(candidate[1], other[1]) <= settings.box_nms_thresh for other in kept):
            kept.append(candidate)
    return [entry for entry in kept if entry[2].any()]


def box_iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    wide = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - wide * high
    return wide * high / union if union else 0.0


def generate(
    images: Sequence[Tensor], settings: LabelSettings, *, sam: BumpSam | None = None
) -> list[list[GeneratedMask]]:
    embeddings = [embedding for image in images for embedding in BumpSam().embed([image])]
    generator = AutomaticMaskGenerator(sam or BumpSam(), settings)
    return generator.masks_on(generator.crops_of(images, embeddings))


def assert_same(found: list[GeneratedMask], expected: list[Found]) -> None:
    assert [one.predicted_iou for one in found] == pytest.approx([min(entry[0], 1) for entry in expected])
    for one, (_, _, mask, point, _) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.runs.whole(), mask)
        assert one.points == (pytest.approx(point),)


GRID = {"point_sampling": "grid", "points_per_side": 5}
LOOSE = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.5, "box_nms_thresh": 0.5}
VALUES: list[dict[str, Any]] = [
    {},
    {"points_per_batch": 7},
    LOOSE,
    {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.95, "stability_score_offset": 0.3},
    {"box_nms_thresh": 0.0},
    LOOSE | {"pred_iou_thresh": 1.0, "proposal_pred_iou_thresh": 0.3},
]


@pytest.mark.parametrize("values", VALUES)
def test_equals_the_reference_mask_for_mask(values: dict[str, Any]) -> None:
    settings = LabelSettings(point_sampling="grid", points_per_side=9, **values)
    image = photograph(*SIZE)
    expected = one_by_one(image, settings)
    assert len(expected) >= 2
    (found,) = generate([image], settings)
    assert_same(found, expected)


@pytest.mark.parametrize("values", [*VALUES[:3], LOOSE | {"points_per_batch": 7, "image_batch": 3}])
@pytest.mark.parametrize("grids", [(1, 2), (3, 1, 2), (2,)])
def test_equals_the_reference_on_parts_of_several_photographs(values: dict[str, Any], grids: tuple[int, ...]) -> None:
    settings = LabelSettings(point_sampling="grid", points_per_side=5, proposal_grids=grids, **values)
    images = [photograph(*size) for size in (SIZE, (101, 64), (160, 170), (40, 30))]
    expected = [one_by_one(image, settings) for image in images]
    used = [{entry[4] for entry in entries} for entries in expected]
    if values:
        assert used[2] == set(grids)  # masks of every grid stay, so that their places and their order are compared
        assert used[3] <= {1}  # too small for parts
    for found, entries in zip(generate(images, settings), expected, strict=True):
        assert_same(found, entries)


def test_too_little_memory_changes_nothing_but_the_batches() -> None:
    settings = LabelSettings(
        point_sampling="grid", points_per_side=5, proposal_grids=(1, 2), image_batch=4, points_per_batch=64, **LOOSE
    )
    images, small = [photograph(*SIZE), photograph(101, 64)], BumpSam(fits=3)
    found, expected = generate(images, settings, sam=small), generate(images, settings)
    assert small.embedded == [4, 2, 2, 2, 2]
    assert small.prompts[:6] == [64, 32, 16, 8, 4, 2]
    assert set(small.prompts[6:]) <= {1, 2}
    assert found == expected


def test_photographs_whose_grids_are_all_left_out_have_no_masks() -> None:
    images, settings = [photograph(10, 12), photograph(*SIZE)], LabelSettings(proposal_grids=(2,))
    found = generate(images, settings.model_copy(update=GRID | LOOSE))
    assert found[0] == []
    assert found[1]


def test_prompts_go_in_batches_over_photographs() -> None:
    sam, settings = BumpSam(), LabelSettings(point_sampling="grid", points_per_side=9, points_per_batch=50)
    generate([photograph(*SIZE), photograph(50, 50)], settings, sam=sam)
    assert sam.prompts == [50, 50, 50, 12]


def test_a_mask_tells_where_it_was_asked_and_how_stable_it_is() -> None:
    settings = LabelSettings(point_sampling="grid", points_per_side=3, stability_score_thresh=0.0)
    (found,) = generate([photograph(*SIZE)], settings)
    asked = {tuple(point) for point in grid_points(SIZE, side=3).tolist()}
    assert found
    for one in found:
        assert set(one.points) <= asked
        assert 0 <= one.stability <= 1


def test_nothing_sure_is_nothing() -> None:
    settings = LabelSettings(point_sampling="grid", points_per_side=2, pred_iou_thresh=1.0, stability_score_thresh=1.0)
    assert generate([photograph(*SIZE)], settings) == [[]]


@pytest.mark.parametrize(
    ("size", "grids", "expected"),
    [
        ((100, 200), (1,), [(1, (0, 0, 200, 100))]),
        (
            (100, 100),
            (2,),
            [(2, (0, 0, 61, 61)), (2, (39, 0, 100, 61)), (2, (0, 39, 61, 100)), (2, (39, 39, 100, 100))],
        ),
        ((70, 40), (2, 1), [(1, (0, 0, 40, 70))]),  # parts of 43 x 25 pixels would be enlarged 2.1 times to 90
    ],
)
def test_crop_boxes(size: tuple[int, int], grids: tuple[int, ...], expected: list[tuple[int, tuple[int, ...]]]) -> None:
    assert crop_boxes(size, input_size=90, settings=LabelSettings(proposal_grids=grids)) == expected


def test_stability_is_the_iou_of_two_cuts() -> None:
    logits = torch.tensor([[[3.0, 0.5, -0.5, -3.0]], [[-3.0, -3.0, -3.0, -3.0]]])
    assert stability_score(logits, offset=1.0).tolist() == [pytest.approx(1 / 3), 0.0]
    assert stability_score(logits, offset=0.0).tolist() == [1.0, 0.0]


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
    found = box_nms(
        torch.tensor([box for box, _ in entries]), scores=torch.tensor([score for _, score in entries]), thresh=overlap
    )
    assert found.tolist() == kept


def test_points_follow_the_settings() -> None:
    features = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(0))
    grid = sample_points(None, size=SIZE, settings=LabelSettings(points_per_side=5))
    assert torch.equal(grid[:, 0], grid_points(SIZE, side=5))
    assert len(sample_points(features, size=SIZE, settings=LabelSettings(sampling_clusters=4))) == 4
    assert len(sample_points(features, size=SIZE, settings=LabelSettings(sampling_budget=3))) == 3


@pytest.mark.parametrize("fixture", ["tiny_sam", "tiny_sam2"])
@pytest.mark.parametrize(("batch", "calls"), [(20, [20] * 5), (64, [64, 36]), (100, [100])])
def test_the_setting_decides_how_many_prompts_the_decoder_gets(
    fixture: str, batch: int, calls: list[int], request: pytest.FixtureRequest
) -> None:
    sam: Any = load_mask_generator(str(request.getfixturevalue(fixture)), device="cpu")
    asked: list[int] = []
    decoder = sam.model.mask_decoder
    decoder.register_forward_pre_hook(
        lambda module, given, named: asked.append(len(named["sparse_prompt_embeddings"])), with_kwargs=True
    )
    settings = LabelSettings(point_sampling="grid", points_per_side=10, points_per_batch=batch)
    AutomaticMaskGenerator(sam, settings).generate(photograph(24, 32))
    assert asked == calls
