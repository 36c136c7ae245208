"""T-SupCon: the patch-text and the patch-patch term of the alignment (equations 1 and 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.align.settings import AlignSettings
from patchword.errors import PatchwordError

IGNORED = -1
"""The label of a patch that no term looks at."""


@dataclass(frozen=True)
class LossTerms:
    """T-SupCon's terms as scalars, each before its weight and 0 when it is off, and their weighted sum `total`."""

    total: Tensor
    patch_patch: Tensor
    text_anchor: Tensor
    patch_anchor: Tensor


def t_supcon(
    z: Tensor,
    labels: Tensor,
    text: Tensor,
    *,
    temperature: Tensor | float,
    settings: AlignSettings,
    generator: torch.Generator | None = None,
) -> LossTerms:
    """Compute T-SupCon over the patches of a batch.

    Every sum over anchors is divided by the number of its anchors (labelled patches that have a positive, classes
    present, labelled patches), so that the scale does not depend on the size of the batch. Where a term has no anchor
    it is 0, with a gradient of 0.

    Args:
        z: (n, d) aligned patches, unit length.
        labels: (n,) class of each patch in [0, c); -1 is ignored, neither anchor nor positive nor negative.
        text: (c, d) unit text vectors of the classes, frozen.
        temperature: of the patch-text term; a tensor when it is learned.
        settings: which terms, their weights, the patch temperature and the size of the sample.
        generator: of the patch sample, on the CPU; None draws from the global state.

    Returns:
        The terms and their weighted sum.

    Raises:
        PatchwordError: when a label is not in [-1, c).

    Source: equation 1 of the paper; docs/method.md, stage 2.
    """
    _check_labels(labels, classes=len(text))
    kept = labels != IGNORED
    z, labels = z[kept], labels[kept]
    off = z.sum() * 0.0  # keeps the graph, so that a batch without labels can be stepped like any other
    text_anchor = patch_anchor = patch_patch = off
    if settings.patch_text in ("both", "text-anchor"):
        text_anchor = text_anchor_loss(z, labels, text, temperature=temperature)
    if settings.patch_text in ("both", "patch-anchor"):
        patch_anchor = patch_anchor_loss(z, labels, text, temperature=temperature)
    if settings.patch_patch_weight > 0:
        chosen = balanced_sample(labels, most=settings.patch_sample, generator=generator)
        patch_patch = patch_patch_loss(z[chosen], labels[chosen], temperature=settings.patch_temperature)
    total = settings.patch_text_weight * (text_anchor + patch_anchor) + settings.patch_patch_weight * patch_patch
    return LossTerms(total, patch_patch, text_anchor, patch_anchor)


def patch_patch_loss(z: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Supervised contrastive loss among patches: mean over anchors i that have a positive of

    -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p/tau) / sum_{a != i} exp(z_i.z_a/tau) ), P(i) the other patches of i's
    class.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; temperature: tau > 0.

    Returns:
        A scalar; 0 when no patch has a positive.
    """
    if len(z) < 2:
        return z.sum() * 0.0
    similarity = z @ z.T / temperature  # (n, n)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    normaliser = similarity.masked_fill(own, -torch.inf).logsumexp(dim=1)  # (n,)
    members = functional.one_hot(labels).to(z.dtype)  # (n, classes up to the largest label)
    positives = members.sum(dim=0)[labels] - 1  # (n,) |P(i)|
    # The positives of i are its class without itself, so their sum of similarities is one product with the class's sum.
    # Plain indexing with repeated rows would add its gradients up in an order that threads decide.
    to_class = (z * (members.T @ z).index_select(0, labels)).sum(dim=1) / temperature
    to_positives = (to_class - similarity.diagonal()) / positives.clamp(min=1)  # (n,) mean over P(i)
    anchors = positives > 0
    return torch.where(anchors, normaliser - to_positives, 0.0).sum() / anchors.sum().clamp(min=1)


def text_anchor_loss(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float) -> Tensor:
    """Patch-text term with the text as anchor: mean over the classes c that are present of

    -1/|P(c)| sum_{p in P(c)} log( exp(t_c.z_p/tau) / sum_{a in batch} exp(t_c.z_a/tau) ), P(c) the patches of class c.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.

    Returns:
        A scalar; 0 without patches.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    present, members, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    normaliser = (text[present] @ z.T / temperature).logsumexp(dim=1)  # (classes present,)
    to_own_text = (z * text[labels]).sum(dim=1) / temperature  # (n,)
    # Each patch weighs 1/|P(c)|, so one sum over the patches is the sum over the classes of their means.
    to_positives = (to_own_text / counts[members]).sum()
    loss: Tensor = (normaliser.sum() - to_positives) / len(present)
    return loss


def patch_anchor_loss(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float) -> Tensor:
    """Patch-text term with the patch as anchor: mean over patches i of -log softmax_c(z_i.t_c/tau)[y_i].

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.

    Returns:
        A scalar; 0 without patches.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    return functional.cross_entropy(z @ text.T / temperature, labels)


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


def _check_labels(labels: Tensor, *, classes: int) -> None:
    if len(labels) and (int(labels.min()) < IGNORED or int(labels.max()) >= classes):
        raise PatchwordError(
            f"patch labels lie in [{int(labels.min())}, {int(labels.max())}]; allowed is [{IGNORED}, {classes - 1}]"
        )
