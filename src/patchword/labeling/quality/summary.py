"""What the quality records and the manifest of a data set amount to: classes, distributions, the worst and the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from patchword.labeling.quality.records import QualityParts, QualityRecord
from patchword.labeling.records import ImageRecord
from patchword.runs.records import Record

_BINS = 20
_MOST_PAIRS = 200


class ClassSummary(Record):
    """One class of the vocabulary.

    Attributes:
        name: of the class.
        images: label maps that have it.
        masks: claims of it, also those that nothing survived of.
        pixels: in all label maps together.
        share: of all pixels with a label, in [0, 1].
        score: mean score of the images that have it; none where there are none.
    """

    name: str
    images: int
    masks: int
    pixels: int
    share: float
    score: float | None


class Pair(Record):
    """Two classes, and how many label maps have both."""

    first: str
    second: str
    images: int


class QualitySummary(Record):
    """What the labels of a data set are worth.

    Attributes:
        images, ok, empty, failed: photographs, and how many have each status; the other numbers are of those with
            labels, "ok".
        masks: claims.
        mean_score: none without labels.
        mean_parts: means of the parts, each over the images that have it.
        score_histogram, coverage_histogram: images in each twentieth of [0, 1]; 1 is in the last.
        classes: one entry a class, in the order of the vocabulary.
        together: the commonest pairs of classes, at most 200.
        worst, best: images by score, without their masks.
    """

    images: int
    ok: int
    empty: int
    failed: int
    masks: int
    mean_score: float | None
    mean_parts: dict[str, float | None]
    score_histogram: tuple[int, ...]
    coverage_histogram: tuple[int, ...]
    classes: tuple[ClassSummary, ...]
    together: tuple[Pair, ...]
    worst: tuple[QualityRecord, ...]
    best: tuple[QualityRecord, ...]


def summarise(
    records: Iterable[QualityRecord],
    *,
    images: Mapping[str, ImageRecord],
    names: tuple[str, ...],
    worst: int,
    best: int = 0,
) -> QualitySummary:
    """Add up the records of a data set; one of them is in memory at a time, but for the worst and the best.

    Args:
        records: of the photographs that did not fail.
        images: the manifest, by name.
        names: the vocabulary's classes, in order.
        worst, best: how many images to list; one may be in both.
    """
    total = _Total(worst=_First(worst), best=_First(best, highest=True))
    for record in records:
        total.add(record)
    status = Counter(record.status for record in images.values())
    labelled = sum(total.pixels.values())
    return QualitySummary(
        images=len(images),
        ok=status["ok"],
        empty=status["empty"],
        failed=status["failed"],
        masks=sum(total.masks.values()),
        mean_score=_mean(total.scores),
        mean_parts={name: _mean(values) for name, values in total.parts.items()},
        score_histogram=_histogram(total.scores),
        coverage_histogram=_histogram(total.parts["coverage"]),
        classes=tuple(
            ClassSummary(
                name=name,
                images=total.images[name],
                masks=total.masks[name],
                pixels=total.pixels[name],
                share=round(total.pixels[name] / max(labelled, 1), 6),
                score=round(total.score_sums[name] / total.images[name], 4) if total.images[name] else None,
            )
            for name in names
        ),
        together=_commonest(total.pairs),
        worst=total.worst.taken(),
        best=total.best.taken(),
    )


class _First:
    """The first records by score, lowest or highest first; of equal scores by name, in the same direction."""

    def __init__(self, count: int, *, highest: bool = False) -> None:
        self._count = count
        self._highest = highest
        self._records: list[QualityRecord] = []

    def add(self, record: QualityRecord) -> None:
        self._records.append(record)
        if len(self._records) > 2 * self._count + 100:
            self._records = list(self.taken())

    def taken(self) -> tuple[QualityRecord, ...]:
        ranked = sorted(self._records, key=lambda record: (record.score, record.name), reverse=self._highest)
        return tuple(ranked[: self._count])


class _Total:
    def __init__(self, *, worst: _First, best: _First) -> None:
        self.worst, self.best = worst, best
        self.scores: list[float] = []
        self.parts: dict[str, list[float]] = {name: [] for name in QualityParts.model_fields}
        self.images: Counter[str] = Counter()
        self.masks: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()
        self.score_sums: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()

    def add(self, record: QualityRecord) -> None:
        self.masks.update(mask.class_name for mask in record.masks)
        if not record.pixels:
            return
        light = record.model_copy(update={"masks": ()})
        self.worst.add(light)
        self.best.add(light)
        self.scores.append(record.score)
        for name, values in self.parts.items():
            value = getattr(record.parts, name)
            if value is not None:
                values.append(value)
        self.images.update(record.pixels.keys())
        self.pixels.update(record.pixels)
        for name in record.pixels:
            self.score_sums[name] += record.score  # type: ignore[assignment]  # counts anything that adds up
        self.pairs.update(combinations(sorted(record.pixels), 2))


def _commonest(pairs: Counter[tuple[str, str]]) -> tuple[Pair, ...]:
    ranked = sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0]))[:_MOST_PAIRS]
    return tuple(Pair(first=first, second=second, images=images) for (first, second), images in ranked)


def _histogram(values: list[float]) -> tuple[int, ...]:
    counts: Any = np.histogram(values, bins=_BINS, range=(0, 1))[0]
    return tuple(counts.tolist())


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
