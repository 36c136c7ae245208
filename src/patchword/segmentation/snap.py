"""Snapping: regions of a segmentation take the edges of a mask generator's masks.

The mask generator is asked at points inside every connected region. A mask goes to the class with the largest summed
probability inside it, among the classes that are the best anywhere, and is accepted when that class has at least
`agreement` of their sum. Accepted masks are painted from the largest to the smallest; what none covers stays as it was.
Source: [chosen].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import SnapSettings
from patchword.data.components import connected_components
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import longest_side_size
from patchword.models.protocols import MaskGenerator, MaskProposals
from patchword.models.sam import box_nms, boxes_of, inner_points
from patchword.segmentation.pixels import PixelClasses, PostprocessConfig, assign_pixels, class_shares
from patchword.segmentation.scores import PixelScores, at_size


@dataclass(frozen=True, eq=False)
class CoarseShares:
    """What classes are worth on a coarse grid over an image, on which regions are found and masks are compared.

    Attributes:
        indices: (rows, columns) the best class of every cell.
        classes: (k,) int64, the classes that are the best anywhere.
        shares: (k, rows, columns) their probabilities.
    """

    indices: NDArray[np.int64]
    classes: Tensor
    shares: Tensor

    @classmethod
    def of(cls, scores: PixelScores, *, decision: PostprocessConfig, cells: int) -> CoarseShares:
        """Of scores at any pixel, on a grid whose longer side has so many cells."""
        grid = at_size(scores, longest_side_size(scores.size, target=min(cells, max(scores.size))))
        indices = assign_pixels(grid, decision=decision).indices.astype(np.int64)
        classes = np.unique(indices)
        shares = class_shares(
            grid, class_of=decision.class_of, classes=classes.tolist(), temperature=decision.temperature
        )
        return cls(indices, torch.from_numpy(classes), shares)


@dataclass(frozen=True)
class Accepted:
    """Masks that have found a class.

    Attributes:
        logits: (n, h', w') over the whole image, above 0 = inside.
        classes: (n,) int64.
        confidence: (n,) mean probability of the mask's class inside it.
        areas: (n,) cells inside.
        boxes: (n, 4) around them, in cells.
        predicted_iou: (n,) the mask generator's own estimate.
    """

    logits: Tensor
    classes: Tensor
    confidence: Tensor
    areas: Tensor
    boxes: Tensor
    predicted_iou: Tensor

    def take(self, positions: Tensor) -> Accepted:
        """Some of them, in a certain order."""
        return Accepted(*(getattr(self, name)[positions] for name in self.__dataclass_fields__))

    @classmethod
    def together(cls, parts: Sequence[Accepted]) -> Accepted:
        """Those of several batches."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def snap(
    found: PixelClasses,
    *,
    coarse: CoarseShares,
    image: Tensor,
    mask_generator: MaskGenerator | None,
    settings: SnapSettings,
) -> PixelClasses:
    """Let the regions of a segmentation take the edges of masks.

    Args:
        found: a class for every pixel.
        coarse: what classes are worth on a coarse grid over the image.
        image: (1, 3, h, w), RGB from 0 to 1.
        mask_generator: draws the masks.
        settings: points, what makes a mask acceptable.

    Returns:
        classes, and confidences: a pixel that keeps its class keeps its confidence; one that takes another has the
        mask's, which is the mean probability of that class inside.
    """
    if mask_generator is None:
        raise PatchwordError("refine=sam needs a SAM (--mask-generator, mask_generator= in Python)")
    points = region_points(coarse.indices, size=(image.shape[2], image.shape[3]), settings=settings)  # (n, 1, 2)
    if not len(points):
        return found
    embeddings = mask_generator.embed([image])

    def some(start: int, stop: int) -> Accepted:
        (proposals,) = mask_generator.masks_at(embeddings, [points[start:stop]])
        return accept(proposals, coarse=coarse, settings=settings)

    parts = Batches().run(some, count=len(points), size=settings.points_per_batch, what="masks")
    accepted = Accepted.together(parts)
    accepted = accepted.take(box_nms(accepted.boxes, scores=accepted.predicted_iou, thresh=settings.box_nms_thresh))
    return _rasterize(found, accepted.take(accepted.areas.argsort(descending=True, stable=True)))


def region_points(indices: NDArray[np.int64], *, size: tuple[int, int], settings: SnapSettings) -> Tensor:
    """Points inside the connected regions of a segmentation, those of the largest regions first.

    Args:
        indices: (rows, columns) a class for every cell of a grid over the image.
        size: (height, width) of the image in pixels.
        settings: `points`, `depth`, `minimum_area`, `maximum_prompts`.

    Returns:
        (n, 1, 2) x, y in pixels of the image, all different.
    """
    pieces = connected_components(indices)
    order = np.argsort(-pieces.areas, kind="stable")[: settings.maximum_prompts]
    wanted = order[pieces.areas[order] >= settings.minimum_area * indices.size]
    regions = torch.from_numpy(pieces.labels == wanted[:, None, None] + 1)  # (n, rows, columns)
    points = inner_points(regions, size=size, count=settings.points, depth=settings.depth).reshape(-1, 2)
    different = dict.fromkeys(map(tuple, points.tolist()))  # points repeat in a region of fewer cells
    return torch.tensor(list(different)[: settings.maximum_prompts]).reshape(-1, 1, 2)


def accept(proposals: MaskProposals, *, coarse: CoarseShares, settings: SnapSettings) -> Accepted:
    """Give masks their classes, and keep those that are sure, large enough and mostly of one class.

    Args:
        proposals: (n, m) masks of one image.
        coarse: what classes are worth on a grid over the image.
        settings: `pred_iou_thresh`, `minimum_area`, `agreement`.

    Returns:
        those that are kept, one after the other.
    """
    sure = proposals.predicted_iou.clamp(0, 1)
    kept = sure >= settings.pred_iou_thresh  # (n, m)
    logits, sure = proposals.logits[kept].float(), sure[kept]
    size = (coarse.indices.shape[0], coarse.indices.shape[1])
    masks = functional.interpolate(logits[:, None], size, mode="bilinear")[:, 0] > 0  # (k, rows, columns)
    shares = coarse.shares.to(masks.device).flatten(1).T  # (rows * columns, classes)
    sums = masks.flatten(1).float() @ shares  # (k, classes)
    most, winner = sums.max(dim=1)
    areas = masks.sum((1, 2))
    large = areas >= max(1, settings.minimum_area * coarse.indices.size)
    good = large & (most >= settings.agreement * sums.sum(dim=1))
    classes = coarse.classes.to(winner.device)[winner]
    return Accepted(logits, classes, most / areas.clamp(min=1), areas, boxes_of(masks), sure).take(good.nonzero()[:, 0])


def _rasterize(found: PixelClasses, accepted: Accepted) -> PixelClasses:
    indices, confidence = found.indices.copy(), found.confidence.copy()
    size = (indices.shape[0], indices.shape[1])
    for position, (owner, own) in enumerate(zip(accepted.classes.tolist(), accepted.confidence.tolist(), strict=True)):
        logits = accepted.logits[position : position + 1]  # one mask of full size at a time, for memory
        inside = MaskProposals(logits[:, None], logits.new_zeros(1, 1), size).upsample(logits)[0].cpu().numpy()
        indices[inside] = owner
        confidence[inside] = np.where(found.indices[inside] == owner, found.confidence[inside], own)
    return PixelClasses(indices, confidence)
