"""Where to ask the mask proposer for masks of everything: points of a grid, or one in every cluster of features."""

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
        (side * side, 2) float32 as x, y in pixels of the image, not rounded, as Segment Anything has them.
    """
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side  # (side,)
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([columns * size[1], rows * size[0]], dim=-1).flatten(0, 1)  # (side * side, 2)
    return points.float()


def feature_points(
    features: Tensor, *, size: tuple[int, int], clusters: int, place: float, free: Tensor | None = None
) -> Tensor:
    """One point in every cluster of patch features.

    Patches are clustered by feature and place (k-means with a deterministic start), which parts large regions into
    several clusters and leaves a small thing one of its own; a cluster's point is the patch nearest to its centre.
    Source: docs/method.md 1.2 step 3 [chosen].

    Args:
        features: (D, rows, columns) of one image.
        size: (height, width) in pixels of the image that the features cover.
        clusters: how many at most, 0 and more.
        place: how much a distance of the whole image counts against two unlike features, 0 and more.
        free: (rows, columns) bool, the patches that take part; without it all do.

    Returns:
        (n, 2) float32 as x, y in pixels of the image; n is `clusters`, or fewer where there are not as many patches
        that differ.
    """
    rows, columns = features.shape[1:]
    cells = torch.arange(rows * columns) if free is None else torch.nonzero(free.flatten().cpu())[:, 0]  # (n,)
    vectors = _vectors(features, place=place)[cells]  # (n, D + 2)
    chosen = cells[middle_members(vectors, clusters=clusters)]
    return pixels_of(chosen // columns, chosen % columns, cells=(rows, columns), size=size)


def middle_members(vectors: Tensor, *, clusters: int) -> Tensor:
    """Cluster vectors and take of each cluster the member nearest to its mean.

    Args:
        vectors: (n, d).
        clusters: how many at most; there are never more than vectors that differ.

    Returns:
        (k,) positions, all different.
    """
    if not min(clusters, len(vectors)):
        return torch.zeros(0, dtype=torch.int64)
    squares = vectors.square().sum(1)
    centres = vectors[_spread(vectors, squares, count=min(clusters, len(vectors)))]
    for _ in range(_ROUNDS):
        owners = _squared_distances(vectors, squares, centres).argmin(1)
        counts = torch.bincount(owners, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, owners, vectors)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    distances = _squared_distances(vectors, squares, centres)  # (n, k)
    own = distances.argmin(1)[:, None] == torch.arange(len(centres))
    members = torch.where(own, distances, torch.inf).argmin(0)
    return members[own.any(0)]


def pixels_of(rows: Tensor, columns: Tensor, *, cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The pixels in the middle of cells of a map that covers an image.

    Args:
        rows, columns: (...) integers, which cells.
        cells: (rows, columns) of the map.
        size: (height, width) of the image in pixels.

    Returns:
        (..., 2) float32 as x, y, on whole pixels.
    """
    x = (columns.double() + 0.5) * size[1] / cells[1]
    y = (rows.double() + 0.5) * size[0] / cells[0]
    return torch.stack([x, y], dim=-1).floor().float()


def _vectors(features: Tensor, *, place: float) -> Tensor:
    """Feature and place (n, D + 2) of each patch: unit features without their mean, places within [0, place]."""
    rows, columns = features.shape[1:]
    values = features.detach().float().cpu().flatten(1).T  # (n, D)
    values = functional.normalize(values - values.mean(0), dim=1)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([row, column], dim=-1).flatten(0, 1).float() / max(rows, columns)  # (n, 2)
    return torch.cat([values, place * places], dim=1)


def _spread(vectors: Tensor, squares: Tensor, *, count: int) -> Tensor:
    """Choose vectors far from one another: first the one nearest to the mean, then always the one farthest from all."""
    chosen = [int(_squared_distances(vectors, squares, vectors.mean(0, keepdim=True))[:, 0].argmin())]
    nearest = _squared_distances(vectors, squares, vectors[chosen])[:, 0]
    for _ in range(count - 1):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, _squared_distances(vectors, squares, vectors[chosen[-1:]])[:, 0])
    return torch.tensor(chosen)


def _squared_distances(vectors: Tensor, squares: Tensor, others: Tensor) -> Tensor:
    """Squared distances (n, k) of vectors with these squared lengths, by one product of matrices."""
    return (squares[:, None] + others.square().sum(1) - 2 * (vectors @ others.T)).clamp(min=0)
