"""How well a linear probe tells the classes apart by the miniature DINOv2's patch features, and by raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.loading import load_patch_encoder
from patchword.toytown.classes import CLASSES
from patchword.toytown.world import Scene
from tools.miniatures.checkpoints import check_counts
from tools.miniatures.dino_targets import PATCH
from tools.miniatures.pool import draw_pool


@dataclass(frozen=True)
class ProbeMeasurement:
    """Mean class accuracy in [0, 1] of linear probes on patches of unseen scenes.

    Attributes:
        features: of the encoder's patch features.
        pixels: of the raw pixels of the patches.
        per_class: of every class that occurs, by the encoder's features.
    """

    features: float
    pixels: float
    per_class: dict[str, float]


def patch_classes(scene: Scene, *, majority: float = 0.6) -> Tensor:
    """Majority class of every patch, (h/8 * w/8,) int64; -1 where no class fills the majority of the patch."""
    classes = torch.from_numpy(scene.classes).long()
    tiles = classes.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).flatten(2).flatten(0, 1)  # (n, 64)
    counts = functional.one_hot(tiles, len(CLASSES)).sum(1)  # (n, classes)
    share, choice = counts.max(1)
    return torch.where(share >= majority * PATCH * PATCH, choice, -1)


def raw_pixels(images: Tensor) -> Tensor:
    """The pixels of every patch as its feature: (b, 3, h, w) -> (b, 192, h/8, w/8)."""
    return functional.pixel_unshuffle(images, PATCH)


def fit_probe(
    features: Tensor, labels: Tensor, *, steps: int = 600, rate: float = 0.03, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Fit class-balanced multinomial logistic regression.

    Args:
        features: (n, d) standardised inside.
        labels: (n,) class numbers.
        steps, rate, seed: of Adam on batches of 8,192.

    Returns:
        a function from features (n, d) to predicted classes (n,).
    """
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    classes = len(CLASSES)
    line = torch.nn.Linear(features.shape[1], classes)
    torch.nn.init.zeros_(line.weight)
    torch.nn.init.zeros_(line.bias)
    frequency = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    balance = frequency.sum() / (classes * frequency)
    optimiser = torch.optim.Adam(line.parameters(), lr=rate, weight_decay=1e-5)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        rows = torch.randint(len(features), (8192,), generator=generator)
        logits = line((features[rows] - mean) / deviation)
        loss = functional.cross_entropy(logits, labels[rows], weight=balance)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return lambda rows: line((rows - mean) / deviation).argmax(1)


def mean_class_accuracy(predicted: Tensor, labels: Tensor) -> tuple[float, dict[str, float]]:
    """Accuracy of every class that occurs, and their mean."""
    each = {
        name: float((predicted[labels == number] == number).float().mean())
        for number, name in enumerate(CLASSES)
        if bool((labels == number).any())
    }
    return sum(each.values()) / len(each), each


@torch.no_grad()
def _extract(scenes: list[Scene], encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    features, labels = [], []
    for scene in scenes:
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
        kinds = patch_classes(scene)
        found = encode(image)[0].flatten(1).T  # (n, d)
        features.append(found[kinds >= 0])
        labels.append(kinds[kinds >= 0])
    return torch.cat(features), torch.cat(labels)


def measure_dino(folder: Path, *, train: int = 1500, test: int = 200, style_every: int = 4) -> ProbeMeasurement:
    """Probe a saved encoder on scenes that nothing was trained on.

    Args:
        folder: checkpoint of a DINOv2.
        train: scenes of the purpose "probe" that the line is fitted on.
        test: scenes of the purpose "validate" that it is judged on.
        style_every: every so manyth scene is drawn at dusk; 0 for none.

    Returns:
        the mean class accuracies.

    Raises:
        PatchwordError: on a folder without an encoder, one of another patch size than 8, or fewer than 1 scenes.
    """
    check_counts("measuring the miniature DINOv2", train=train, test=test)
    encoder = load_patch_encoder(str(folder), device="cpu")
    if encoder.record.patch_size != PATCH:
        raise PatchwordError(f"{folder} has patches of {encoder.record.patch_size} pixels; they must have {PATCH}")
    known = draw_pool("probe", count=train, dusk_every=style_every)
    unseen = draw_pool("validate", count=test, dusk_every=style_every)
    scores = []
    for encode in (encoder, raw_pixels):
        features, labels = _extract(known, encode)
        probe = fit_probe(features, labels)
        features, labels = _extract(unseen, encode)
        with torch.no_grad():
            scores.append(mean_class_accuracy(probe(features), labels))
    return ProbeMeasurement(scores[0][0], scores[1][0], scores[0][1])
