"""T-SupCon: the patch-text and the patch-patch term of the alignment (equations 1 and 2 of the paper).

The paper's equations are sums over anchors. Here every sum over anchors is divided by the number of its anchors
[chosen]: patches that have a positive, classes present, labelled patches. So the scale of a term, and with it the
learning rate and the weights, depends neither on the size of the batch nor on how much of it is labelled.

No term ever holds more similarities than `similarity_bound`, and no patches are aligned that no term looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment.sampling import IGNORED, PatchSample, draw_sample
from patchword.alignment.similarities import weighted_logsumexp
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError

TERMS = ("patch_patch", "text_anchor", "patch_anchor")
_READINGS = {
    "both": ("text_anchor", "patch_anchor"),
    "text-anchor": ("text_anchor",),
    "patch-anchor": ("patch_anchor",),
}


@dataclass(frozen=True)
class LossTerms:
    """The loss's terms as scalars, each before its weight and 0 when it is off, and their weighted sum `total`."""

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
    """Compute T-SupCon, or another loss of the setting `loss`, over the patches of a batch.

    Where a term has no anchor it is 0, with a gradient of 0: a batch without labels, or the patch-patch term when no
    two patches share a class. A class that is absent from the batch is not an anchor of the text-anchor reading, and a
    negative as any other in the patch-anchor reading.

    Args:
        z: (n, d) aligned patches, unit length.
        labels: (n,) class of each patch in [0, c); -1 is ignored, neither anchor nor positive nor negative.
        text: (c, d) unit text vectors of the classes, frozen.
        temperature: of the patch-text term; a tensor when it is learned.
        settings: which terms, their weights, the patch temperature, the sizes of the samples and `similarity_bound`.
        generator: of the patch samples, on the CPU; None draws from the global state.

    Returns:
        The terms and their weighted sum.
    """
    check_labels(labels, classes=len(text))
    sample = draw_sample(labels, settings=settings, generator=generator)
    kept = sample.kept
    return sampled_loss(z[kept], labels[kept], text, sample=sample, temperature=temperature, settings=settings)


def sampled_loss(
    z: Tensor,
    labels: Tensor,
    text: Tensor,
    *,
    sample: PatchSample,
    temperature: Tensor | float,
    settings: AlignSettings,
) -> LossTerms:
    """Compute the loss of patches that were drawn before, as `t_supcon` does.

    Args:
        z: (k, d) aligned patches, those that `sample.kept` names.
        labels: (k,) their classes; text: (c, d); temperature: of the patch-text term.
        sample: drawn from the labels of the batch.
        settings: as for `t_supcon`.

    Returns:
        The terms and their weighted sum.
    """
    off = z.sum() * 0.0 + temperature * 0.0  # keeps the graph, so that a batch without labels is stepped like any other
    terms = dict.fromkeys(TERMS, off)
    bound = settings.similarity_bound
    for name in terms_of(settings):
        chosen = sample.pairs if name == "patch_patch" else sample.text
        vectors, classes = z[chosen], labels[chosen]
        if name == "patch_patch":
            loss = patch_patch_loss(vectors, classes, temperature=settings.patch_temperature, bound=bound)
        elif name == "text_anchor":
            loss = text_anchor_loss(vectors, classes, text, temperature=temperature, bound=bound)
        else:
            loss = patch_anchor_loss(vectors, classes, text, temperature=temperature, bound=bound)
        terms[name] = off + loss
    patch_text = terms["text_anchor"] + terms["patch_anchor"]
    total = settings.patch_text_weight * patch_text + settings.patch_patch_weight * terms["patch_patch"]
    return LossTerms(total, **terms)


def terms_of(settings: AlignSettings) -> tuple[str, ...]:
    """The names of the terms that the loss of these settings has.

    Cross entropy against the text vectors is the patch-anchor reading alone (equation 2 of the paper).
    """
    readings = _READINGS[settings.patch_text]
    return {
        "t-supcon": ("patch_patch", *readings),
        "patch-text": readings,
        "patch-patch": ("patch_patch",),
        "cross-entropy": ("patch_anchor",),
    }[settings.loss]


def patch_patch_loss(z: Tensor, labels: Tensor, *, temperature: float, bound: int) -> Tensor:
    """Supervised contrastive loss among patches: mean over anchors i that have a positive of

    -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p/tau) / sum_{a != i} exp(z_i.z_a/tau) ), P(i) the other patches of i's
    class.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; temperature: tau > 0.
        bound: most similarities held at once.

    Returns:
        A scalar; 0 when no patch has a positive.
    """
    _, members, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    anchors = counts[members] > 1
    if not anchors.any():
        return z.sum() * 0.0
    weights = anchors.to(z.dtype) / anchors.sum()
    normalisers = weighted_logsumexp(z, z, weights, temperature=temperature, bound=bound, own=False)
    # The positives of i are its class without itself. Summed over a class of m patches with the sum s, the similarities
    # to positives are s.s minus each patch with itself, and every anchor of the class has the same m - 1 of them.
    # A product of matrices adds up in the same order on every machine, which adding by index does not.
    of_class = functional.one_hot(members, len(counts)).to(z.dtype).T  # (classes present, n)
    pairs = (of_class @ z).square().sum(dim=1) - of_class @ z.square().sum(dim=1)  # (classes present,)
    loss: Tensor = normalisers - (pairs / (counts - 1).clamp(min=1)).sum() / (temperature * anchors.sum())
    return loss


def text_anchor_loss(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float, bound: int) -> Tensor:
    """Patch-text term with the text as anchor: mean over the classes c that are present of

    -1/|P(c)| sum_{p in P(c)} log( exp(t_c.z_p/tau) / sum_{a in batch} exp(t_c.z_a/tau) ), P(c) the patches of class c.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.
        bound: most similarities held at once.

    Returns:
        A scalar; 0 without patches.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    present, members, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    weights = z.new_full((len(present),), 1 / len(present))
    normalisers = weighted_logsumexp(text[present], z, weights, temperature=temperature, bound=bound)
    # Each patch weighs 1/|P(c)|, so one sum over the patches is the sum over the classes of their means.
    to_own_text = ((z * text[labels]).sum(dim=1) / counts[members]).sum() / temperature
    loss: Tensor = normalisers - to_own_text / len(present)
    return loss


def patch_anchor_loss(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float, bound: int) -> Tensor:
    """Patch-text term with the patch as anchor: mean over patches i of -log softmax_c(z_i.t_c/tau)[y_i].

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.
        bound: most similarities held at once.

    Returns:
        A scalar; 0 without patches.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    weights = z.new_full((len(z),), 1 / len(z))
    normalisers = weighted_logsumexp(z, text, weights, temperature=temperature, bound=bound)
    loss: Tensor = normalisers - (z * text[labels]).sum() / (temperature * len(z))
    return loss


def check_labels(labels: Tensor, *, classes: int) -> None:
    """Refuse labels that name no class."""
    if len(labels) and (int(labels.min()) < IGNORED or int(labels.max()) >= classes):
        raise PatchwordError(
            f"patch labels span [{int(labels.min())}, {int(labels.max())}]; they must be in [{IGNORED}, {classes - 1}]"
        )
