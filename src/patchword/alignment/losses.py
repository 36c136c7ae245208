"""T-SupCon: the patch-text and the patch-patch term of the alignment (equations 1 and 2 of the paper).

The paper's equations are sums over anchors. Here every sum over anchors is divided by the number of its anchors
[chosen]: patches that have a positive, classes present, labelled patches. So the scale of a term, and with it the
learning rate and the weights, depends neither on the size of the batch nor on how much of it is labelled.

No term ever holds more similarities than `similarity_bound`, or half of it and so on where memory runs out, and no
patches are aligned that no term looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment.logsumexp import weighted_logsumexp
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError

IGNORED = -1
"""The label of a patch that no term looks at."""


class Groups(NamedTuple):
    """Patches by class or by mask, counted where the labels are, so that a device is never asked how many there are.

    Attributes:
        present: (g,) those that have a patch, ascending.
        members: (n,) positions in `present`, one a patch.
        counts: (g,) patches of each.
        largest: patches of the one that has most; 0 without patches.
    """

    present: Tensor
    members: Tensor
    counts: Tensor
    largest: int

    @classmethod
    def of(cls, labels: Tensor) -> Groups:
        """Those of (n,) labels, none ignored."""
        present, members, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        return cls(present, members, counts, int(counts.max()) if len(counts) else 0)


class PatchSample(NamedTuple):
    """The patches of a step; no other needs to be aligned.

    Attributes:
        kept: (k,) positions in the batch, ascending, of all patches that a term looks at.
        text: (m,) positions in `kept` of those in the patch-text term, ascending.
        pairs: (q,) positions in `kept` of those in the patch-patch term.
        masks: (r,) positions in `kept` of those in the patch-mask term, ascending.
        text_classes, pair_classes, regions: the classes, or masks, of each of these three.
    """

    kept: Tensor
    text: Tensor
    pairs: Tensor
    masks: Tensor
    text_classes: Groups
    pair_classes: Groups
    regions: Groups


def draw_sample(
    labels: Tensor,
    *,
    settings: AlignSettings,
    generator: torch.Generator | None = None,
    regions: Tensor | None = None,
) -> PatchSample:
    """Draw the patches of a step from the labels alone, on the host, before any is aligned.

    The patch-patch term gets a sample that is balanced over the classes, the patch-text term one in which every
    labelled patch is as likely, which leaves the expected mean over patches as it is.

    Args:
        labels: (n,) class of each patch, -1 = ignored.
        regions: (n,) mask of each patch, -1 = none; None without masks.
    """
    labelled = (labels != IGNORED).nonzero()[:, 0]
    nothing = labelled[:0]
    pairs = text = masks = nothing
    if settings.loss in ("t-supcon", "patch-patch"):
        pairs = labelled[balanced_sample(labels[labelled], most=settings.patch_sample, generator=generator)]
    if settings.loss != "patch-patch":
        drawn = _uniform_sample(len(labelled), most=settings.text_sample, generator=generator)
        text = labelled[drawn]
    if regions is not None:
        inside = (regions != IGNORED).nonzero()[:, 0]
        masks = inside[_uniform_sample(len(inside), most=settings.text_sample, generator=generator)]
    kept: Tensor = torch.unique(torch.cat([pairs, text, masks]))  # sorted
    return PatchSample(
        kept,
        text=torch.searchsorted(kept, text),
        pairs=torch.searchsorted(kept, pairs),
        masks=torch.searchsorted(kept, masks),
        text_classes=Groups.of(labels[text]),
        pair_classes=Groups.of(labels[pairs]),
        regions=Groups.of(nothing if regions is None else regions[masks]),
    )


def balanced_sample(labels: Tensor, *, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw at most `most` patches at random, as evenly over the classes as their numbers allow.

    Each class gives its patches in a random order, one a round, until the sample is full; a class that runs out leaves
    its share to the others.

    Args:
        labels: (n,) classes, none ignored.

    Returns:
        Indices into `labels`, (min(n, most),), without repetition.
    """
    if len(labels) <= most:
        return torch.arange(len(labels))
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = labels[shuffled].argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    rounds = torch.arange(len(labels)) - starts[labels[shuffled][by_class]]
    # Within a round the order of the shuffle decides, so that no class is preferred in the last, partial round.
    round_of = torch.empty_like(rounds).scatter_(0, by_class, rounds)
    return shuffled[round_of.argsort(stable=True)[:most]]


