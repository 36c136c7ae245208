"""Where to ask the mask proposer for masks of everything: points of a grid, or one inside every cluster of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ROUNDS = 8  # of Lloyd's algorithm; on maps of a few thousand patches the clusters hardly change after five


def grid_points(size: tuple[int, int], *, side: int) -> Tensor:
    """The centres of side x side equal cells of an image, row by row.

    Args:
        size: (height, width) in pixels.
        side: points along each side, at least 1.

    Returns:
        (side * side, 2) float32 as x, y in pixels of the image, on whole pixels.
    """
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side  # (side,)
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([columns * size[1], rows * size[0]], dim=-1).flatten(0, 1)  # (side * side, 2)
    return points.floor().float()


def feature_points(features: Tensor, *, size: tuple[int, int], clusters: int, place: float) -> Tensor:
    """One point inside every connected piece of every cluster of patch features.

    Patches are clustered by feature and place (k-means with a deterministic start), which parts large regions into
    several clusters and leaves a small thing one of its own; a piece's point is its innermost patch. Pieces are ordered
    from the largest to the smallest. Source: docs/method.md 1.2 step 3 [chosen].

    Args:
        features: (D, rows, columns) of one image.
        size: (height, width) in pixels of the image that the features cover.
        clusters: how many, at least 1; there are never more than patches.
        place: how much a distance of the whole image counts against two unlike features, 0 and more.

    Returns:
        (n, 2) float32 as x, y in pixels of the image; n is at least the number of clusters that differ.
    """
    pieces = connected_pieces(cluster(features, clusters=clusters, place=place))
    rows, columns = pieces.shape
    depth = _depth(pieces)
    sizes = torch.bincount(pieces.flatten())
    # The innermost patch of each piece; of equally deep ones the first in reading order.
    order = torch.argsort(depth.flatten(), descending=True, stable=True)
    owners = pieces.flatten()[order]
    first = torch.full((len(sizes),), len(owners))
    first.scatter_reduce_(0, owners, torch.arange(len(owners)), reduce="amin")
    cells = order[first[torch.argsort(sizes, descending=True, stable=True)]]
    points = torch.stack(
        [
            ((cells % columns).double() + 0.5) * size[1] / columns,
            ((cells // columns).double() + 0.5) * size[0] / rows,
        ],
        dim=-1,
    )
    return points.floor().float()


def cluster(features: Tensor, *, clusters: int, place: float) -> Tensor:
    """Group the patches of an image by feature and place.

    Args:
        features: (D, rows, columns).
        clusters: how many at most.
        place: weight of the place, as in `feature_points`.

    Returns:
        (rows, columns) int64, the cluster of every patch.
    """
    rows, columns = features.shape[1:]
    vectors = features.detach().float().cpu().flatten(1).T  # (n, D)
    vectors = functional.normalize(vectors - vectors.mean(0), dim=1)
    side = max(rows, columns)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([row, column], dim=-1).flatten(0, 1).float() / side  # (n, 2)
    points = torch.cat([vectors, place * places], dim=1)  # (n, D + 2)
    centres = points[_spread(points, count=min(clusters, len(points)))]
    owners = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(_ROUNDS):
        owners = torch.cdist(points, centres).argmin(1)
        counts = torch.bincount(owners, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return owners.reshape(rows, columns)


def _spread(points: Tensor, *, count: int) -> Tensor:
    """Choose points far from one another: first the one nearest to the mean, then always the one farthest from all."""
    chosen = [int((points - points.mean(0)).square().sum(1).argmin())]
    nearest = (points - points[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def connected_pieces(groups: Tensor) -> Tensor:
    """Number the connected pieces of equal cells, by the four neighbours.

    Args:
        groups: (rows, columns) integers.

    Returns:
        (rows, columns) int64, numbered from 0 in reading order of their first cell.
    """
    rows, columns = groups.shape
    numbers = torch.arange(rows * columns).reshape(rows, columns)
    across, down = groups[:, 1:] == groups[:, :-1], groups[1:] == groups[:-1]
    while True:
        before, numbers = numbers, numbers.clone()
        for same, one, other in (
            (across, (slice(None), slice(1, None)), (slice(None), slice(None, -1))),
            (down, (slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ):
            numbers[one] = torch.where(same, torch.minimum(numbers[one], before[other]), numbers[one])
            numbers[other] = torch.where(same, torch.minimum(numbers[other], before[one]), numbers[other])
        # A cell's number is a cell of its piece, whose own number is as low or lower: jumping shortens long ways.
        numbers = numbers.flatten()[numbers]
        if torch.equal(numbers, before):
            in_order: Tensor = torch.unique(numbers, return_inverse=True)[1]
            return in_order


def _depth(pieces: Tensor) -> Tensor:
    """How far inside its piece each cell lies: 1 at the border, growing by one a ring; the image's edge is a border."""
    depth = torch.zeros_like(pieces)
    inside = torch.ones_like(pieces, dtype=torch.bool)
    padded = functional.pad(pieces, (1, 1, 1, 1), value=-1)
    rows, columns = pieces.shape
    around = [
        padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns] == pieces
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    same = torch.stack(around).all(0)
    while bool(inside.any()):
        depth += inside
        ring = functional.pad(inside, (1, 1, 1, 1), value=False)
        neighbours = [
            ring[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
            for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0))
        ]
        inside = inside & same & torch.stack(neighbours).all(0)
    return depth
