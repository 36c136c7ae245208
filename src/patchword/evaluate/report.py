"""The record of an evaluation: what was compared by which rule, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from patchword.evaluate.confusion import ConfusionMatrix
from patchword.evaluate.masks import MaskRule, ZeroIs
from patchword.folders import prepare_output, write_json, write_text
from patchword.versions import versions

if TYPE_CHECKING:
    from rich.table import Table

MARKER = "evaluation"
REPORT_FILE = "evaluation.json"
CONFUSION_FILE = "confusion.csv"
RULE = (
    "one confusion matrix over all pixels of all images; masks are never resized; a pixel whose mask is ignore counts "
    "nowhere; a pixel without a prediction is a miss of its class; a class in neither masks nor predictions is left "
    "out of the means"
)


class ClassReport(BaseModel):
    """The numbers of one class: shares in [0, 1], None where there is nothing to measure, and counts in pixels."""

    model_config = ConfigDict(frozen=True)

    name: str
    iou: float | None
    accuracy: float | None
    truth_pixels: int
    predicted_pixels: int
    correct_pixels: int
    confused_with: str | None


class EvaluationReport(BaseModel):
    """A score and all that it depends on.

    Attributes:
        miou: mean IoU in [0, 1] over the classes in masks or predictions; None when no pixel counts.
        pixel_accuracy: share in [0, 1] of the pixels with a class in the masks that are predicted rightly.
        mean_accuracy: mean over the classes in the masks of the share of their pixels that is predicted rightly.
        coverage: share in [0, 1] of the pixels with a class in the masks that have any prediction.
        images, pixels: how many were compared; pixels only where the masks have a class.
        classes: one entry a class, in the order of the class list.
        zero_is, ignore_index: how mask values were read; see `MaskRule`.
        predicted_by: kind and place of what was evaluated.
        vocabulary, vocabulary_hash: the class list in its text format, and its SHA-256.
        command: the command line, where there was one.
        versions: software by name.
        rule: the rule of the numbers in words.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["patchword-evaluation"] = "patchword-evaluation"
    format_version: Literal[1] = 1
    miou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    coverage: float | None
    images: int
    pixels: int
    classes: tuple[ClassReport, ...]
    zero_is: ZeroIs
    ignore_index: int | None
    photographs: str
    masks: str
    predicted_by: dict[str, Any]
    vocabulary: str
    vocabulary_hash: str
    command: str | None
    versions: dict[str, str]
    rule: str = RULE


def make_report(
    matrix: ConfusionMatrix,
    *,
    rule: MaskRule,
    images: int,
    photographs: Path,
    masks: Path,
    predicted_by: dict[str, Any],
    command: str | None = None,
) -> EvaluationReport:
    """Put the numbers of a matrix and where they come from into one record.

    Args:
        matrix: over the rule's names.
        rule: how masks were read.
        images: how many images the matrix holds.
        photographs, masks: folders, as the user named them.
        predicted_by: what made the predictions, for a reader of the record.
        command: the command line; None when called from Python.
    """
    names = rule.names
    classes = tuple(
        ClassReport(
            name=names[score.index],
            iou=score.iou,
            accuracy=score.accuracy,
            truth_pixels=score.truth_pixels,
            predicted_pixels=score.predicted_pixels,
            correct_pixels=score.correct_pixels,
            confused_with=None if score.confused_with is None else names[score.confused_with],
        )
        for score in matrix.per_class()
    )
    return EvaluationReport(
        miou=matrix.mean_iou(),
        pixel_accuracy=matrix.pixel_accuracy(),
        mean_accuracy=matrix.mean_accuracy(),
        coverage=matrix.coverage(),
        images=images,
        pixels=sum(entry.truth_pixels for entry in classes),
        classes=classes,
        zero_is=rule.zero_is,
        ignore_index=rule.ignore_index,
        photographs=str(photographs),
        masks=str(masks),
        predicted_by=predicted_by,
        vocabulary=rule.vocabulary.to_text(),
        vocabulary_hash=rule.vocabulary.hash,
        command=command,
        versions=versions(),
    )


def write_report(report: EvaluationReport, *, matrix: ConfusionMatrix, out: Path, overwrite: bool = False) -> Path:
    """Write `evaluation.json` and `confusion.csv` (rows truth, columns prediction, the last column no prediction).

    Returns:
        the folder.

    Raises:
        PatchwordError: when the folder is in use and `overwrite` is not set, or cannot be written.
    """
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    write_text(folder / CONFUSION_FILE, _confusion_csv(matrix, [entry.name for entry in report.classes]))
    write_json(folder / REPORT_FILE, report.model_dump(mode="json"))
    return folder


def class_table(report: EvaluationReport) -> Table:
    """The per-class table for a terminal, classes that occur nowhere left out, the means in the last line."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{report.images} images, {report.pixels:,} pixels", show_footer=True)
    table.add_column("class", "mean")
    table.add_column("IoU", percent(report.miou), justify="right")
    table.add_column("accuracy", percent(report.mean_accuracy), justify="right")
    table.add_column("pixels", f"{report.pixels:,}", justify="right")
    table.add_column("most confused with")
    for entry in report.classes:
        if entry.iou is not None:
            pixels = f"{entry.truth_pixels:,}"
            confused_with = Text(entry.confused_with or "")
            table.add_row(Text(entry.name), percent(entry.iou), percent(entry.accuracy), pixels, confused_with)
    return table


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal, or a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def _confusion_csv(matrix: ConfusionMatrix, names: list[str]) -> str:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["truth", *names, "no prediction"])
    for name, counts, missed in zip(names, matrix.counts.tolist(), matrix.missed.tolist(), strict=True):
        writer.writerow([name, *counts, missed])
    return buffer.getvalue()