def _uniform_sample(count: int, *, most: int, generator: torch.Generator | None) -> Tensor:
    """At most `most` of `count` positions, ascending, (min(count, most),) on the CPU."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:most].sort().values


TERMS = ("patch_patch", "text_anchor", "patch_anchor", "patch_mask")
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
    patch_mask: Tensor


@dataclass(frozen=True)
class MaskTargets:
    """Which mask patches lie in, and what they are drawn to there.

    Attributes:
        regions: (..., h, w) integers, rows of `vectors`; -1 for patches in no mask.
        vectors: (m, d) unit vectors in the text space, one a mask.
    """

    regions: Tensor
    vectors: Tensor


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
        text: (c, d) unit text embeddings of the classes, frozen.
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
    targets: Tensor | None = None,
) -> LossTerms:
    """Compute the loss of patches that were drawn before, as `t_supcon` does.

    Args:
        z: (k, d) aligned patches, those that `sample.kept` names.
        labels: (k,) their classes; text: (c, d); temperature: of the patch-text term.
        targets: (g, d) what patches in each mask of `sample.regions` are drawn to; None without the patch-mask term.
    """
    off = z.sum() * 0.0 + temperature * 0.0  # keeps the graph, so that a batch without labels is stepped like any other
    terms = dict.fromkeys(TERMS, off)
    bound = settings.similarity_bound or default_bound(z.device)
    for name in terms_of(settings):
        chosen = sample.pairs if name == "patch_patch" else sample.text
        vectors, classes = z[chosen], labels[chosen]
        if name == "patch_patch":
            loss = patch_patch_loss(
                vectors, classes, temperature=settings.patch_temperature, bound=bound, groups=sample.pair_classes
            )
        elif name == "text_anchor":
            groups = sample.text_classes
            loss = text_anchor_loss(vectors, classes, text, temperature=temperature, bound=bound, groups=groups)
        else:
            smoothing = settings.label_smoothing
            loss = patch_anchor_loss(vectors, classes, text, temperature=temperature, bound=bound, smoothing=smoothing)
        terms[name] = off + loss
    if targets is not None:
        chosen = z[sample.masks]
        loss = patch_mask_loss(chosen, sample.regions, targets, temperature=settings.mask_temperature, bound=bound)
        terms["patch_mask"] = off + loss
    patch_text = terms["text_anchor"] + terms["patch_anchor"]
    total = settings.patch_text_weight * patch_text + settings.patch_patch_weight * terms["patch_patch"]
    total = total + settings.mask_weight * terms["patch_mask"]
    return LossTerms(total, **terms)


def default_bound(device: torch.device) -> int:
    """How many similarities are held at once where the setting is none: on a CPU what is fastest, on a GPU 1 GiB."""
    return 2**28 if device.type == "cuda" else 2**20


def terms_of(settings: AlignSettings) -> tuple[str, ...]:
    """The names of the terms that the loss of these settings has.

    Cross entropy against the text embeddings is the patch-anchor reading alone (equation 2 of the paper).
    """
    readings = _READINGS[settings.patch_text]
    return {
        "t-supcon": ("patch_patch", *readings),
        "patch-text": readings,
        "patch-patch": ("patch_patch",),
        "cross-entropy": ("patch_anchor",),
    }[settings.loss]


def patch_patch_loss(
    z: Tensor, labels: Tensor, *, temperature: float, bound: int, groups: Groups | None = None
) -> Tensor:
    """Supervised contrastive loss among patches: mean over anchors i that have a positive of

    -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p/tau) / sum_{a != i} exp(z_i.z_a/tau) ), P(i) the other patches of i's
    class.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; temperature: tau > 0.
        groups: those of the labels, where they are known.
    """
    _, members, counts, largest = groups or Groups.of(labels)
    if largest < 2:
        return z.sum() * 0.0
    anchors = counts[members] > 1
    weights = anchors.to(z.dtype) / anchors.sum()
    normalisers = weighted_logsumexp(z, z, weights, temperature=temperature, bound=bound, own=False)
    # The positives of i are its class without itself. Summed over a class of m patches with the sum s, the similarities
    # to positives are s.s minus each patch with itself, and every anchor of the class has the same m - 1 of them.
    # A product of matrices adds up in the same order on every machine, which adding by index does not.
    of_class = functional.one_hot(members, len(counts)).to(z.dtype).T  # (classes present, n)
    pairs = (of_class @ z).square().sum(dim=1) - of_class @ z.square().sum(dim=1)  # (classes present,)
    loss: Tensor = normalisers - (pairs / (counts - 1).clamp(min=1)).sum() / (temperature * anchors.sum())
    return loss


def text_anchor_loss(
    z: Tensor,
    labels: Tensor,
    text: Tensor,
    *,
    temperature: Tensor | float,
    bound: int,
    groups: Groups | None = None,
) -> Tensor:
    """Patch-text term with the text as anchor: mean over the classes c that are present of

    -1/|P(c)| sum_{p in P(c)} log( exp(t_c.z_p/tau) / sum_{a in batch} exp(t_c.z_a/tau) ), P(c) the patches of class c.

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    present, members, counts, _ = groups or Groups.of(labels)
    weights = z.new_full((len(present),), 1 / len(present))
    normalisers = weighted_logsumexp(text[present], z, weights, temperature=temperature, bound=bound)
    # Each patch weighs 1/|P(c)|, so one sum over the patches is the sum over the classes of their means.
    to_own_text = ((z * text[labels]).sum(dim=1) / counts[members]).sum() / temperature
    loss: Tensor = normalisers - to_own_text / len(present)
    return loss


