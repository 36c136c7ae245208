"""What the crops of a photograph look like to an image-text encoder, and thumbnails of them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from patchword.data.images import to_tensor
from patchword.labeling.clip_crops import finite, take_crops
from patchword.labeling.localize import best_words
from patchword.labeling.settings import LabelSettings
from patchword.models.batching import Batches
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import TextVectors

_JPEG_QUALITY = 80


@dataclass(frozen=True, eq=False)
class Looked:
    """The crops of a photograph.

    Attributes:
        cosines: (crops, candidates) with each class (its best word), then with each background word.
        boxes: (crops, 4) as x0, y0, x1, y1, shares of the photograph's width and height.
    """

    cosines: NDArray[np.float32]
    boxes: NDArray[np.float64]

    def leads(self) -> NDArray[np.float32]:
        """By how much each crop's best candidate leads its second, (crops,)."""
        best = np.partition(self.cosines, -2, axis=1)
        lead: NDArray[np.float32] = best[:, -1] - best[:, -2]
        return lead


@torch.no_grad()
def look_at(
    pixels: NDArray[np.uint8],
    *,
    encoder: ImageTextEncoder,
    text: TextVectors,
    batches: Batches,
    settings: LabelSettings,
) -> Looked:
    """Compare every crop of a photograph with every candidate, as labelling does for its vote.

    Args:
        pixels: (h, w, 3).
        encoder: sees the crops.
        text: unit vectors of the candidates' words.
        batches: of crops; they shrink where memory runs out.
        settings: the crops.
    """
    crops = take_crops(to_tensor(pixels), encoder=encoder, settings=settings)

    def encode(start: int, stop: int) -> Tensor:
        return encoder.encode_images(crops.pixels[start:stop])

    parts = batches.run(encode, count=len(crops.pixels), size=settings.crop_batch, what="crops")
    tokens = torch.cat(parts)  # (crops, d)
    cosines = finite(best_words(tokens @ text.words.to(tokens).T, text=text), encoder)  # (crops, candidates)
    height, width = crops.size
    return Looked(cosines.float().cpu().numpy(), crops.boxes.numpy() / np.array([width, height, width, height]))


def thumbnail(pixels: NDArray[np.uint8], box: NDArray[np.float64], *, size: int) -> bytes:
    """A crop as a small JPEG.

    Args:
        pixels: (h, w, 3).
        box: x0, y0, x1, y1, shares of width and height.
        size: longer side in pixels at most.
    """
    height, width = pixels.shape[:2]
    x0, y0 = int(box[0] * width), int(box[1] * height)
    x1, y1 = max(x0 + 1, round(box[2] * width)), max(y0 + 1, round(box[3] * height))
    picture = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
