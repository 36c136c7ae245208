"""The record of an evaluation: what was compared by which rule, what came out, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchword.config.evaluate import ScoringSettings
from patchword.errors import warn
from patchword.evaluation.confusion import Counts
from patchword.evaluation.counts import (
    Gathered,
    Interval,
    mean_of_known,
    percentiles,
    ratio,
    resampled_sums,
)
from patchword.evaluation.masks import DataRecord
from patchword.evaluation.records import ImageScore, SetupRecord, colours_of
from patchword.runs.records import Record, ShardRecord
from patchword.versions import versions

if TYPE_CHECKING:
    from rich.table import Table


REPORT_FILE = "evaluation.json"
RULE = (
    "one confusion matrix over all pixels of all images; masks are never resized; a pixel whose mask is ignore counts "
    "nowhere; a pixel without a prediction is a miss of its class; a class in neither masks nor predictions is left "
    "out of the means; boundaries by class, intersections and unions summed over all images; intervals by resampling "
    "images"
)


class ClassReport(Record):
    """The numbers of one class: shares in [0, 1], None where there is nothing to measure, and counts in pixels."""

    name: str
    iou: float | None
    iou_interval: Interval | None = None
    accuracy: float | None
    boundary_iou: float | None = None
    truth_pixels: int
    predicted_pixels: int
    correct_pixels: int
    images: int
    confused_with: str | None


class EvaluationReport(Record):
    """A score and all that it depends on. A notebook shows it as tables.

    Attributes:
        miou: mean IoU in [0, 1] over the classes in masks or predictions; None when no pixel counts.
        frequency_weighted_iou: mean IoU weighted by the classes' pixels in the masks.
        boundary_iou: mean Boundary IoU over the classes with a boundary in masks or predictions; None unmeasured.
        pixel_accuracy: share in [0, 1] of the pixels with a class in the masks that are predicted rightly.
        mean_accuracy: mean over the classes in the masks of the share of their pixels that is predicted rightly.
        coverage: share in [0, 1] of the pixels with a class in the masks that have any prediction.
        intervals: lowest and highest of each of these over resamples of the images; empty without resamples.
        chance: what predicting without looking scores.
        images, pixels: how many were compared; pixels only where the masks have a class.
        pixels_ignored: of the same images, those whose mask does not count.
        classes: one entry a class, in the order of the class list.
        data: photographs and masks, and how they were read.
        predicted_by: kind and place of what was evaluated.
        scoring: what was measured and how.
        vocabulary, vocabulary_hash: the class list in its text format, and its SHA-256.
        shard: which part of the images this is; None for all of them.
        command: the command line, where there was one.
        versions: software by name.
        rule: the rule of the numbers in words.
    """

    format: Literal["patchword-evaluation"] = "patchword-evaluation"
    format_version: Literal[2] = 2
    miou: float | None
    frequency_weighted_iou: float | None
    boundary_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    coverage: float | None
    intervals: dict[str, Interval | None]
    chance: Chance | None
    images: int
    pixels: int
    pixels_ignored: int = 0
    classes: tuple[ClassReport, ...]
    data: DataRecord
    predicted_by: dict[str, Any]
    scoring: ScoringSettings
    vocabulary: str
    vocabulary_hash: str
    shard: ShardRecord | None
    command: str | None
    versions: dict[str, str]
    rule: str = RULE

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {percent(value)}" for name, value in self.scores().items())
        return f"EvaluationReport({self.images} images: {told})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from patchword.visualization.notebook import notebook_html
        from patchword.visualization.pages import hex_colour

        classes = [entry for entry in self.classes if entry.iou is not None]
        colours = colours_of([entry.name for entry in self.classes], vocabulary=self.vocabulary).tolist()
        return notebook_html(
            f"Evaluation of {self.images:,} images",
            facts=[(name, percent(value)) for name, value in self.scores().items()],
            columns=("class", "IoU", "interval", "accuracy", "images", "most confused with"),
            rows=[
                (
                    entry.name,
                    percent(entry.iou),
                    percent_between(entry.iou_interval),
                    percent(entry.accuracy),
                    f"{entry.images:,}",
                    entry.confused_with or "",
                )
                for entry in classes
            ],
            colours={entry.name: hex_colour(colour) for entry, colour in zip(self.classes, colours, strict=True)},
        )

    def scores(self) -> dict[str, float | None]:
        """The scores over all classes by name, those that were measured."""
        found = {name: getattr(self, field) for field, name in SCORES.items()}
        return {name: value for name, value in found.items() if value is not None or name == "mIoU"}

    def absent(self) -> list[str]:
        """Names of the classes that no pixel of the masks has."""
        return [entry.name for entry in self.classes if not entry.truth_pixels]

    def ignored(self) -> str:
        """How many pixels do not count, and where that is a matter of their value, which."""
        told = f"{self.pixels_ignored:,} of {self.pixels + self.pixels_ignored:,} pixels do not count"
        if self.data.benchmark is not None:
            return told
        value = str(self.data.reading.get("ignore_index", "255 (of 16-bit masks 65535)"))
        return f"{told}: their value is {f'0 or {value}' if self.data.reading.get('zero_is') == 'ignore' else value}"

    def remarks(self) -> list[str]:
        """What must be known of the scores, a sentence each."""
        absent, found = self.absent(), list(self.data.remarks)
        if absent and self.shard is None:
            more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
            found.append(f"No pixel of the masks is of {', '.join(absent[:_NAMED])}{more}.")
            if self.pixels_ignored:
                found.append(f"{self.ignored()}.")
        return found


_NAMED = 10  # classes that a remark names
SCORES = {
    "miou": "mIoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_iou": "Boundary IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "coverage": "coverage",
}


def gather(setup: SetupRecord, images: Sequence[ImageScore]) -> Gathered:
    """Add up the counts of images, sorted by name, none of them failed."""
    count = len(setup.classes)
    counted = (image.counts(count) for image in images)  # one in memory at a time
    gathered = Gathered.of(counted, count=count, boundary=setup.scoring.boundary)
    return replace(gathered, area=sum(math.prod(image.size) for image in images if image.size is not None))


def make_report(setup: SetupRecord, gathered: Gathered, *, command: str = "") -> EvaluationReport:
    """Put the scores of images and where they come from into one record."""
    scoring, whole = setup.scoring, gathered.whole
    resampled = scoring.resamples and len(gathered.sums)
    intervals, by_class = _intervals(gathered.sums, scoring) if resampled else ({}, [None] * len(setup.classes))
    matrix, boundary = whole.matrix, whole.boundary_iou()
    known = [value for value in boundary if value is not None]
    miou, pixels = matrix.mean_iou(), int(whole.table.sum())
    least = (intervals.get("miou") or (miou,))[0]
    report = EvaluationReport(
        miou=miou,
        frequency_weighted_iou=matrix.frequency_weighted_iou(),
        boundary_iou=sum(known) / len(known) if known else None,
        pixel_accuracy=matrix.pixel_accuracy(),
        mean_accuracy=matrix.mean_accuracy(),
        coverage=matrix.coverage(),
        intervals=intervals,
        chance=chance_of(whole.table, names=setup.classes, least=least),
        images=len(gathered.sums),
        pixels=pixels,
        pixels_ignored=max(0, gathered.area - pixels),
        classes=tuple(
            ClassReport(
                name=name,
                iou=score.iou,
                iou_interval=by_class[score.index],
                accuracy=score.accuracy,
                boundary_iou=boundary[score.index],
                truth_pixels=score.truth_pixels,
                predicted_pixels=score.predicted_pixels,
                correct_pixels=score.correct_pixels,
                images=int(gathered.seen[score.index]),
                confused_with=None if score.confused_with is None else setup.classes[score.confused_with],
            )
            for name, score in zip(setup.classes, matrix.per_class(), strict=True)
        ),
        data=setup.data,
        predicted_by=setup.predicted_by,
        scoring=scoring,
        vocabulary=setup.vocabulary.text,
        vocabulary_hash=setup.vocabulary.hash,
        shard=setup.shard,
        command=command or None,
        versions=versions(),
    )
    if not report.pixels and report.shard is None:
        warn(f"nothing is scored: no pixel of the masks has a class; {report.ignored()}")
    return report


def _intervals(images: Counts, scoring: ScoringSettings) -> tuple[dict[str, Interval | None], list[Interval | None]]:
    """Of every score over all classes, and of every class's IoU."""
    sums = resampled_sums(images, resamples=scoring.resamples, seed=scoring.seed)
    right, truth, predicted, spoken, edge, edges = np.moveaxis(sums, -1, 0)  # (resamples, classes) each
    ious = ratio(right, truth + predicted - right)
    pixels = truth.sum(axis=1)
    scores = {
        "miou": mean_of_known(ious),
        "frequency_weighted_iou": ratio(np.nansum(truth * ious, axis=1), pixels),
        "boundary_iou": mean_of_known(ratio(edge, edges)),
        "pixel_accuracy": ratio(right.sum(axis=1), pixels),
        "mean_accuracy": mean_of_known(ratio(right, truth)),
        "coverage": ratio(spoken.sum(axis=1), pixels),
    }
    found = percentiles(np.stack(list(scores.values()), axis=1), level=scoring.level)
    return dict(zip(scores, found, strict=True)), percentiles(ious, level=scoring.level)


