"""What the page of a data set of labels shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchword.data.vocabulary import Vocabulary
from patchword.labeling.quality.records import MaskUncertainty, QualityParts, QualityRecord, QualitySummary
from patchword.labeling.records import DatasetRecord, ImageRecord
from patchword.visualization.pages import Labelled, class_positions, colours_by_name, render_page


@dataclass(frozen=True)
class Picture:
    """One photograph to show: how good its labels are, and the pictures."""

    record: QualityRecord
    shown: Labelled


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        dataset: how the labels were made.
        vocabulary: its classes and their colours.
        summary: how good they are.
        failed, empty, duplicates: photographs that could not be labelled, that got no label, and that have the same
            content as another.
        worst, best: photographs to show.
        doubts: photograph and mask, most doubtful first; empty where no model was asked.
        rows: most rows of a table of photographs.
        note: paragraphs that stand at the top instead of where the photographs are.
    """

    dataset: DatasetRecord
    vocabulary: Vocabulary
    summary: QualitySummary
    failed: Sequence[ImageRecord]
    empty: Sequence[ImageRecord]
    duplicates: Sequence[ImageRecord]
    worst: Sequence[Picture]
    best: Sequence[Picture]
    doubts: Sequence[tuple[str, MaskUncertainty]]
    rows: int
    note: Sequence[str] = ()


def render(page: Page) -> str:
    """Write the page; the same content gives the same text."""
    names = page.vocabulary.names
    shown = [*page.summary.worst, *(picture.record for picture in page.best)]
    return render_page(
        "labels",
        page=page,
        colours=colours_by_name(page.vocabulary),
        positions={record.name: class_positions(record.pixels, names=names) for record in shown},
        record_parts=tuple(QualityParts.model_fields),
        images_of={row.name: row.images for row in page.summary.classes},
    )
