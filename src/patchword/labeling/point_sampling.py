"""Points for masks of everything: a grid or clusters of features, then where no mask is yet (docs/method.md 1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.label import LabelSettings
from patchword.labeling.decode_prompts import boxes_of, suppress
from patchword.labeling.localize import cell_spans

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


_CELLS = 64  # a side of the coarse maps that say where to ask next; a point need not be finer


@dataclass(frozen=True)
class DecodedMasks:
    """All masks that have been drawn on a view so far.

    Attributes:
        masks: (n, m, rows, columns) bool, several for each prompt, on a coarse map of the whole view; a cell is inside
            where anything in it is, so that no mask gets lost.
        predicted_iou: (n, m) the mask generator's own estimates.
        accepted: (n, m) bool, whether a mask is sure and stable enough.

    All are in main memory.
    """

    masks: Tensor
    predicted_iou: Tensor
    accepted: Tensor

    @property
    def decodes(self) -> int:
        """How many prompts have been answered."""
        return len(self.masks)

    @classmethod
    def of(cls, logits: Tensor, *, predicted_iou: Tensor, accepted: Tensor) -> DecodedMasks:
        """The masks of logits (n, m, h', w')."""
        cells = (min(logits.shape[2], _CELLS), min(logits.shape[3], _CELLS))
        masks = _coarse(logits > 0, cells=cells)
        return cls(masks.cpu(), predicted_iou.cpu(), accepted.cpu())

    @classmethod
    def together(cls, parts: Sequence[DecodedMasks]) -> DecodedMasks:
        """What several batches of prompts have drawn on one view."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def _coarse(masks: Tensor, *, cells: tuple[int, int]) -> Tensor:
    """Whether anything in each cell of a coarser map is inside masks (n, m, h, w): (n, m, rows, columns).

    As adaptive max pooling does, which Apple's GPUs have only where all cells are equal.
    """
    rows, columns = (
        _members(side, count=count).to(masks.device) for side, count in zip(masks.shape[2:], cells, strict=True)
    )
    return masks[:, :, rows].any(3)[..., columns].any(-1)


def _members(side: int, *, count: int) -> Tensor:
    """The pixels of each cell along one side, (count, k); those of smaller cells repeat their last."""
    spans = torch.tensor(cell_spans(side, count=count))
    starts, stops = spans[:, :1], spans[:, 1:]
    return torch.minimum(starts + torch.arange(int((stops - starts).max())), stops - 1)


Step = Callable[[DecodedMasks], Tensor]
"""From all masks so far to the prompts (n, k, 2) to ask next, in pixels of the view; n may be 0."""


def further_steps(features: Tensor | None, *, size: tuple[int, int], settings: LabelSettings) -> tuple[Step, ...]:
    """What to ask after the seeds, within the budget of decodes.

    First one point in every cluster of the patches that no accepted mask covers, then several points together in every
    mask that was refused. Source: docs/method.md 1.2 step 3 [chosen].

    Args:
        features: (D, rows, columns) patch features of the image; none for a grid, after which nothing is asked.
        size: (height, width) of the view in pixels.
        settings: `sampling_budget`, `sampling_uncovered`, `sampling_position`, `reprompt_points`,
            `reprompt_depth`, `box_nms_thresh`.

    Returns:
        the steps, each from all masks before it to prompts (n, k, 2) as x, y in pixels of the view.
    """
    if features is None:
        return ()

    def uncovered(decoded: DecodedMasks) -> Tensor:
        most = min(settings.sampling_uncovered, settings.sampling_budget - decoded.decodes)
        free = uncovered_cells(decoded, cells=(features.shape[1], features.shape[2]))
        return feature_points(features, size=size, clusters=most, place=settings.sampling_position, free=free)[:, None]

    def refused(decoded: DecodedMasks) -> Tensor:
        masks = refused_masks(decoded, overlap=settings.box_nms_thresh)[: settings.sampling_budget - decoded.decodes]
        return inner_points(masks, size=size, count=settings.reprompt_points, depth=settings.reprompt_depth)

    return (uncovered, refused)


def uncovered_cells(decoded: DecodedMasks, *, cells: tuple[int, int]) -> Tensor:
    """Cells of a map over the image that accepted masks cover by less than a half: (rows, columns) bool."""
    covered = decoded.masks[decoded.accepted].any(0)  # (h, w)
    shares: Tensor = functional.adaptive_avg_pool2d(covered[None].float(), cells)[0]
    return shares < 0.5


def refused_masks(decoded: DecodedMasks, *, overlap: float) -> Tensor:
    """Masks that were refused and lie mostly where no accepted mask does, without repetitions, the surest first.

    Args:
        drawn: all masks so far.
        overlap: box IoU above which two masks are a repetition.

    Returns:
        (n, h, w) bool, on the map of `drawn`.
    """
    covered = decoded.masks[decoded.accepted].any(0)  # (h, w)
    masks, sure = decoded.masks[~decoded.accepted], decoded.predicted_iou[~decoded.accepted]
    areas, shared = masks.sum((1, 2)), (masks & covered).sum((1, 2))
    free = 2 * shared < areas  # never so for an empty mask
    masks, sure = masks[free], sure[free]
    return masks[suppress(boxes_of(masks), scores=sure, overlap=overlap)]


def inner_points(masks: Tensor, *, size: tuple[int, int], count: int, depth: float) -> Tensor:
    """Points in the inner part of masks: the innermost, then always the one farthest from those before.

    How deep a cell lies is the number of rings between it and the mask's border; the image's edge is a border. Of
    equally good cells the first in reading order is taken.

    Args:
        masks: (n, h, w) bool over the whole image, none empty.
        size: (height, width) of the view in pixels.
        count: points a mask, 0 and more; they repeat in a mask of fewer cells.
        depth: how deep the inner part is, as a share of the mask's greatest depth, in [0, 1].

    Returns:
        (n, count, 2) float32 as x, y in pixels of the image; (0, 1, 2) where there is nothing to ask.
    """
    if not len(masks) or not count:
        return torch.zeros(0, 1, 2)
    columns = masks.shape[2]
    depths = depths_of(masks).flatten(1)  # (n, h * w)
    deepest = depths.amax(1, keepdim=True)
    inner = depths >= (depth * deepest).clamp(min=1)
    number = torch.arange(depths.shape[1])
    places = torch.stack([number // columns, number % columns], dim=1).float()  # (h * w, 2)
    chosen = [depths.argmax(1)]  # each (n,)
    nearest = torch.where(inner, torch.inf, -1.0)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (places - places[chosen[-1]][:, None]).square().sum(-1))
        chosen.append(nearest.argmax(1))
    positions = torch.stack(chosen, dim=1)  # (n, count)
    return pixels_of(positions // columns, positions % columns, cells=(masks.shape[1], columns), size=size)


def depths_of(masks: Tensor) -> Tensor:
    """How deep each cell of boolean masks (n, rows, columns) lies inside: 0 outside, 1 at the border, then by rings."""
    inside = masks.float()
    depths = torch.zeros_like(inside)
    while bool(inside.any()):
        depths += inside
        inside = -functional.max_pool2d(-functional.pad(inside, (1, 1, 1, 1)), kernel_size=3, stride=1)
    return depths
