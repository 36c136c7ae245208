"""Points for masks of everything: a grid, and one inside every piece of every cluster of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchword.label.seeds import cluster, connected_pieces, feature_points, grid_points


def pieces_by_flooding(groups: np.ndarray) -> np.ndarray:
    """Connected pieces, one flood after the other, in reading order."""
    numbers = np.full(groups.shape, -1)
    found = 0
    for start in np.ndindex(*groups.shape):
        if numbers[start] >= 0:
            continue
        waiting = [start]
        while waiting:
            row, column = waiting.pop()
            if numbers[row, column] >= 0 or groups[row, column] != groups[start]:
                continue
            numbers[row, column] = found
            around = ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1))
            waiting += [(r, c) for r, c in around if 0 <= r < groups.shape[0] and 0 <= c < groups.shape[1]]
        found += 1
    return numbers


def test_grid_points_are_the_centres_of_equal_cells() -> None:
    points = grid_points((40, 80), side=4)
    assert points.tolist() == [[x, y] for y in (5.0, 15.0, 25.0, 35.0) for x in (10.0, 30.0, 50.0, 70.0)]


def test_grid_points_lie_in_images_smaller_than_the_grid() -> None:
    points = grid_points((1, 3), side=8)
    assert points[:, 0].min() >= 0
    assert points[:, 0].max() <= 2
    assert (points[:, 1] == 0).all()


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_connected_pieces_are_those_of_a_flood(groups: np.ndarray) -> None:
    found = connected_pieces(torch.from_numpy(groups)).numpy()
    np.testing.assert_array_equal(found, pieces_by_flooding(groups))


def test_a_snake_is_one_piece() -> None:
    snake = torch.zeros(9, 9, dtype=torch.int64)
    for row in range(1, 9, 2):
        snake[row, slice(0, 8) if row % 4 == 1 else slice(1, 9)] = 1
    assert int((connected_pieces(snake) == 0).sum()) == int((snake == 0).sum())


def features_of(regions: np.ndarray) -> torch.Tensor:
    """One direction a region: (D, rows, columns)."""
    return torch.nn.functional.one_hot(torch.from_numpy(regions)).permute(2, 0, 1).float()


def test_every_region_gets_a_point_inside_it() -> None:
    regions = np.zeros((12, 16), dtype=np.int64)
    regions[2:7, 3:8] = 1
    regions[9, 13] = 2  # a single patch
    points = feature_points(features_of(regions), size=(120, 160), clusters=3, place=0.0)
    cells = [(int(y) // 10, int(x) // 10) for x, y in points.tolist()]
    assert [int(regions[cell]) for cell in cells] == [0, 1, 2]  # the largest piece first
    assert cells[1] == (4, 5)  # its middle


def test_two_pieces_of_one_cluster_get_a_point_each() -> None:
    regions = np.zeros((8, 8), dtype=np.int64)
    regions[1:3, 1:3] = regions[5:7, 5:7] = 1
    points = feature_points(features_of(regions), size=(8, 8), clusters=2, place=0.0)
    cells = {(int(y), int(x)) for x, y in points.tolist()}
    assert len(cells) == 3
    assert {int(regions[cell]) for cell in cells} == {0, 1}


def test_place_parts_a_large_region() -> None:
    regions = np.zeros((16, 16), dtype=np.int64)
    owners = cluster(features_of(regions), clusters=4, place=1.0)
    sizes = torch.bincount(owners.flatten())
    assert len(sizes) == 4
    assert sizes.min() >= 30  # about a quarter each


@pytest.mark.parametrize("clusters", [1, 5, 1000])
def test_points_are_the_same_every_time_and_lie_inside(clusters: int) -> None:
    features = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(1))
    first, second = (feature_points(features, size=(33, 21), clusters=clusters, place=0.5) for _ in range(2))
    assert torch.equal(first, second)
    assert (first >= 0).all()
    assert (first[:, 0] < 21).all()
    assert (first[:, 1] < 33).all()
    assert len(first) <= 35
