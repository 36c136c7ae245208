"""Points for masks of everything: a grid or clusters of features, then where no mask is yet (docs/method.md 1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.label import LabelSettings
from patchword.labeling.clip_crops import cell_spans
from patchword.models.sam import box_nms, boxes_of, inner_points, pixels_of

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


_CELLS = 64  # a side of the coarse maps that say where to ask next; a point need not be finer


@dataclass(frozen=True)
class DecodedMasks:
    """All masks that have been decoded on a crop so far.

    Attributes:
        masks: (n, m, rows, columns) bool, several for each prompt, on a coarse map of the whole crop; a cell is inside
            where anything in it is, so that no mask gets lost.
        predicted_iou: (n, m) the model's own estimates.
        accepted: (n, m) bool, whether a mask is sure and stable enough.

    All are in main memory.
    """

    masks: Tensor
    predicted_iou: Tensor
    accepted: Tensor

    @classmethod
    def of(cls, logits: Tensor, *, predicted_iou: Tensor, accepted: Tensor) -> DecodedMasks:
        """The masks of logits (n, m, h', w')."""
        cells = (min(logits.shape[2], _CELLS), min(logits.shape[3], _CELLS))
        masks = _coarse(logits > 0, cells=cells)
        return cls(masks.cpu(), predicted_iou.cpu(), accepted.cpu())

    @classmethod
    def together(cls, parts: Sequence[DecodedMasks]) -> DecodedMasks:
        """Those of several batches of prompts on one crop."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def _coarse(masks: Tensor, *, cells: tuple[int, int]) -> Tensor:
    """Whether anything in each cell of a coarser map is inside masks (n, m, h, w): (n, m, rows, columns).

    As adaptive max pooling does, which Apple's GPUs have only where all cells are equal.
    """
    members = []
    for side, count in zip(masks.shape[2:], cells, strict=True):
        starts, stops = torch.tensor(cell_spans(side, count=count)).unbind(1)
        inside = torch.arange(int((stops - starts).max()))
        # (count, k) pixels of each cell; those of smaller cells repeat their last
        members.append(torch.minimum(starts[:, None] + inside, stops[:, None] - 1).to(masks.device))
    rows, columns = members
    return masks[:, :, rows].any(3)[..., columns].any(-1)


def sample_points(
    features: Tensor | None,
    *,
    size: tuple[int, int],
    decoded: Sequence[DecodedMasks] = (),
    number: int = 0,
    settings: LabelSettings,
) -> Tensor:
    """What to ask on a crop in a round, within the budget of decodes.

    First (0) a grid of points, or one point in every cluster of features; then, after points from features, one (1) in
    every cluster of the patches that no accepted mask covers, and (2) several points together in every mask that was
    refused. Source: docs/method.md 1.2 step 3 [chosen].

    Args:
        features: (D, rows, columns) patch features of the crop; none for a grid.
        size: (height, width) of the crop in pixels.
        decoded: all masks of the rounds before.
        number: of the round.

    Returns:
        prompts (n, k, 2) float32 as x, y in pixels of the crop; n may be 0.
    """
    if features is None:
        return grid_points(size, side=settings.points_per_side)[:, None]
    if number == 0:
        clusters = min(settings.sampling_clusters, settings.sampling_budget)
        return feature_points(features, size=size, clusters=clusters, place=settings.sampling_position)[:, None]
    if not decoded:
        return torch.zeros(0, 1, 2)
    so_far = DecodedMasks.together(decoded)
    left = settings.sampling_budget - len(so_far.masks)
    if number == 1:
        free = uncovered_cells(so_far, cells=(features.shape[1], features.shape[2]))
        most = min(settings.sampling_uncovered, left)
        points = feature_points(features, size=size, clusters=most, place=settings.sampling_position, free=free)
        return points[:, None]
    masks = refused_masks(so_far, overlap=settings.box_nms_thresh)[:left]
    return inner_points(masks, size=size, count=settings.reprompt_points, depth=settings.reprompt_depth)


def uncovered_cells(decoded: DecodedMasks, *, cells: tuple[int, int]) -> Tensor:
    """Cells of a map over the image that accepted masks cover by less than a half: (rows, columns) bool."""
    covered = decoded.masks[decoded.accepted].any(0)  # (h, w)
    shares: Tensor = functional.adaptive_avg_pool2d(covered[None].float(), cells)[0]
    return shares < 0.5


def refused_masks(decoded: DecodedMasks, *, overlap: float) -> Tensor:
    """Masks that were refused and lie mostly where no accepted mask does, without repetitions, the surest first.

    Args:
        decoded: all masks so far.
        overlap: box IoU above which two masks are a repetition.

    Returns:
        (n, h, w) bool, on the map of `decoded`.
    """
    covered = decoded.masks[decoded.accepted].any(0)  # (h, w)
    masks, sure = decoded.masks[~decoded.accepted], decoded.predicted_iou[~decoded.accepted]
    areas, shared = masks.sum((1, 2)), (masks & covered).sum((1, 2))
    free = 2 * shared < areas  # never so for an empty mask
    masks, sure = masks[free], sure[free]
    return masks[box_nms(boxes_of(masks), scores=sure, thresh=overlap)]
