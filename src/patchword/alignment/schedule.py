"""What happens at which step, from the settings and the seed alone: so a training repeats, and goes on exactly."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from patchword.alignment.held_out import held_out_count
from patchword.alignment.settings import AlignSettings


def total_steps(images: int, *, settings: AlignSettings) -> int:
    """How many steps a training takes at most, on that many images of which `held_out` are held out."""
    training = max(1, images - held_out_count(images, share=settings.held_out))
    return settings.steps or settings.epochs * math.ceil(training / settings.batch_size)


def learning_rate_share(step: int, *, steps: int, warmup_share: float) -> float:
    """The share of the highest learning rate at a step from 0 to steps - 1: a linear rise, then half a cosine."""
    warmup = math.ceil(steps * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def image_order(images: int, *, epoch: int, seed: int) -> Tensor:
    """The order in which epoch `epoch` sees the images: (images,) a permutation."""
    return torch.randperm(images, generator=seeded_generator(seed, "order", epoch))


def seeded_generator(seed: int, purpose: str, *place: int | str) -> torch.Generator:
    """A generator on the CPU that depends on nothing but its arguments."""
    name = "/".join(str(part) for part in (seed, purpose, *place))
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
