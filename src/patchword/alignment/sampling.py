"""Which patches of a batch the terms of the loss look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.config.align import AlignSettings

IGNORED = -1
"""The label of a patch that no term looks at."""


@dataclass(frozen=True)
class PatchSample:
    """The patches of a step; no other needs to be aligned.

    Attributes:
        kept: (k,) positions in the batch, ascending, of all patches that a term looks at.
        text: (m,) positions in `kept` of those in the patch-text term, ascending.
        pairs: (q,) positions in `kept` of those in the patch-patch term.
    """

    kept: Tensor
    text: Tensor
    pairs: Tensor


def draw_sample(labels: Tensor, *, settings: AlignSettings, generator: torch.Generator | None = None) -> PatchSample:
    """Draw the patches of a step from the labels alone, before any is aligned.

    The patch-patch term gets a sample that is balanced over the classes, the patch-text term one in which every
    labelled patch is as likely, which leaves the expected mean over patches as it is.

    Args:
        labels: (n,) class of each patch, -1 = ignored.
        settings: `loss`, `patch_sample`, `text_sample`.
        generator: on the CPU; None draws from the global state.

    Returns:
        The sample; empty for a term that is off.
    """
    labelled = (labels != IGNORED).nonzero()[:, 0]
    nothing = labelled[:0]
    pairs = text = nothing
    if settings.loss in ("t-supcon", "patch-patch"):
        pairs = labelled[balanced_sample(labels[labelled], most=settings.patch_sample, generator=generator)]
    if settings.loss != "patch-patch":
        drawn = _uniform_sample(len(labelled), most=settings.text_sample, generator=generator)
        text = labelled[drawn.to(labels.device)]
    kept: Tensor = torch.unique(torch.cat([pairs, text]))  # sorted
    return PatchSample(kept, torch.searchsorted(kept, text), torch.searchsorted(kept, pairs))


def balanced_sample(labels: Tensor, *, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw at most `most` patches at random, as evenly over the classes as their numbers allow.

    Each class gives its patches in a random order, one a round, until the sample is full; a class that runs out leaves
    its share to the others.

    Args:
        labels: (n,) classes, none ignored.
        most: size of the sample, at least 1.
        generator: on the CPU; None draws from the global state.

    Returns:
        Indices into `labels`, (min(n, most),), without repetition.
    """
    if len(labels) <= most:
        return torch.arange(len(labels), device=labels.device)
    shuffled = torch.randperm(len(labels), generator=generator).to(labels.device)
    by_class = labels[shuffled].argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    rounds = torch.arange(len(labels), device=labels.device) - starts[labels[shuffled][by_class]]
    # Within a round the order of the shuffle decides, so that no class is preferred in the last, partial round.
    round_of = torch.empty_like(rounds).scatter_(0, by_class, rounds)
    return shuffled[round_of.argsort(stable=True)[:most]]


def _uniform_sample(count: int, *, most: int, generator: torch.Generator | None) -> Tensor:
    """At most `most` of `count` positions, ascending, (min(count, most),) on the CPU."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:most].sort().values
