"""What has been drawn on a view so far, from which it is decided what to ask next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.labeling.localize import cell_spans

_CELLS = 64  # a side of the coarse maps that say where to ask next; a point need not be finer


@dataclass(frozen=True)
class Drawn:
    """All masks that have been drawn on a view so far.

    Attributes:
        masks: (n, m, rows, columns) bool, several for each prompt, on a coarse map of the whole view; a cell is inside
            where anything in it is, so that no mask gets lost.
        predicted_iou: (n, m) the mask proposer's own estimates.
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
    def of(cls, logits: Tensor, *, predicted_iou: Tensor, accepted: Tensor) -> Drawn:
        """The masks of logits (n, m, h', w')."""
        cells = (min(logits.shape[2], _CELLS), min(logits.shape[3], _CELLS))
        masks = _coarse(logits > 0, cells=cells)
        return cls(masks.cpu(), predicted_iou.cpu(), accepted.cpu())

    @classmethod
    def together(cls, parts: Sequence[Drawn]) -> Drawn:
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


Step = Callable[[Drawn], Tensor]
"""From all masks so far to the prompts (n, k, 2) to ask next, in pixels of the view; n may be 0."""
