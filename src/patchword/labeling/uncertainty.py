"""How sure names are, told without ground truth: the lead of a class, and the entropy of all words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Doubt:
    """What speaks against a mask's name; both none where there is no other word.

    Attributes:
        margin: lead of its class over the best other class or background word, in cosine; negative behind it.
        entropy: of all classes and background words, from 0 (sure) to 1 (all alike).
    """

    margin: float | None
    entropy: float | None


def doubts(cosines: Tensor, *, positions: Tensor, temperature: float) -> list[Doubt]:
    """Doubt about the names of n masks.

    Args:
        cosines: (n, w) of each mask with each class and background word.
        positions: (n,) int64, which of them is the mask's class.
        temperature: as for `entropies`.
    """
    if cosines.shape[1] < 2:
        return [Doubt(None, None)] * len(cosines)
    own = cosines.gather(1, positions[:, None])  # (n, 1)
    others = cosines.scatter(1, positions[:, None], -torch.inf)  # (n, w)
    leads = own[:, 0] - others.amax(1)
    sure = entropies(cosines, temperature=temperature)
    return [Doubt(margin, entropy) for margin, entropy in zip(leads.tolist(), sure.tolist(), strict=True)]


def entropies(cosines: Tensor, *, temperature: float) -> Tensor:
    """Entropy of softmax(cosines / temperature), as a share of the largest possible.

    Source: CLIP's own softmax over words, whose temperature ends at 0.01; its entropy as a measure [chosen].

    Args:
        cosines: (n, w), w >= 1.
        temperature: in cosine, above 0.

    Returns:
        (n,) in [0, 1]; 0 for a single word.
    """
    count = cosines.shape[1]
    if count < 2:
        return torch.zeros(len(cosines), device=cosines.device)
    logarithms = torch.log_softmax(cosines.float() / temperature, dim=1)
    return -(logarithms.exp() * logarithms).sum(1) / math.log(count)
