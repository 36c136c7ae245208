"""What happens at which step, from the settings and the seed alone: so a training repeats, and goes on exactly."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.alignment.held_out import held_out_count
from patchword.config.align import AlignSettings

PAPER_BATCH, PAPER_RATE, EPOCHS = 32, 1e-4, 5
# Measured on Toytown (docs/performance.md): a small set wants more passes in smaller steps, but not ever more, since it
# is soon learned by heart. One of thousands has enough steps in the paper's five passes.
RATE = 1e-3
SMALL_BATCH, MANY_IMAGES = 8, 5_000
MOST_EPOCHS, ENOUGH_STEPS, FEWEST_STEPS = 14, 2_000, 100
FEW_IMAGES = 50


@dataclass(frozen=True)
class Schedule:
    """How long a training lasts, and in what steps.

    Attributes:
        images: trained on; those held out are not among them.
        batch_size: images a step.
        epoch_steps: steps of a pass over the images.
        steps: of the whole training, at most.
        learning_rate: the highest.
    """

    images: int
    batch_size: int
    epoch_steps: int
    steps: int
    learning_rate: float

    @classmethod
    def of(cls, images: int, *, settings: AlignSettings) -> Schedule:
        """The schedule for that many images to train on; what the settings name is taken as it is."""
        images = max(1, images)
        paper = settings.schedule == "paper"
        batch_size = settings.batch_size or (PAPER_BATCH if paper or images >= MANY_IMAGES else SMALL_BATCH)
        epoch_steps = math.ceil(images / batch_size)
        epochs = settings.epochs or (EPOCHS if paper else _epochs(epoch_steps))
        steps = settings.steps or epoch_steps * epochs
        rate = settings.learning_rate or (PAPER_RATE if paper else RATE)
        return cls(images, batch_size, epoch_steps, steps, rate)

    def fill(self, settings: AlignSettings) -> AlignSettings:
        """The settings with the schedule's numbers where they name none."""
        epochs = settings.epochs if settings.steps else self.steps // self.epoch_steps
        numbers = {"batch_size": self.batch_size, "epochs": epochs, "learning_rate": self.learning_rate}
        return settings.model_copy(update=numbers)

    def line(self) -> str:
        """What the training will do, for a person."""
        epochs, rest = divmod(self.steps, self.epoch_steps)
        whole = f"{_counted(epochs, 'epoch')} x {_counted(self.epoch_steps, 'step')}"
        steps = f"{whole if rest == 0 else _counted(self.steps, 'step')} of {self.batch_size}"
        return f"{_counted(self.images, 'photograph')}: {steps}, learning rate {self.learning_rate:g}"

    def warnings(self) -> list[str]:
        """What a person should know before training so: too few steps, too few photographs."""
        found = []
        if self.steps < FEWEST_STEPS:
            found.append(
                f"{_counted(self.steps, 'step')} may be too few to learn from; without settings for it, training takes "
                f"at least {FEWEST_STEPS}"
            )
        if self.images < FEW_IMAGES:
            number = "1 photograph is" if self.images == 1 else f"{self.images} photographs are"
            found.append(f"{number} few to learn from; a segmenter trained on a few hundred does much better")
        return found


def _epochs(epoch_steps: int) -> int:
    """Passes over a set that takes so many steps a pass."""
    wanted = min(MOST_EPOCHS, max(EPOCHS, math.ceil(ENOUGH_STEPS / epoch_steps)))
    return max(wanted, math.ceil(FEWEST_STEPS / epoch_steps))


def _counted(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def schedule_for(images: int, *, settings: AlignSettings) -> Schedule:
    """The schedule for a data set of that many images, of which `held_out` are held out."""
    return Schedule.of(images - held_out_count(images, share=settings.held_out), settings=settings)


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
