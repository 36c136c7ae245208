"""Where masks of everything are asked for again, and that no more is asked than the budget allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from label_fakes import record
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.labeling.mask_generator import AutomaticMaskGenerator, ImageCrop
from patchword.labeling.point_sampling import DecodedMasks, refused_masks, uncovered_cells
from patchword.models.protocols import ImageEmbedding, MaskProposals
from patchword.models.sam import depths_of, inner_points

SIZE = (48, 64)


def mask_of(rows: slice, columns: slice, *, size: tuple[int, int] = (12, 16)) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def decoded_of(*entries: tuple[Tensor, float, bool]) -> DecodedMasks:
    """One mask a prompt."""
    masks, sure, accepted = zip(*entries, strict=True)
    return DecodedMasks(torch.stack(masks)[:, None], torch.tensor(sure)[:, None], torch.tensor(accepted)[:, None])


def depths_by_loops(mask: np.ndarray) -> np.ndarray:
    """The least steps, diagonal ones too, to a cell that is not inside; everything beyond the map is not."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    return np.array([[np.abs(outside - cell).max(1).min() for cell in row] for row in np.indices(mask.shape).T]).T


@pytest.mark.parametrize("seed", range(8))
def test_depths_are_the_distances_to_what_is_outside(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 13)) < 0.9
    np.testing.assert_array_equal(depths_of(torch.from_numpy(mask)[None])[0].numpy(), depths_by_loops(mask))


def test_a_full_mask_is_deepest_in_the_middle() -> None:
    assert depths_of(torch.ones(1, 5, 5, dtype=torch.bool))[0].argmax() == 12


def inner_by_loops(mask: np.ndarray, count: int, depth: float) -> list[tuple[int, int]]:
    depths = depths_by_loops(mask)
    cells = [cell for cell in np.ndindex(*mask.shape) if mask[cell] and depths[cell] >= depth * depths.max()]
    chosen = [max(cells, key=lambda cell: depths[cell])]
    while len(chosen) < count:
        chosen.append(max(cells, key=lambda cell: min(np.hypot(*np.subtract(cell, other)) for other in chosen)))
    return chosen


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_inner_points_are_those_of_loops(count: int, depth: float) -> None:
    generator = np.random.default_rng(count)
    masks = np.stack([generator.random((9, 13)) < share for share in (0.05, 0.5, 0.9, 0.97, 1.0)])
    points = inner_points(torch.from_numpy(masks), size=(90, 130), count=count, depth=depth)
    assert points.shape == (5, count, 2)
    for mask, found in zip(masks, points.tolist(), strict=True):
        cells = [(int(y) // 10, int(x) // 10) for x, y in found]
        assert cells == inner_by_loops(mask, count, depth)


def test_without_masks_or_points_there_is_nothing_to_ask() -> None:
    assert len(inner_points(torch.zeros(0, 4, 4, dtype=torch.bool), size=SIZE, count=3, depth=0.5)) == 0
    assert len(inner_points(torch.ones(2, 4, 4, dtype=torch.bool), size=SIZE, count=0, depth=0.5)) == 0


def test_cells_are_covered_by_accepted_masks_alone() -> None:
    decoded = decoded_of(
        (mask_of(slice(0, 6), slice(0, 9)), 0.9, True), (mask_of(slice(6, 12), slice(0, 16)), 0.9, False)
    )
    expected = torch.ones(6, 8, dtype=torch.bool)
    expected[:3, :4] = False
    expected[:3, 4] = False  # half of it is covered
    assert torch.equal(uncovered_cells(decoded, cells=(6, 8)), expected)


def test_refused_masks_are_free_and_differ_and_the_surest_comes_first() -> None:
    first, twin = mask_of(slice(0, 5), slice(0, 6)), mask_of(slice(0, 5), slice(0, 7))
    covered, other = mask_of(slice(6, 12), slice(0, 8)), mask_of(slice(0, 4), slice(10, 16))
    empty = torch.zeros_like(first)
    decoded = decoded_of(
        (twin, 0.4, False),
        (mask_of(slice(6, 12), slice(0, 16)), 0.9, True),
        (other, 0.6, False),
        (covered, 0.65, False),
        (first, 0.5, False),
        (empty, 0.69, False),
    )
    found = refused_masks(decoded, overlap=0.7)
    assert len(found) == 2
    assert torch.equal(found[0], other)
    assert torch.equal(found[1], first)


def test_masks_are_kept_coarse_and_none_gets_lost() -> None:
    logits = torch.full((1, 2, 256, 192), -1.0)
    logits[0, 0, 100, 50] = 1.0
    decoded = DecodedMasks.of(logits, predicted_iou=torch.zeros(1, 2), accepted=torch.zeros(1, 2, dtype=torch.bool))
    assert decoded.masks.shape == (1, 2, 64, 64)
    assert torch.nonzero(decoded.masks).tolist() == [[0, 0, 25, 16]]


class ShySam:
    """Answers a point with a disc around it that is refused, and points together with one that is accepted."""

    def __init__(self) -> None:
        self.record, self.device = record("shy-sam", input_size=64), torch.device("cpu")
        self.asked: list[Tensor] = []

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        return tuple(ImageEmbedding((image,), SIZE, SIZE) for image in images)

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        self.asked += points
        return tuple(self._discs(places) for places in points)

    def _discs(self, points: Tensor) -> MaskProposals:
        rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
        centres = points.mean(1)[:, :, None, None]  # (n, 2, 1, 1)
        logits = 20 * (6 - torch.hypot(columns - centres[:, 0], rows - centres[:, 1]))  # (n, h, w)
        sure = torch.full((len(points), 1), 0.9 if points.shape[1] > 1 else 0.5)
        return MaskProposals(logits[:, None], sure, SIZE)


def ask(values: dict[str, int], *, image_crops: int = 1) -> tuple[ShySam, int]:
    sam, settings = ShySam(), LabelSettings(point_sampling="embedding", **values)
    features = torch.randn(5, 12, 16, generator=torch.Generator().manual_seed(3))
    (embedding,) = sam.embed([torch.zeros(1, 3, *SIZE)])
    crop = ImageCrop.whole(embedding, features=features)
    found = AutomaticMaskGenerator(sam, settings).masks_on([[crop]] * image_crops)
    assert all(one == found[0] for one in found)
    return sam, len(found[0])


def test_what_is_refused_is_asked_again_with_several_points() -> None:
    sam, masks = ask({"sampling_clusters": 4, "sampling_uncovered": 3, "reprompt_points": 2})
    assert [points.shape[1] for points in sam.asked] == [1, 1, 2]
    assert [len(points) for points in sam.asked[:2]] == [4, 3]
    assert masks > 0


@pytest.mark.parametrize("values", [{"reprompt_points": 0}, {"reprompt_points": 0, "sampling_uncovered": 0}])
def test_steps_may_be_left_out(values: dict[str, int]) -> None:
    sam, masks = ask({"sampling_clusters": 4, **values})
    assert sum(len(points) for points in sam.asked) == 4 + (32 if len(values) == 1 else 0)
    assert masks == 0


@pytest.mark.parametrize("budget", [1, 5, 9, 12])
def test_no_more_is_asked_than_the_budget_allows(budget: int) -> None:
    sam, _ = ask({"sampling_clusters": 6, "sampling_uncovered": 4, "sampling_budget": budget})
    assert sum(len(points) for points in sam.asked) == budget


def test_crops_go_together_in_every_step() -> None:
    sam, _ = ask({"sampling_clusters": 4, "sampling_uncovered": 3}, image_crops=2)
    assert [len(points) for points in sam.asked[:4]] == [4, 4, 3, 3]
