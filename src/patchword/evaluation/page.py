"""What the page of an evaluation shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from patchword.evaluation.counts import Interval
from patchword.evaluation.pictures import GAP, MISSED, PANELS, WRONG, FailureCase
from patchword.evaluation.records import ImageScore, colours_of
from patchword.evaluation.report import SCORES, EvaluationReport, percent
from patchword.visualization.pages import encoded, hex_colour, render_page

PAGE_FILE = "report.html"
_BINS = 20
_QUALITY = 85  # of the panels that are cut from the picture of an image
_MEANINGS = {
    "miou": "intersection over union of each class over all images, averaged over the classes",
    "frequency_weighted_iou": "the same, with each class weighted by its pixels in the masks",
    "boundary_iou": "the same, over the pixels near contours only",
    "pixel_accuracy": "share of the masks' pixels that are predicted correctly",
    "mean_accuracy": "the same for each class, averaged over the classes",
    "coverage": "share of the masks' pixels that have any prediction",
}


@dataclass(frozen=True)
class Score:
    """A score over all classes, as a row of the page's table."""

    name: str
    value: float
    interval: Interval | None
    meaning: str


@dataclass(frozen=True)
class Case:
    """One of the images of lowest score.

    Attributes:
        record: its scores.
        panels: JPEG files in the order of `PANELS`; empty where there is no picture.
        classes: name, colour and nothing more of those in its mask and prediction, the largest first.
    """

    record: ImageScore
    panels: tuple[bytes, ...]
    classes: tuple[tuple[str, str, str], ...]


def render(
    report: EvaluationReport, *, images: Sequence[ImageScore], worst: Sequence[FailureCase], confusion: bytes
) -> str:
    """Write the page; the same content gives the same text.

    Args:
        report: the scores.
        images: every image.
        worst: those of lowest score, the lowest first.
        confusion: PNG file of the confusion matrix.
    """
    names = [entry.name for entry in report.classes]
    shades = colours_of(names, vocabulary=report.vocabulary).tolist()
    colours = {name: hex_colour(shade) for name, shade in zip(names, shades, strict=True)}
    scored = [image.score for image in images if image.score is not None]
    return render_page(
        "evaluation",
        report=report,
        chance=chance_line(report),
        colours=colours,
        scores=[
            Score(name, getattr(report, field), report.intervals.get(field), _MEANINGS[field])
            for field, name in SCORES.items()
            if getattr(report, field) is not None
        ],
        confusion=confusion,
        histogram=np.histogram(scored, bins=_BINS, range=(0, 1))[0].tolist() if scored else [],
        scored=len(scored),
        worst=[Case(entry.record, _panels(entry.picture), _classes(entry.record, colours)) for entry in worst],
        wrong=WRONG,
        missed=MISSED,
        made_with=[(name, value) for name, value in _facts(report).items() if value is not None],
    )


def chance_line(report: EvaluationReport) -> str:
    """What no looking at the images would score, in a sentence; empty where nothing was scored."""
    chance = report.chance
    if chance is None:
        return ""
    told = (
        f"Chance: {percent(chance.constant_miou)} mIoU for predicting {chance.constant_class} everywhere, "
        f"{percent(chance.random_miou)} for assigning the predicted classes at random."
    )
    return f"{told} This score is at the level of chance." if chance.at_chance else told


def _panels(strip: bytes | None) -> tuple[bytes, ...]:
    """Cut the panels out of the picture of an image, so that each has its place on a narrow screen."""
    if strip is None:
        return ()
    with Image.open(io.BytesIO(strip)) as picture:
        step = (picture.width + GAP) // len(PANELS)
        crops = (
            picture.crop((start, 0, start + step - GAP, picture.height)) for start in range(0, picture.width, step)
        )
        return tuple(encoded(crop, "JPEG", quality=_QUALITY, optimize=True) for crop in crops)


def _classes(record: ImageScore, colours: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    pixels: dict[int, int] = {}
    for truth, prediction, count in record.pairs:
        for index in {truth, prediction} - {-1}:
            pixels[index] = pixels.get(index, 0) + count
    entries = [(name, colour, "") for name, colour in colours.items()]
    return tuple(entries[index] for index in sorted(pixels, key=lambda index: (-pixels[index], index)))


def _facts(report: EvaluationReport) -> dict[str, object]:
    return {
        "benchmark": report.data.benchmark,
        "protocol": report.data.protocol,
        **{f"masks: {name}": value for name, value in report.data.reading.items()},
        **{f"images: {name}": value for name, value in report.data.selection.items()},
        **{f"predicted by: {name}": value for name, value in report.predicted_by.items()},
        **{f"scoring: {name}": value for name, value in report.scoring.model_dump(mode="json").items()},
        **{f"version of {name}": value for name, value in report.versions.items()},
    }
