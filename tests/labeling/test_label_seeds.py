"""Points for masks of everything: a grid, and one in the middle of every cluster of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from patchword.labeling.point_sampling import feature_points, grid_points, middle_members
from patchword.models.sam import pixels_of


def members_by_loops(vectors: np.ndarray, clusters: int) -> list[set[int]]:
    """k-means and medoids, one vector after the other; of each cluster all members that are equally near its mean."""

    def nearest(vector: np.ndarray, others: list[np.ndarray]) -> int:
        return int(np.argmin([((vector - other) ** 2).sum() for other in others]))

    chosen = [nearest(vectors.mean(0), list(vectors))]
    while len(chosen) < min(clusters, len(vectors)):
        distances = [min(((vector - vectors[other]) ** 2).sum() for other in chosen) for vector in vectors]
        chosen.append(int(np.argmax(distances)))
    centres = [vectors[position] for position in chosen]
    for _ in range(8):
        owners = [nearest(vector, centres) for vector in vectors]
        for number in range(len(centres)):
            own = [vector for vector, owner in zip(vectors, owners, strict=True) if owner == number]
            if own:
                centres[number] = np.mean(own, axis=0)
    owners = [nearest(vector, centres) for vector in vectors]
    members = []
    for number, centre in enumerate(centres):
        own = [position for position, owner in enumerate(owners) if owner == number]
        if own:
            distances = {position: ((vectors[position] - centre) ** 2).sum() for position in own}
            members.append({position for position in own if distances[position] <= min(distances.values()) + 1e-9})
    return members


def features_of(regions: np.ndarray) -> Tensor:
    """One direction a region: (D, rows, columns)."""
    return torch.nn.functional.one_hot(torch.from_numpy(regions)).permute(2, 0, 1).float()


def test_grid_points_are_the_centres_of_equal_cells() -> None:
    points = grid_points((40, 80), side=4)
    assert points.tolist() == [[x, y] for y in (5.0, 15.0, 25.0, 35.0) for x in (10.0, 30.0, 50.0, 70.0)]


def test_grid_points_lie_in_images_smaller_than_the_grid() -> None:
    points = grid_points((1, 3), side=8)
    assert points[:8, 0].tolist() == [0.1875, 0.5625, 0.9375, 1.3125, 1.6875, 2.0625, 2.4375, 2.8125]
    assert points[::8, 1].tolist() == [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375]


def test_pixels_of_cells_are_their_middles() -> None:
    points = pixels_of(torch.tensor([0, 3]), torch.tensor([1, 2]), cells=(4, 3), size=(40, 15))
    assert points.tolist() == [[7.0, 5.0], [12.0, 35.0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clusters", [1, 4, 11, 100])
def test_middle_members_are_those_of_loops(seed: int, clusters: int) -> None:
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found, expected = middle_members(vectors, clusters=clusters).tolist(), members_by_loops(vectors.numpy(), clusters)
    assert len(found) == len(expected)
    assert all(position in nearest for position, nearest in zip(found, expected, strict=True))


def test_vectors_that_do_not_differ_have_one_middle() -> None:
    assert len(middle_members(torch.ones(7, 3), clusters=5)) == 1
    assert len(middle_members(torch.ones(7, 3), clusters=0)) == 0
    assert len(middle_members(torch.ones(0, 3), clusters=5)) == 0


def test_every_region_gets_a_point_inside_it() -> None:
    regions = np.zeros((12, 16), dtype=np.int64)
    regions[2:7, 3:8] = 1
    regions[9, 13] = 2  # a single patch
    points = feature_points(features_of(regions), size=(120, 160), clusters=3, place=0.1)
    cells = [(int(y) // 10, int(x) // 10) for x, y in points.tolist()]
    assert sorted(int(regions[cell]) for cell in cells) == [0, 1, 2]
    assert (4, 5) in cells  # its middle


def test_place_parts_a_large_region() -> None:
    points = feature_points(features_of(np.zeros((16, 16), dtype=np.int64)), size=(16, 16), clusters=4, place=1.0)
    assert len({(int(y) // 8, int(x) // 8) for x, y in points.tolist()}) == 4  # one in each quarter


def test_only_free_patches_are_asked() -> None:
    features = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    free = torch.zeros(6, 8, dtype=torch.bool)
    free[1:4, 2:7] = True
    points = feature_points(features, size=(60, 80), clusters=9, place=1.0, free=free)
    assert len(points) == 9
    assert all(free[int(y) // 10, int(x) // 10] for x, y in points.tolist())
    assert len(feature_points(features, size=(60, 80), clusters=99, place=1.0, free=free)) == 15
    assert feature_points(features, size=(60, 80), clusters=9, place=1.0, free=free & False).shape == (0, 2)


@pytest.mark.parametrize("clusters", [1, 5, 1000])
def test_points_are_the_same_every_time_and_lie_inside(clusters: int) -> None:
    features = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(1))
    first, second = (feature_points(features, size=(33, 21), clusters=clusters, place=0.5) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == min(clusters, 35)
    assert (first >= 0).all()
    assert (first[:, 0] < 21).all()
    assert (first[:, 1] < 33).all()
    assert len(set(map(tuple, first.tolist()))) == len(first)
