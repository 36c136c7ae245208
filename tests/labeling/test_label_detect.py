"""Crops and the vote among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from patchword.config.label import LabelSettings
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import crop_boxes, crop_side, cut_crops, shrink, vote
from patchword.models.pixels import resize
from patchword.models.text_embeddings import TextVectors


def test_three_grids_with_half_overlap_give_35_crops() -> None:
    boxes = crop_boxes((120, 240), settings=LabelSettings())
    assert len(boxes) == 1 + 9 + 25
    assert boxes[0].tolist() == [0, 0, 240, 120]
    assert sorted({box[0] for box in boxes[1:10].tolist()}) == [0, 60, 120]  # half a crop of 120 apart
    assert sorted({box[1] for box in boxes[10:].tolist()}) == [0, 20, 40, 60, 80]  # half a crop of 40 apart


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    grids=st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True),
    overlap=st.floats(0, 0.9),
)
def test_each_grid_covers_every_pixel_without_duplicates(
    height: int, width: int, grids: list[int], overlap: float
) -> None:
    settings = LabelSettings(grids=tuple(grids), overlap=overlap, minimum_crops=1)
    boxes = crop_boxes((height, width), settings=settings)
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes)
    for grid in grids:
        one = LabelSettings(grids=(grid,), overlap=overlap, minimum_crops=1)
        covered = np.zeros((height, width), dtype=bool)
        for x0, y0, x1, y1 in crop_boxes((height, width), settings=one).tolist():
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert (x1 - x0, y1 - y0) == (-(-width // grid), -(-height // grid))
            covered[y0:y1, x0:x1] = True
        assert covered.all()


def test_tiny_and_long_images_have_crops() -> None:
    assert crop_boxes((1, 1), settings=LabelSettings()).tolist() == [[0, 0, 1, 1]]
    assert len(crop_boxes((200, 8000), settings=LabelSettings())) == 35
    with pytest.raises(PatchwordError, match="0 x 5"):
        crop_boxes((0, 5), settings=LabelSettings())


def test_crops_have_the_pixels_of_their_boxes() -> None:
    image = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0, 0, 4, 4], [4, 8, 8, 12], [2, 3, 6, 7]])
    crops = cut_crops(image, boxes, side=4)
    assert crops.shape == (3, 3, 4, 4)
    torch.testing.assert_close(crops[1], image[0, :, 8:12, 4:8])
    torch.testing.assert_close(crops[2], image[0, :, 3:7, 2:6])


def test_shrink_reduces_only_long_sides() -> None:
    image = torch.full((1, 3, 200, 30), 0.25)
    reduced = shrink(image, limit=48)
    assert reduced.shape == (1, 3, 48, 30)
    torch.testing.assert_close(reduced, torch.full((1, 3, 48, 30), 0.25))
    assert shrink(image, limit=200) is image


def test_crop_side() -> None:
    assert crop_side(LabelSettings(), input_size=224, patch_size=16) == 224
    assert crop_side(LabelSettings(), input_size=384, patch_size=14) == 378
    assert crop_side(LabelSettings(crop_size=64), input_size=224, patch_size=16) == 64
    with pytest.raises(PatchwordError, match=r"crop_size.*65.*16"):
        crop_side(LabelSettings(crop_size=65), input_size=224, patch_size=16)


WORDS = torch.tensor([0, 0, 1, 2, -1])  # two words of class 0, a background word


def similarities(winners: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(winners), len(WORDS)).float()


@pytest.mark.parametrize(
    ("winners", "minimum_crops", "minimum_share", "votes", "background", "needed", "kept"),
    [
        ([0, 1, 2, 3, 3], 2, 0.04, (2, 1, 2), 0, 2, (0, 2)),  # synonyms add up
        ([4, 4, 4, 4, 2], 2, 0.04, (0, 1, 0), 4, 2, ()),  # background takes part and is dropped
        ([2], 2, 0.04, (0, 1, 0), 0, 2, ()),  # a single crop cannot win twice
        ([2], 1, 0.04, (0, 1, 0), 0, 1, (1,)),
        ([0] * 7 + [2] * 3, 2, 0.35, (7, 3, 0), 0, 4, (0,)),  # 35 % of 10 is more than 2, rounded up
        ([0] * 7 + [2] * 3, 2, 0.3, (7, 3, 0), 0, 3, (0, 1)),  # exactly the share is enough
        ([0] * 93 + [2] * 7, 2, 0.07, (93, 7, 0), 0, 7, (0, 1)),  # though 0.07 * 100 is a little above 7 in floats
    ],
)
def test_vote(
    winners: list[int],
    minimum_crops: int,
    minimum_share: float,
    votes: tuple[int, ...],
    background: int,
    needed: int,
    kept: tuple[int, ...],
) -> None:
    settings = LabelSettings(minimum_crops=minimum_crops, minimum_share=minimum_share)
    found = vote(similarities(winners), text=TextVectors(torch.eye(len(WORDS)), WORDS, 3), settings=settings)
    assert (found.votes, found.background_votes, found.needed, found.kept) == (votes, background, needed, kept)
    assert found.crops == len(winners)


def test_entropy_is_the_mean_over_the_crops() -> None:
    """Sure in one crop, torn between two of four words in the other."""
    text = TextVectors(torch.eye(4), torch.tensor([0, 1, 2, -1]), 3)
    seen = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert vote(seen, text=text, settings=LabelSettings()).entropy == pytest.approx((0 + 0.5) / 2, abs=1e-6)


def test_crops_of_one_size_together_are_what_each_is_alone() -> None:
    image = torch.rand(1, 3, 50, 71, generator=torch.Generator().manual_seed(0))
    boxes = crop_boxes((50, 71), settings=LabelSettings(grids=(3, 1, 2)))
    crops = cut_crops(image, boxes, side=16)
    for crop, (x0, y0, x1, y1) in zip(crops, boxes.tolist(), strict=True):
        assert torch.equal(crop, resize(image[..., y0:y1, x0:x1], size=(16, 16))[0])
