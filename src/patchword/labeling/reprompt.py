"""Where to ask the mask proposer again once it has answered: what no mask covers, and what it was not sure of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from patchword.labeling.boxes import boxes_of, suppress
from patchword.labeling.decoded_masks import Drawn, Step
from patchword.labeling.point_sampling import feature_points, pixels_of
from patchword.labeling.settings import LabelSettings


def further_steps(features: Tensor | None, *, size: tuple[int, int], settings: LabelSettings) -> tuple[Step, ...]:
    """What to ask after the seeds, within the budget of decodes.

    First one point in every cluster of the patches that no accepted mask covers, then several points together in every
    mask that was refused. Source: docs/method.md 1.2 step 3 [chosen].

    Args:
        features: (D, rows, columns) patch features of the image; none for a grid, after which nothing is asked.
        size: (height, width) of the view in pixels.
        settings: `seed_budget`, `seed_rest`, `seed_place`, `seed_joint`, `seed_depth`, `box_overlap`.

    Returns:
        the steps, each from all masks before it to prompts (n, k, 2) as x, y in pixels of the view.
    """
    if features is None:
        return ()

    def uncovered(drawn: Drawn) -> Tensor:
        most = min(settings.seed_rest, settings.seed_budget - drawn.decodes)
        free = uncovered_cells(drawn, cells=(features.shape[1], features.shape[2]))
        return feature_points(features, size=size, clusters=most, place=settings.seed_place, free=free)[:, None]

    def refused(drawn: Drawn) -> Tensor:
        masks = refused_masks(drawn, overlap=settings.box_overlap)[: settings.seed_budget - drawn.decodes]
        return inner_points(masks, size=size, count=settings.seed_joint, depth=settings.seed_depth)

    return (uncovered, refused)


def uncovered_cells(drawn: Drawn, *, cells: tuple[int, int]) -> Tensor:
    """Cells of a map over the image that accepted masks cover by less than a half: (rows, columns) bool."""
    covered = drawn.masks[drawn.accepted].any(0)  # (h, w)
    shares: Tensor = functional.adaptive_avg_pool2d(covered[None].float(), cells)[0]
    return shares < 0.5


def refused_masks(drawn: Drawn, *, overlap: float) -> Tensor:
    """Masks that were refused and lie mostly where no accepted mask does, without repetitions, the surest first.

    Args:
        drawn: all masks so far.
        overlap: box IoU above which two masks are a repetition.

    Returns:
        (n, h, w) bool, on the map of `drawn`.
    """
    covered = drawn.masks[drawn.accepted].any(0)  # (h, w)
    masks, sure = drawn.masks[~drawn.accepted], drawn.predicted_iou[~drawn.accepted]
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
