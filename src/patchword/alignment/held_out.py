"""A part of the pseudo labels that is not trained on: how well the module agrees with it, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchword.alignment.records import StepRecord
from patchword.errors import PatchwordError


def split_images(keys: Sequence[str], *, share: float, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Divide images into those to train on and those held out; equal photographs stay together.

    Args:
        keys: one an image; equal keys are equal photographs.
        share: of the photographs in [0, 1) to hold out, rounded up to whole ones.
        generator: of the choice, on the CPU.

    Returns:
        positions to train on and positions held out, ascending.
    """
    photographs = list(dict.fromkeys(keys))
    count = held_out_count(len(photographs), share=share)
    if count >= len(photographs):
        raise PatchwordError(f"held_out is {share} of {len(photographs)} photographs; leave at least one to train on")
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
        text: (c, d) unit text vectors.

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
