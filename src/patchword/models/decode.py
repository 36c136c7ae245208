"""What SAM and SAM 2 share: point prompts of several images, checked, and decoded some at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import map_points
from patchword.models.protocols import ImageEmbedding

# Levels (p, c, h', w') and points (p, 1, k, 2) of p prompts to logits (p, 1, m, h, w) and predicted IoU (p, 1, m).
Decode = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]


def check_prompts(embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> None:
    """Refuse points that are not (n, k, 2) within their image, with one k for all images.

    A point on the image's edge (x = width, y = height) is within.
    """
    if len(embeddings) != len(points) or not embeddings:
        raise PatchwordError(
            f"there are {len(embeddings)} embeddings and points of {len(points)}; each embedding needs its points"
        )
    for embedding, places in zip(embeddings, points, strict=True):
        if places.ndim != 3 or places.shape[1] < 1 or places.shape[2] != 2:
            raise PatchwordError(
                f"points have shape {tuple(places.shape)}; it must be (prompts, points, 2), points >= 1"
            )
        height, width = embedding.image_size
        outside = ~((places >= 0) & (places <= places.new_tensor([width, height]))).all(dim=2)  # not-a-number, too
        if outside.any():
            x, y = places[outside][0].tolist()
            raise PatchwordError(f"point ({x:g}, {y:g}) is outside the image (x in 0..{width}, y in 0..{height})")
    counts = sorted({places.shape[1] for places in points})
    if len(counts) > 1:
        raise PatchwordError(f"prompts have {counts[0]} and {counts[-1]} points; all must have the same number")


class PromptDecoder:
    """Decodes the prompts of several images together, whichever image they are on; fewer where memory runs out.

    The decoder copies the image embedding for every prompt, so that whoever asks decides how much memory it takes.

    Args:
        decode: the model's mask decoder.
    """

    def __init__(self, decode: Decode) -> None:
        self.decode = decode
        self._batches = Batches()

    def __call__(
        self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor], *, device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        """Decode prompts.

        Args:
            embeddings: one an image.
            points: for each image (n, k, 2) in pixels of the image as given.
            device: where to decode.

        Returns:
            for each image logits (n, m, h, w) and predicted IoU (n, m), float32.
        """
        check_prompts(embeddings, points)
        mapped = torch.cat(
            [
                map_points(places.float().to(device), image_size=one.image_size, input_size=one.input_size)
                for one, places in zip(embeddings, points, strict=True)
            ]
        )[:, None]  # (N, 1, k, 2)
        levels = [torch.cat(level).to(device) for level in zip(*(one.features for one in embeddings), strict=True)]
        counts = torch.tensor([len(places) for places in points], device=device)
        owners = torch.repeat_interleave(torch.arange(len(embeddings), device=device), counts)  # (N,)

        def some(start: int, stop: int) -> tuple[Tensor, Tensor]:
            chosen = owners[start:stop]
            logits, scores = self.decode([_repeat(level, chosen) for level in levels], mapped[start:stop])
            return logits[:, 0].float(), scores[:, 0].float()

        if len(owners):
            parts = self._batches.run(some, count=len(owners), size=len(owners), what="prompts")
        else:  # one call for the shape of nothing
            logits, scores = self.decode([level[:1] for level in levels], mapped.new_zeros(1, *mapped.shape[1:]))
            parts = [(logits[:0, 0].float(), scores[:0, 0].float())]
        split = [torch.split(torch.cat(values), counts.tolist()) for values in zip(*parts, strict=True)]
        return list(zip(*split, strict=True))


def _repeat(level: Tensor, owners: Tensor) -> Tensor:
    """The level (b, c, h, w) of each prompt's image, (p, c, h, w); of a single image without a copy."""
    if len(level) == 1:
        return level.expand(len(owners), -1, -1, -1)
    return level[owners]
