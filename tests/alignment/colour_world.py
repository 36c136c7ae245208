"""A world of three colours, with models so simple that every result can be told in advance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from patchword.alignment.data import AlignmentData, AlignmentItem
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.models.protocols import ModelRecord, check_images

COLOURS = ("red", "green", "blue")
VOCABULARY = Vocabulary.of(["red; crimson", "green", "blue"], templates=["a {} patch"])
RGB = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
PATCH, TEXT_DIM, FEATURE_DIM = 4, 8, 12
SETTINGS = AlignSettings(image_size=16, batch_size=4, steps=60, learning_rate=3e-3, feature_batch=3, patch_sample=64)


def record(name: str, *, dim: int, fingerprint: str = "f" * 64) -> ModelRecord:
    return ModelRecord(
        family="colour",
        name=name,
        revision=None,
        fingerprint=fingerprint,
        patch_size=PATCH,
        dim=dim,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        input_size=16,
        licence="none",
    )


class ColourText:
    """Knows the three colours, each along its own axis; the axis of any other prompt depends on its length."""

    device = torch.device("cpu")

    def __init__(self, fingerprint: str = "t" * 64) -> None:
        self.record = record("colour-text", dim=TEXT_DIM, fingerprint=fingerprint)
        self.prompts: list[str] = []

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        self.prompts += prompts
        return torch.stack([self._vector(prompt) for prompt in prompts])

    def encode_images(self, images: Tensor) -> Tensor:
        raise AssertionError("only text is asked of the text encoder")

    def encode_patches(self, images: Tensor) -> Tensor:
        check_images(images, multiple_of=PATCH)
        means = functional.avg_pool2d(images, PATCH)  # (b, 3, h, w)
        return functional.normalize(functional.pad(means, (0, 0, 0, 0, 0, TEXT_DIM - 3)), dim=1)

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("only text is asked of the text encoder")

    def _vector(self, prompt: str) -> Tensor:
        axis = 3 + len(prompt) % (TEXT_DIM - 3)
        named = [position for position, colour in enumerate((*COLOURS, "crimson")) if colour in prompt]
        if named:
            axis = named[0] % 3
        return functional.one_hot(torch.tensor(axis), TEXT_DIM).float()


class ColourPatches:
    """Mixes the mean colour of a patch into features of which none is a colour."""

    device = torch.device("cpu")

    def __init__(self, fingerprint: str = "p" * 64) -> None:
        self.record = record("colour-patches", dim=FEATURE_DIM, fingerprint=fingerprint)
        self.images = 0
        self._mix = torch.randn(FEATURE_DIM, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def __call__(self, images: Tensor) -> Tensor:
        check_images(images, multiple_of=PATCH)
        self.images += len(images)
        return functional.conv2d(functional.avg_pool2d(images, PATCH), self._mix).tanh()


def draw(seed: int, *, height: int = 16, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture of two colours side by side and its exact classes."""
    generator = np.random.default_rng(seed)
    left, right = generator.choice(3, size=2, replace=False)
    classes = np.where(np.arange(width) < width // 2, left, right)[None].repeat(height, axis=0).astype(np.uint8)
    colours = np.array([RGB[name] for name in COLOURS])
    picture = colours[classes] + generator.normal(0, 12, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8), classes


def make_data(folder: Path, *, images: int = 8, vocabulary: Vocabulary = VOCABULARY) -> AlignmentData:
    """Pictures and exact masks on disk."""
    items = []
    for seed in range(images):
        picture, classes = draw(seed)
        image, mask = folder / "photos" / f"{seed}.png", folder / "masks" / f"{seed}.png.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(image)
        LabelMap(classes, vocabulary.names).save(mask)
        items.append(AlignmentItem(image, mask))
    return AlignmentData(tuple(items), vocabulary)
