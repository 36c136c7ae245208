"""Stitching of crops, evidence, and means over masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchword.config.label import LabelSettings
from patchword.labeling.clip_crops import (
    best_words,
    cell_shares,
    crop_boxes,
    narrow,
    pooled,
    relevance_maps,
    stitch,
    word_scores,
)
from patchword.models.text_embeddings import TextVectors


def naive_stitch(
    similarity: np.ndarray, boxes: np.ndarray, size: tuple[int, int], cells: tuple[int, int]
) -> np.ndarray:
    """Cell by cell, crop by crop."""
    result = np.zeros((similarity.shape[1], *cells))
    rows, columns = similarity.shape[2:]
    for row in range(cells[0]):
        for column in range(cells[1]):
            y, x = (row + 0.5) * size[0] / cells[0], (column + 0.5) * size[1] / cells[1]
            values = []
            for crop, (x0, y0, x1, y1) in zip(similarity, boxes, strict=True):
                if x0 <= x < x1 and y0 <= y < y1:
                    patch_y = y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows
                    patch_x = x0 + (np.arange(columns) + 0.5) * (x1 - x0) / columns
                    along = [[np.interp(x, patch_x, line) for line in channel] for channel in crop]
                    values.append([np.interp(y, patch_y, channel) for channel in along])
            result[:, row, column] = np.mean(values, axis=0)
    return result


@pytest.mark.parametrize("size", [(24, 24), (17, 31), (1, 1), (3, 50)])
def test_stitch_agrees_with_the_naive_way(size: tuple[int, int]) -> None:
    settings = LabelSettings()
    boxes = crop_boxes(size, settings=settings)
    similarity = torch.rand(len(boxes), 2, 3, 4, generator=torch.Generator().manual_seed(1))
    stitched = stitch(similarity, boxes=boxes, size=size, cells=(9, 12))
    expected = naive_stitch(similarity.numpy(), boxes.numpy(), size, (9, 12))
    np.testing.assert_allclose(stitched.numpy(), expected, atol=1e-5)


def test_a_cell_of_the_finest_grid_alone_is_its_patch() -> None:
    settings = LabelSettings(grids=(2,), overlap=0)
    boxes = crop_boxes((8, 8), settings=settings)
    similarity = torch.arange(16.0).reshape(4, 1, 2, 2)  # crops in reading order
    stitched = stitch(similarity, boxes=boxes, size=(8, 8), cells=(4, 4))
    expected = torch.tensor([[0.0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    torch.testing.assert_close(stitched[0], expected)


def test_evidence_removes_what_fires_for_every_class() -> None:
    common = torch.tensor([[5.0, 0.0], [0.0, 0.0]])
    maps = torch.stack([common + torch.tensor([[0.0, 1.0], [0.0, 0.0]]), common])
    found = relevance_maps(maps, background=torch.zeros(0, 2, 2))
    assert found.min() == 0
    assert found.max() == 1
    assert found[0].flatten().argmax() == 1  # not the cell where both fire
    torch.testing.assert_close(found[0, 0, 0], found[1, 0, 0])


def test_a_single_class_is_compared_with_the_background_words() -> None:
    maps = torch.tensor([[[0.9, 0.6]]])
    background = torch.tensor([[[0.9, 0.1]]])
    assert relevance_maps(maps, background=background).flatten().tolist() == [0.0, 1.0]
    assert relevance_maps(maps, background=background[:0]).flatten().tolist() == [1.0, 0.0]


def test_several_classes_are_not_compared_with_the_background_words() -> None:
    maps = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    first = relevance_maps(maps, background=torch.zeros(0, 2, 2))
    torch.testing.assert_close(first, relevance_maps(maps, background=torch.rand(2, 2, 2)))


def test_evidence_without_any_difference_is_one() -> None:
    assert (relevance_maps(torch.full((2, 3, 3), 0.3), background=torch.zeros(0, 3, 3)) == 1).all()


def test_means_weigh_cells_by_their_share() -> None:
    maps = torch.tensor([[[1.0, 0.0], [0.5, 0.25]], [[0.0, 2.0], [0.0, 0.0]]])
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2, :2] = True  # the first cell whole
    masks[1, :2, :3] = True  # and half of the second
    found = pooled(cell_shares(masks, grid=(2, 2)), maps)
    np.testing.assert_allclose(found.numpy(), [[1.0, 0.0], [4 / 6, 4 / 6], [0.0, 0.0]], atol=1e-6)


def test_mean_of_a_mask_coarser_than_the_map() -> None:
    maps = torch.arange(16.0).reshape(1, 4, 4)
    masks = torch.tensor([[[True, False], [False, True]]])
    expected = maps[0][[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 2, 3, 2, 3]].mean()
    torch.testing.assert_close(pooled(cell_shares(masks, grid=(4, 4)), maps)[0, 0], expected)


@pytest.mark.parametrize("size", [(37, 52), (5, 3), (60, 60), (1, 9)])
@pytest.mark.parametrize("grid", [(6, 6), (7, 11), (1, 1)])
def test_shares_are_those_of_adaptive_pooling(size: tuple[int, int], grid: tuple[int, int]) -> None:
    masks = torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) > 0.6
    expected = torch.nn.functional.adaptive_avg_pool2d(masks.float()[:, None], grid)[:, 0]
    found = cell_shares(masks, grid=grid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_mean_is_that_over_the_pixels_of_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 6, 6, generator=generator)
    mask = torch.rand(24, 24, generator=generator) > 0.5
    large = maps.repeat_interleave(4, 1).repeat_interleave(4, 2)
    expected = [float(one[mask].mean()) for one in large]
    assert pooled(cell_shares(mask[None], grid=(6, 6)), maps)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_best_word_speaks_for_its_class_and_background_words_for_themselves() -> None:
    text = TextVectors(torch.eye(4), torch.tensor([0, 0, 1, -1]), 2)
    assert best_words(torch.tensor([[0.1, 0.3, 0.2, 0.4]]), text=text)[0].tolist() == pytest.approx([0.3, 0.2, 0.4])
    vectors = torch.tensor([[0.6, 0.0, 0.8, 0.0]])
    assert word_scores(vectors, text=text)[0].tolist() == pytest.approx([0.6, 0.8, 0.0])


def test_narrow_keeps_words_of_kept_classes_and_background() -> None:
    words = torch.eye(6)
    text = TextVectors(words, torch.tensor([0, 0, 1, 2, 2, -1]), 3)
    narrowed = narrow(text, kept=(0, 2))
    assert narrowed.classes.tolist() == [0, 0, 1, 1, -1]
    assert narrowed.count == 2
    torch.testing.assert_close(narrowed.words, words[[0, 1, 3, 4, 5]])
