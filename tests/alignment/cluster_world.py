"""Three clusters of features, each with a text vector: what a trainer must learn without any model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment.trainer import TrainingResult, TrainingSet
from patchword.config.align import AlignSettings

FEATURE_DIM, TEXT_DIM = 12, 8
SETTINGS = AlignSettings(batch_size=4, epochs=3, learning_rate=3e-3, patch_sample=64)


class Memory:
    """Features kept in memory; stops the run after a number of reads."""

    def __init__(self, features: Tensor, *, stop_after: int | None = None) -> None:
        self._features = features
        self._left = stop_after

    def read(self, keys: Sequence[str], /) -> Tensor:
        if self._left is not None:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
        return torch.stack([self._features[int(key)] for key in keys]).half()


def training_set(*, images: int = 10, stop_after: int | None = None, noise: float = 0.3) -> TrainingSet:
    """Images of 3 x 3 patches, one patch in eight without a label."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, FEATURE_DIM, generator=generator)
    labels = torch.randint(0, 3, (images, 3, 3), generator=generator)
    features = centres[labels] + noise * torch.randn(images, 3, 3, FEATURE_DIM, generator=generator)
    ignored = torch.rand(labels.shape, generator=generator) < 1 / 8
    return TrainingSet(
        features=Memory(features.permute(0, 3, 1, 2), stop_after=stop_after),
        keys=tuple(str(position) for position in range(images)),
        labels=labels.masked_fill(ignored, -1).to(torch.int16),
        text=functional.normalize(torch.eye(3, TEXT_DIM) + 0.5, dim=1),
    )


def accuracy(result: TrainingResult, data: TrainingSet) -> float:
    """Share of the labelled patches that take their label."""
    with torch.no_grad():
        aligned = result.module(data.features.read(data.keys).float())
    found = torch.einsum("bdhw,cd->bhwc", aligned, data.text).argmax(dim=-1)
    known = data.labels >= 0
    return float((found == data.labels)[known].float().mean())


def same_weights(first: TrainingResult, second: TrainingResult) -> bool:
    """Whether two results are equal bit for bit."""
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)
