"""What happens at which step, from the settings and the seed alone: so a training repeats, and goes on exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.alignment.artifact import StepRecord
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.runs.progress import photograph_count

PAPER_BATCH, PAPER_RATE, EPOCHS = 32, 1e-4, 5
# Measured on Toytown (docs/performance.md): a small set wants more passes in smaller steps, but not ever more, since it
# is soon learned by heart. One of thousands has enough steps in the paper's five passes.
RATE = 1e-3
SMALL_BATCH, MANY_IMAGES = 4, 5_000
MOST_EPOCHS, FEWEST_STEPS = 14, 100
ENOUGH_STEPS, ENOUGH_BATCH = 2_000, 8  # so many steps of 8 images or more, or as many images in smaller steps
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
        epochs = settings.epochs or (EPOCHS if paper else _epochs(epoch_steps, batch_size))
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
            number = f"{photograph_count(self.images)} {'is' if self.images == 1 else 'are'}"
            found.append(f"{number} few to learn from; a segmenter trained on a few hundred does much better")
        return found


def _epochs(epoch_steps: int, batch_size: int) -> int:
    """Passes over a set that takes so many steps a pass."""
    enough = ENOUGH_STEPS * max(1, ENOUGH_BATCH / batch_size)
    wanted = min(MOST_EPOCHS, max(EPOCHS, math.ceil(enough / epoch_steps)))
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


def split_images(keys: Sequence[str], *, share: float, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Divide images into those to train on and those held out; equal photographs stay together.

    Args:
        share: of the photographs in [0, 1) to hold out, rounded up to whole ones.
    """
    photographs = list(dict.fromkeys(keys))
    count = held_out_count(len(photographs), share=share)
    if count >= len(photographs):
        raise PatchwordError(
            f"held_out is {share} of {photograph_count(len(photographs))}; leave at least one to train on"
        )
    order = torch.randperm(len(photographs), generator=generator).tolist() if count else []
    held = {photographs[position] for position in order[:count]}
    training = [position for position, key in enumerate(keys) if key not in held]
    return training, [position for position, key in enumerate(keys) if key in held]


def held_out_count(photographs: int, *, share: float) -> int:
    """How many photographs a share holds out: the next whole number."""
    return -int(-photographs * share // 1)


def count_hits(aligned: Tensor, labels: Tensor, text: Tensor) -> Tensor:
    """Count the labelled patches of each class, and those that the module gives the same class.

    Args:
        aligned: (b, d, h, w) unit vectors.
        labels: (b, h, w) int64, -1 = ignored.
        text: (c, d) unit text embeddings.

    Returns:
        (2, c) int64: hits, patches.
    """
    known = labels >= 0
    labels = labels[known]
    found = (aligned.permute(0, 2, 3, 1)[known] @ text.T).argmax(dim=1)
    counts = [labels[found == labels].bincount(minlength=len(text)), labels.bincount(minlength=len(text))]
    return torch.stack(counts)


def agreement(hits: Tensor) -> float:
    """The mean, over the classes that there are, of the share of a class's patches that were given that class.

    Args:
        hits: (2, c) of `count_hits`, summed over all batches.

    Returns:
        in [0, 1]; 0 when there is no patch.
    """
    present = hits[1] > 0
    if not present.any():
        return 0.0
    right, patches = hits[:, present].cpu().double()  # on the CPU, since Apple's GPUs have no float64
    return float((right / patches).mean())


def is_best(history: Sequence[StepRecord]) -> bool:
    """Whether the last record's agreement is above those of all before it."""
    *before, last = [record.held_out for record in history if record.held_out is not None]
    return all(last > value for value in before)


def out_of_patience(history: Sequence[StepRecord], *, patience: int | None) -> bool:
    """Whether the agreement has not risen above its best in the last `patience` evaluations; never without patience."""
    values = [record.held_out for record in history if record.held_out is not None]
    if patience is None or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


def kept_agreement(history: Sequence[StepRecord], *, patience: int | None) -> float | None:
    """The agreement of the weights that a training ended with: of the best with patience, else of the last."""
    values = [record.held_out for record in history if record.held_out is not None]
    if not values:
        return None
    return values[-1] if patience is None else max(values)
