"""Pictures and plain arithmetic on them, and tolerances, for comparing adapters with transformers."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FORWARD = {"rtol": 1e-4, "atol": 1e-5}  # the same pixels, float32
PIXEL = 4 / 255  # of a processor that works in whole levels (see test_pixels), in [0, 1]


def photo(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 (h, w, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def plain_normalise(image: np.ndarray, mean: list[float], std: list[float]) -> Tensor:
    scaled = (image.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]


def cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))
