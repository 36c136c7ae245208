"""Records of label quality: a line a photograph, what a model says against it, and the summary of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from patchword.config.base import Settings
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError
from patchword.labeling.records import ImageRecord
from patchword.runs.records import LineRecord, Record

DIGITS = 4
"""Of every share, so that a line stays short and says no more than it knows."""


class QualitySettings(Settings):
    """Numbers of the assessment; every default is [chosen]."""

    class_agreement_weight: float = Field(
        2.0, ge=0, description="Weight of `class_agreement` in the score; more punishes wrong names and missed classes"
    )
    pixel_agreement_weight: float = Field(
        1.0, ge=0, description="Weight of `pixel_agreement` in the score; more punishes what is wrong over large areas"
    )
    coverage_weight: float = Field(1.0, ge=0, description="Weight of `coverage` in the score; more punishes gaps")
    detection_weight: float = Field(1.0, gt=0, description="Weight of `detection` in the score; above 0")
    image_side: int = Field(
        192,
        ge=8,
        description="Rows and columns of points at which the generators are compared; an image of fewer pixels is "
        "compared pixel by pixel; more is exacter and slower",
    )
    mask_side: int = Field(
        64, ge=8, description="Rows and columns of points in a mask's box at which it is asked what survived of it"
    )


class MaskQuality(Record):
    """One mask, in the order of the segments' file.

    Attributes:
        class_name, generator: as in the segment.
        area: pixels inside.
        agreement: highest IoU of the mask with what the other generator claims for the class: any one of its masks, or
            all of them together that lie inside this one by more than half; 0 where it claims none; none where it did
            not run.
        survived: share of the mask that has its class in the label map.
        predicted_iou, similarity, stability, margin, entropy: as in the segment.
    """

    class_name: str
    generator: str
    area: int
    agreement: float | None
    survived: float
    predicted_iou: float
    similarity: float
    stability: float | None
    margin: float | None
    entropy: float | None


class QualityParts(Record):
    """What the score is made of, each in [0, 1] and high for labels to be trusted; none where it cannot be known."""

    class_agreement: float | None
    pixel_agreement: float | None
    coverage: float
    detection: float


class QualityRecord(Record):
    """One line of `quality.jsonl`.

    Attributes:
        name: of the photograph, as in the manifest.
        score: the parts' weighted mean, in [0, 1].
        parts: see the module.
        contested: share of the claimed pixels that no class got, in [0, 1].
        margin, stability, entropy: means over the masks that have them, weighed by area; none where none has.
        detection_entropy: of the vote, as `Detection` tells it.
        size: [height, width] in pixels.
        pixels: by class, of the label map, in the names' order; classes that have none are left out.
        masks: all claims.
    """

    name: str
    score: float
    parts: QualityParts
    contested: float
    margin: float | None
    stability: float | None
    entropy: float | None
    detection_entropy: float
    size: tuple[int, int]
    pixels: dict[str, int]
    masks: tuple[MaskQuality, ...]


def score_of(parts: QualityParts, *, settings: QualitySettings) -> float:
    """The parts' weighted mean, those left out that are not known; 0 where nothing has a label."""
    if parts.coverage == 0:
        return 0.0
    known = [
        (value, weight)
        for value, weight in (
            (parts.class_agreement, settings.class_agreement_weight),
            (parts.pixel_agreement, settings.pixel_agreement_weight),
            (parts.coverage, settings.coverage_weight),
            (parts.detection, settings.detection_weight),
        )
        if value is not None
    ]
    return round(sum(value * weight for value, weight in known) / sum(weight for _, weight in known), DIGITS)


DISAGREEMENT_FILE = "disagreement.jsonl"


class MaskUncertainty(Record):
    """How much a model contradicts one mask.

    Attributes:
        position: of the mask in the photograph's segments.
        class_name: what the labels say.
        doubt: mean over its labelled pixels of the model's confidence in another class, 0 where it agrees; 0 to 1.
        pixels: of the mask that the label map gives to its class.
        instead: the class that the model says most of them are.
    """

    position: int = Field(ge=0)
    class_name: str
    doubt: float = Field(ge=0, le=1)
    pixels: int = Field(ge=1)
    instead: str


class ImageUncertainty(LineRecord):
    """How much a model contradicts the labels of one photograph.

    Attributes:
        name: of the photograph.
        status: "failed" where it could not be looked at.
        doubt: as a mask's, over all labelled pixels; 0 where there are none.
        masks: those with pixels in the label map, most doubtful first.
        reason: why the photograph could not be looked at; none otherwise.
        of: hash of the model, the photograph and the labels that were compared; none where an earlier version did.
    """

    status: Literal["ok", "failed"] = "ok"
    doubt: float = Field(ge=0, le=1)
    masks: tuple[MaskUncertainty, ...]
    reason: str | None = None
    of: str | None = None


def read_doubts(folder: Path) -> tuple[ImageUncertainty, ...]:
    """The doubts about the labels in a folder, most doubtful photograph first; empty where no model was asked."""
    path = folder / DISAGREEMENT_FILE
    try:
        return by_uncertainty(ImageUncertainty.model_validate(line) for line in Manifest(path).read().values())
    except ValidationError as error:
        raise PatchwordError(f"{path} is damaged: {error.errors()[0]['msg']}; make it again or delete it") from None


def by_uncertainty(records: Iterable[ImageUncertainty]) -> tuple[ImageUncertainty, ...]:
    """Most doubtful first; those that could not be looked at last."""
    return tuple(sorted(records, key=lambda record: (record.reason is not None, -record.doubt, record.name)))


def worst_masks(records: Sequence[ImageUncertainty]) -> list[tuple[str, MaskUncertainty]]:
    """All masks of all photographs with the photographs' names, most doubtful first; of equal ones the larger."""
    flat = [(record.name, mask) for record in records for mask in record.masks]
    return sorted(flat, key=lambda entry: (-entry[1].doubt, -entry[1].pixels, entry[0], entry[1].position))


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

    def __repr__(self) -> str:
        score = "no score" if self.mean_score is None else f"mean score {self.mean_score:.3f}"
        return f"QualitySummary({self.images} photographs, {self.ok} with labels: {score})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from patchword.visualization.notebook import notebook_html
        from patchword.visualization.pages import number, percent

        parts = [(f"mean {name.replace('_', ' ')}", number(value)) for name, value in self.mean_parts.items()]
        return notebook_html(
            f"Label quality of {self.images:,} photographs",
            facts=[
                ("with labels", f"{self.ok:,}"),
                ("without any", f"{self.empty:,}"),
                ("failed", f"{self.failed:,}"),
                ("mean score", number(self.mean_score)),
                *parts,
            ],
            columns=("class", "photographs", "masks", "share of labels", "mean score"),
            rows=[
                (row.name, f"{row.images:,}", f"{row.masks:,}", percent(row.share), number(row.score))
                for row in self.classes
            ],
        )


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
