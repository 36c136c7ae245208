"""Stand-ins for the foundation models that know only colours, so that every outcome can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.errors import PatchwordError
from patchword.labeling.image import ImageLabels, LabelParts, fuse_masks, generate_masks
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord

COLOURS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}


def record(name: str, *, patch_size: int = 4, input_size: int = 16, fingerprint: str = "0" * 64) -> ModelRecord:
    return ModelRecord(
        family="fake",
        name=name,
        revision=None,
        fingerprint=fingerprint,
        patch_size=patch_size,
        dim=len(COLOURS),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        input_size=input_size,
        licence="",
    )


class ColourClip:
    """An image's vector is its histogram over the named colours; a prompt's is the colour that it names."""

    def __init__(self, fingerprint: str = "0" * 64) -> None:
        self.record = record("colour-clip", fingerprint=fingerprint)
        self.device = torch.device("cpu")
        self.palette = torch.tensor(list(COLOURS.values()))  # (c, 3)
        self.patch_calls: list[int] = []

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        found = [[float(colour in prompt) for colour in COLOURS] for prompt in prompts]
        return torch.nn.functional.normalize(torch.tensor(found), dim=1)

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self._shares(images).mean(dim=(2, 3)), dim=1)

    def encode_patches(self, images: Tensor) -> Tensor:
        assert images.shape[-1] % 4 == 0
        assert images.shape[-2] % 4 == 0
        self.patch_calls.append(len(images))
        return torch.nn.functional.normalize(torch.nn.functional.avg_pool2d(self._shares(images), 4), dim=1)

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_images(images), self.encode_patches(images)

    def _shares(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, c, h, w): 1 for the nearest named colour."""
        distance = torch.cdist(images.permute(0, 2, 3, 1).reshape(-1, 3), self.palette)
        nearest = torch.nn.functional.one_hot(distance.argmin(dim=1), len(COLOURS)).float()
        return nearest.reshape(images.shape[0], *images.shape[-2:], -1).permute(0, 3, 1, 2)


class RegionSam:
    """Answers a prompt with the connected regions of one colour around its points, and with two worse masks."""

    def __init__(self, predicted_iou: float = 0.9) -> None:
        self.record = record("region-sam")
        self.device = torch.device("cpu")
        self.predicted_iou = predicted_iou
        self.calls: list[tuple[int, ...]] = []

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return tuple(ImageEmbedding((image,), size, size) for image, size in zip(images, sizes, strict=True))

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        self.calls.append(tuple(torch.cat(list(points)).shape))
        return tuple(self._masks(one, places) for one, places in zip(embeddings, points, strict=True))

    def _masks(self, embedding: ImageEmbedding, points: Tensor) -> MaskProposals:
        image = (embedding.features[0][0].permute(1, 2, 0).numpy() * 255).round()
        logits = []
        for prompt in points.tolist():
            region = np.zeros(image.shape[:2], dtype=bool)
            for x, y in prompt:
                region |= region_around(image, column=int(x), row=int(y))
            everything = np.ones_like(region)
            logits.append(np.stack([everything, region, ~region]) * 2.0 - 1.0)
        predicted = torch.tensor([[0.5, self.predicted_iou, 0.1]]).expand(len(points), 3)
        return MaskProposals(torch.tensor(np.stack(logits)).float(), predicted, embedding.image_size)


def region_around(image: np.ndarray, *, column: int, row: int) -> np.ndarray:
    """The 4-connected pixels (h, w) of the same colour as the one given."""
    same = (image == image[row, column]).all(axis=2)
    region = np.zeros_like(same)
    region[row, column] = True
    while True:
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown &= same
        if (grown == region).all():
            return region
        region = grown


def picture(rows: Sequence[Sequence[str]], *, scale: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 of coloured squares, each `scale` pixels wide."""
    cells = np.array([[COLOURS[name] for name in row] for row in rows])
    return (cells.repeat(scale, axis=0).repeat(scale, axis=1) * 255).astype(np.uint8)


def label_image(image: Tensor, *, parts: LabelParts, settings: LabelSettings) -> ImageLabels:
    """Label one image (1, 3, h, w)."""
    (candidates,) = generate_masks([image], parts=parts, settings=settings)
    if isinstance(candidates, PatchwordError):
        raise candidates
    vocabulary = parts.vocabulary
    return fuse_masks(candidates, names=vocabulary.names, settings=settings, colours=vocabulary.colours)