def class_table(report: EvaluationReport) -> Table:
    """The per-class table for a terminal, classes that occur nowhere left out, the means in the last line."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{report.images:,} image{'' if report.images == 1 else 's'}, {report.pixels:,} pixels", show_footer=True
    )
    table.add_column("class", "mean")
    table.add_column("IoU", percent(report.miou), justify="right")
    if report.boundary_iou is not None:
        table.add_column("boundary", percent(report.boundary_iou), justify="right")
    table.add_column("accuracy", percent(report.mean_accuracy), justify="right")
    table.add_column("pixels", f"{report.pixels:,}", justify="right")
    table.add_column("most confused with")
    for entry in report.classes:
        if entry.iou is not None:
            boundary = [percent(entry.boundary_iou)] if report.boundary_iou is not None else []
            numbers = [percent(entry.iou), *boundary, percent(entry.accuracy), f"{entry.truth_pixels:,}"]
            table.add_row(Text(entry.name), *numbers, Text(entry.confused_with or ""))
    return table


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal, or with the first digit that is not 0; a dash for none."""
    if share is None:
        return "-"
    return f"{100 * share:.1g}%" if 0 < share < 0.00095 else f"{share:.1%}"


def percent_between(interval: Interval | None) -> str:
    """An interval of shares as percentages with one decimal; empty where there is none."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {interval[1]:.1%}"


class Chance(Record):
    """Scores of predictions that know nothing of the images, over the same pixels and classes.

    Attributes:
        constant_miou: mean IoU, in [0, 1], of saying `constant_class` everywhere, over the classes of the masks.
        constant_class: the class with most pixels in the masks.
        random_miou: mean IoU, as expected, of the predictions' own classes dealt out to random pixels.
        at_chance: whether the score is not surely above both: its interval (without one, the score) reaches them.
    """

    constant_miou: float
    constant_class: str
    random_miou: float
    at_chance: bool


def chance_of(table: Counts, *, names: Sequence[str], least: float | None) -> Chance | None:
    """The level of chance of pixels (n, n + 1), as `ConfusionMatrix` counts them; None where no pixel counts.

    `least` is the lowest mean IoU that is likely; None when there is no score.
    """
    truth, predicted = table.sum(axis=1), table.sum(axis=0)[:-1]
    pixels = int(truth.sum())
    if not pixels or least is None:
        return None
    most = int(truth.argmax())
    constant = int(truth[most]) / pixels / int(np.count_nonzero(truth))  # the other classes have an IoU of 0
    ious = []
    for expected, found in zip(truth.tolist(), predicted.tolist(), strict=True):
        if expected or found:  # independent of each other: a pixel has both with the product of their shares
            both = expected * found / pixels
            ious.append(both / (expected + found - both))
    dealt = sum(ious) / len(ious)
    return Chance(
        constant_miou=constant,
        constant_class=names[most],
        random_miou=dealt,
        at_chance=least <= max(constant, dealt),
    )