def patch_anchor_loss(
    z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float, bound: int, smoothing: float = 0.0
) -> Tensor:
    """Patch-text term with the patch as anchor: mean over patches i of -sum_c q_ic log softmax_c(z_i.t_c/tau).

    q_ic is 1 for i's class and 0 for others [paper]. Pseudo labels are sometimes wrong: of n classes each gets s/n of
    every label, and i's class 1 - s more, s being the smoothing (arXiv 1512.00567) [chosen].

    Args:
        z: (n, d) unit patches; labels: (n,) classes, none ignored; text: (c, d) unit; temperature: tau > 0.
        smoothing: s in [0, 1).
    """
    if len(z) == 0:
        return z.sum() * 0.0
    weights = z.new_full((len(z),), 1 / len(z))
    normalisers = weighted_logsumexp(z, text, weights, temperature=temperature, bound=bound)
    wanted = torch.lerp(text[labels], text.mean(dim=0), smoothing)  # (n, d)
    loss: Tensor = normalisers - (z * wanted).sum() / (temperature * len(z))
    return loss


def patch_mask_loss(z: Tensor, masks: Groups, targets: Tensor, *, temperature: float, bound: int) -> Tensor:
    """Patch-mask term: mean over the masks m that are present of the mean over their patches i of

    -log softmax_m'(z_i.e_m' / tau)[m], over all masks that are present [chosen].

    It draws patches to what CLIP sees in their mask, in words or not, so that the module learns more of CLIP's space
    than the directions of the class names (in the manner of PixelCLIP, arXiv 2409.19846).

    Args:
        z: (n, d) unit patches; masks: that they are in; targets: (g, d) unit, one a mask; temperature: tau > 0.
    """
    if len(z) == 0:
        return z.sum() * 0.0
    targets, own = targets.to(z), masks.members
    weights = 1 / (len(targets) * masks.counts[own].to(z.dtype))
    normalisers = weighted_logsumexp(z, targets, weights, temperature=temperature, bound=bound)
    loss: Tensor = normalisers - weights @ (z * targets[own]).sum(dim=1) / temperature
    return loss


def check_labels(labels: Tensor, *, classes: int) -> None:
    """Refuse labels that name no class."""
    if len(labels) and (int(labels.min()) < IGNORED or int(labels.max()) >= classes):
        raise PatchwordError(
            f"patch labels span [{int(labels.min())}, {int(labels.max())}]; they must be in [{IGNORED}, {classes - 1}]"
        )
