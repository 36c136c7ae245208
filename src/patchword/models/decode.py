"""What SAM and SAM 2 share: checked point prompts, decoded some at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.protocols import ImageEmbedding


def check_prompts(embedding: ImageEmbedding, points: Tensor) -> None:
    """Refuse an embedding of several images, and points that are not (n, k, 2) within the image.

    A point on the image's edge (x = width, y = height) is within.

    Raises:
        PatchwordError: naming the shape or the point found and what is allowed.
    """
    if len(embedding) != 1:
        raise PatchwordError(f"the embedding holds {len(embedding)} images; allowed is one, as embedding[i] gives")
    if points.ndim != 3 or points.shape[1] < 1 or points.shape[2] != 2:
        raise PatchwordError(f"points have shape {tuple(points.shape)}; allowed is (prompts, points, 2), points >= 1")
    height, width = embedding.image_size
    limit = points.new_tensor([width, height])
    outside = ~((points >= 0) & (points <= limit)).all(dim=2)  # also catches not-a-number
    if outside.any():
        x, y = points[outside][0].tolist()
        raise PatchwordError(
            f"point ({x:g}, {y:g}) is outside the image; allowed are x in 0..{width}, y in 0..{height}"
        )


def decode_in_chunks(
    points: Tensor, *, decode: Callable[[Tensor], tuple[Tensor, Tensor]], chunk: int, masks: int, side: int
) -> tuple[Tensor, Tensor]:
    """Decode n prompts, at most `chunk` a call, since the decoder copies the image embedding for every prompt.

    Args:
        points: (n, k, 2) in pixels of the model's input.
        decode: takes (p, k, 2) to logits (p, masks, side, side) and predicted IoU (p, masks).
        chunk: prompts a call, above 0.
        masks, side: shape of the result, needed where there are no prompts.

    Returns:
        logits (n, masks, side, side) and predicted IoU (n, masks), float32.
    """
    if len(points) == 0:
        return torch.zeros(0, masks, side, side, device=points.device), torch.zeros(0, masks, device=points.device)
    parts = [decode(points[start : start + chunk]) for start in range(0, len(points), chunk)]
    logits = torch.cat([part[0] for part in parts])
    scores = torch.cat([part[1] for part in parts])
    return logits.float(), scores.float()
