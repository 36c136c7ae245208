"""Snapping: regions of a segmentation take the edges of a mask proposer's masks.

The mask proposer is asked at points inside every connected region. A mask goes to the class with the largest summed
confidence inside it, and is accepted when that class has at least `agreement` of the sum. Accepted masks are painted
from the largest to the smallest; what none covers stays as it was. Source: [chosen].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patchword.components import connected_components
from patchword.label.again import inner_points
from patchword.label.boxes import boxes_of, suppress
from patchword.label.decode import decode
from patchword.models.batching import Batches
from patchword.models.protocols import MaskProposals, MaskProposer
from patchword.segment.pixels import PixelClasses
from patchword.segment.refine.settings import SnapSettings


@dataclass(frozen=True)
class Accepted:
    """Masks that have found a class.

    Attributes:
        logits: (n, h', w') over the whole image, above 0 = inside.
        classes: (n,) int64.
        confidence: (n,) summed confidence of the mask's class inside it, by its area.
        areas: (n,) cells inside.
        boxes: (n, 4) around them, in cells.
        predicted_iou: (n,) the mask proposer's own estimate.
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
    found: PixelClasses, *, coarse: PixelClasses, image: Tensor, proposer: MaskProposer, settings: SnapSettings
) -> PixelClasses:
    """Let the regions of a segmentation take the edges of masks.

    Args:
        found: a class for every pixel.
        coarse: the same on a coarse grid over the image, on which regions are found and masks are judged.
        image: (1, 3, h, w), RGB from 0 to 1.
        proposer: draws the masks.
        settings: points, what makes a mask acceptable.

    Returns:
        classes, and confidences: a pixel that keeps its class keeps its confidence; one that takes another has the
        mask's, which is the summed confidence of that class inside by the mask's area.
    """
    points = region_points(coarse, size=(image.shape[2], image.shape[3]), settings=settings)  # (n, 1, 2)
    if not len(points):
        return found
    embeddings = proposer.embed([image])

    def some(start: int, stop: int) -> Accepted:
        (answers,) = decode(proposer, embeddings=embeddings, points=[points], start=start, stop=stop)
        return judge(answers.proposals, coarse=coarse, settings=settings)

    parts = Batches().run(some, count=len(points), size=settings.prompt_batch, what="masks")
    accepted = Accepted.together(parts)
    accepted = accepted.take(suppress(accepted.boxes, scores=accepted.predicted_iou, overlap=settings.overlap))
    return _paint(found, accepted.take(accepted.areas.argsort(descending=True, stable=True)))


def region_points(coarse: PixelClasses, *, size: tuple[int, int], settings: SnapSettings) -> Tensor:
    """Points inside the connected regions of a segmentation, those of the largest regions first.

    Args:
        coarse: a class for every cell of a grid over the image.
        size: (height, width) of the image in pixels.
        settings: `points`, `depth`, `minimum_area`, `maximum_prompts`.

    Returns:
        (n, 1, 2) x, y in pixels of the image, all different.
    """
    pieces = connected_components(coarse.indices.astype(np.int64))
    order = np.argsort(-pieces.areas, kind="stable")[: settings.maximum_prompts]
    wanted = order[pieces.areas[order] >= settings.minimum_area * coarse.indices.size]
    regions = torch.from_numpy(pieces.labels == wanted[:, None, None] + 1)  # (n, rows, columns)
    points = inner_points(regions, size=size, count=settings.points, depth=settings.depth).reshape(-1, 2)
    different = dict.fromkeys(map(tuple, points.tolist()))  # points repeat in a region of fewer cells
    return torch.tensor(list(different)[: settings.maximum_prompts]).reshape(-1, 1, 2)


def judge(proposals: MaskProposals, *, coarse: PixelClasses, settings: SnapSettings) -> Accepted:
    """Give masks their classes, and keep those that are sure, large enough and mostly of one class.

    Args:
        proposals: (n, m) masks of one image.
        coarse: a class and a confidence for every cell of a grid over the image.
        settings: `minimum_predicted_iou`, `minimum_area`, `agreement`.

    Returns:
        those that are kept, one after the other.
    """
    sure = proposals.predicted_iou.clamp(0, 1)
    kept = sure >= settings.minimum_predicted_iou  # (n, m)
    logits, sure = proposals.logits[kept].float(), sure[kept]
    masks = functional.interpolate(logits[:, None], coarse.indices.shape, mode="bilinear")[:, 0] > 0  # (k, rows, cols)
    present, number = np.unique(coarse.indices, return_inverse=True)
    votes = torch.zeros(len(present), coarse.indices.size)
    votes[torch.from_numpy(number.reshape(-1)), torch.arange(coarse.indices.size)] = torch.from_numpy(
        coarse.confidence.reshape(-1)
    )
    sums = masks.flatten(1).float() @ votes.T.to(masks.device)  # (k, classes present)
    most, winner = sums.max(dim=1)
    areas = masks.sum((1, 2))
    agreed = most >= settings.agreement * sums.sum(dim=1)
    good = agreed & (areas >= max(1, settings.minimum_area * coarse.indices.size))
    classes = torch.from_numpy(present.astype(np.int64)).to(winner.device)[winner]
    return Accepted(logits, classes, most / areas.clamp(min=1), areas, boxes_of(masks), sure).take(good.nonzero()[:, 0])


def _paint(found: PixelClasses, accepted: Accepted) -> PixelClasses:
    indices, confidence = found.indices.copy(), found.confidence.copy()
    size = (indices.shape[0], indices.shape[1])
    for position, (owner, own) in enumerate(zip(accepted.classes.tolist(), accepted.confidence.tolist(), strict=True)):
        logits = accepted.logits[position : position + 1]  # one mask of full size at a time, for memory
        inside = MaskProposals(logits[:, None], logits.new_zeros(1, 1), size).upsample(logits)[0].cpu().numpy()
        indices[inside] = owner
        confidence[inside] = np.where(found.indices[inside] == owner, found.confidence[inside], own)
    return PixelClasses(indices, confidence)
