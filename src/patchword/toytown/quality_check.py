"""Whether the score of labels, made without ground truth, ranks images as exact masks do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.evaluation.confusion import ConfusionMatrix
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.quality.records import QualityParts, QualityRecord

Values = NDArray[np.float64]
FEWEST_IMAGES = 5
"""Below that there are no fifths to compare."""
_MEASURES = ("contested", "margin", "stability", "entropy", "detection_entropy")
_GOOD_WHEN_LOW = frozenset({"contested", "entropy", "detection_entropy"})


@dataclass(frozen=True)
class Correlation:
    """How one number of the images ranks them, beside their true mIoU.

    Attributes:
        spearman: rank correlation with the true mIoU, in [-1, 1]; none for a number that is the same everywhere.
            Numbers that are good when low count negated, so that a useful one is above 0 in any case.
        accuracy: the same with the true pixel accuracy.
        worst_fifth, best_fifth: mean true mIoU of the fifth of the images that it ranks lowest and highest.
    """

    spearman: float | None
    accuracy: float | None
    worst_fifth: float
    best_fifth: float


@dataclass(frozen=True)
class QualityCheck:
    """What the score of the labels of scenes is worth.

    Attributes:
        images: that were compared: those whose exact masks have a class.
        miou, pixel_accuracy: true ones, means over the images.
        score: of the whole score.
        interval: 95 % of the bootstrap around the score's `spearman`.
        parts: of each part and measure that is known for all images, alone.
    """

    images: int
    miou: float
    pixel_accuracy: float
    score: Correlation
    interval: tuple[float, float]
    parts: dict[str, Correlation]


def check_quality(labels: LabelledDataset, *, masks: Path, resamples: int = 1000, seed: int = 0) -> QualityCheck:
    """Hold the score of every image against its exact mask, which labelling never saw.

    An image's true mIoU is the mean IoU over the classes in its exact mask or its labels; pixels without a class in the
    exact mask count nowhere, those without a label are missed.

    Args:
        labels: of scenes.
        masks: folder of their exact masks, `<name>.png` over the same classes.
        resamples: of the bootstrap, 1 or more.
        seed: of the bootstrap.
    """
    records: list[QualityRecord] = []
    truths = []
    for item, record in zip(labels.items, labels.quality(), strict=True):
        truth = true_scores(item.label_map, masks / f"{record.name}.png", names=labels.vocabulary.names)
        if truth is not None:
            records.append(record)
            truths.append(truth)
    if len(records) < FEWEST_IMAGES:
        raise PatchwordError(
            f"{len(records)} images have exact masks with a class; at least {FEWEST_IMAGES} are needed"
        )
    miou, accuracy = np.array(truths).T  # (n,), (n,)
    scores = np.array([record.score for record in records])
    return QualityCheck(
        images=len(records),
        miou=float(miou.mean()),
        pixel_accuracy=float(accuracy.mean()),
        score=_correlate(scores, miou, accuracy),
        interval=bootstrap(scores, miou, resamples=resamples, seed=seed),
        parts={name: _correlate(values, miou, accuracy) for name, values in _numbers(records).items()},
    )


def true_scores(label_map: Path, mask: Path, *, names: tuple[str, ...]) -> tuple[float, float] | None:
    """True mIoU and pixel accuracy of one image, in [0, 1]; none where the exact mask has no class."""
    matrix = ConfusionMatrix(len(names))
    labels, truth = LabelMap.load(label_map, names=names), LabelMap.load(mask, names=names)
    matrix.update(labels.indices, truth.indices, ignore=truth.ignore)
    miou, accuracy = matrix.mean_iou(), matrix.pixel_accuracy()
    return None if miou is None or accuracy is None else (miou, accuracy)


def spearman(first: Values, second: Values) -> float | None:
    """Spearman's rank correlation of two samples (n,), in [-1, 1]; equal values share their mean rank.

    Returns:
        the correlation; none where all values of a sample are equal.
    """
    one, other = ranks(first), ranks(second)
    spread = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread else None


def ranks(values: Values) -> Values:
    """Rank of each value (n,) from 0 on; equal ones share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: Values = np.cumsum(counts) - (counts + 1) / 2
    return mean[places]


def bootstrap(first: Values, second: Values, *, resamples: int, seed: int) -> tuple[float, float]:
    """The middle 95 % of the rank correlation over samples drawn with replacement."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(first), size=(resamples, len(first)))
    found = [value for rows in chosen if (value := spearman(first[rows], second[rows])) is not None]
    low, high = np.quantile(found or [0.0], [0.025, 0.975]).tolist()
    return low, high


def fifths(values: Values, truth: Values) -> tuple[float, float]:
    """Mean truth of the fifth of lowest and of highest values, at least one each; of equal ones the first is lower."""
    order = np.argsort(values, kind="stable")
    count = max(1, len(values) // 5)
    return float(truth[order[:count]].mean()), float(truth[order[-count:]].mean())


def _correlate(values: Values, miou: Values, accuracy: Values) -> Correlation:
    worst, best = fifths(values, miou)
    return Correlation(spearman(values, miou), spearman(values, accuracy), worst, best)


def _numbers(records: Sequence[QualityRecord]) -> dict[str, Values]:
    """Every part and measure that all records have, as (n,) values that are high for good labels."""
    columns = {name: [getattr(record.parts, name) for record in records] for name in QualityParts.model_fields}
    columns |= {name: [getattr(record, name) for record in records] for name in _MEASURES}
    return {
        name: np.array(column, dtype=np.float64) * (-1 if name in _GOOD_WHEN_LOW else 1)
        for name, column in columns.items()
        if None not in column
    }
