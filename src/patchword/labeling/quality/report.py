"""The end of a labelling run: `quality.jsonl` complete and sorted, and `report.html` to look at in the morning."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from patchword.config.base import Settings
from patchword.data.folders import Manifest, write_text
from patchword.data.images import read_image
from patchword.data.masks import LabelMap, overlay
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import label_map_path, read_manifest
from patchword.labeling.quality.doubts import read_doubts, worst_masks
from patchword.labeling.quality.file import assessors, complete_quality
from patchword.labeling.quality.page import Page, Picture, render
from patchword.labeling.quality.records import QualityRecord
from patchword.labeling.quality.summary import QualitySummary, summarise
from patchword.labeling.records import MANIFEST_FILE, DatasetRecord
from patchword.runs.progress import Progress

REPORT_FILE = "report.html"


class ReportSettings(Settings):
    """How much of a data set its report shows, which bounds the page however many photographs there are."""

    worst: int = Field(100, ge=1, le=1000, description="Photographs of lowest score that are shown as pictures")
    best: int = Field(8, ge=0, le=1000, description="Photographs of highest score that are shown as pictures")
    rows: int = Field(1000, ge=1, le=10000, description="Most rows of any table of photographs")
    picture_side: int = Field(256, ge=64, le=1024, description="Longer side of a picture in pixels")
    picture_quality: int = Field(82, ge=1, le=95, description="Of its JPEG compression; more is sharper and larger")


def write_report(
    folder: Path,
    *,
    photos: Path | None = None,
    settings: ReportSettings | None = None,
    page: Path | None = None,
    note: Sequence[str] = (),
    quiet: bool = True,
) -> QualitySummary:
    """Complete and sort `quality.jsonl` and write `report.html`; both have the same bytes for the same labels.

    Needs a whole manifest, but no run that is marked as complete, so that a run may end with it. Lines that are missing
    are made again from segments and masks; lines of photographs that are not in the manifest go.

    Args:
        folder: of the labels.
        photos: where the photographs are now; by default where they were, relative to the labels.
        settings: of the page.
        page: where it goes; by default into the folder.
        note: what stands above all on it, a paragraph each; by default where the photographs are.
        quiet: whether to show no progress, which is slow only where many lines are made again.

    Returns:
        what the labels are worth; as many worst photographs as the page has rows.
    """
    settings = settings or ReportSettings()
    dataset = DatasetRecord.load(folder)
    images = read_manifest(Manifest(folder / MANIFEST_FILE))
    root = folder / dataset.photographs if photos is None else photos
    vocabulary = Vocabulary.recorded(dataset.vocabulary.text, source=f"vocabulary of {folder}")
    names = vocabulary.names
    labelled = [name for name, record in images.items() if record.status != "failed"]
    wanted = assessors(folder, images=labelled, names=names, settings=dataset.settings)
    with Progress(len(wanted), "assessing", quiet=quiet) as progress:
        records = _watched(complete_quality(folder, wanted=wanted), progress)
        summary = summarise(records, images=images, names=names, worst=settings.rows, best=settings.best)
    studio = _Studio(folder, root, vocabulary, settings)
    worst = summary.worst[: settings.worst]
    best = [record for record in summary.best if record not in worst]
    by_name = [record for _, record in sorted(images.items())]
    content = Page(
        dataset=dataset,
        vocabulary=vocabulary,
        summary=summary,
        failed=tuple(record for record in by_name if record.status == "failed"),
        empty=tuple(record for record in by_name if record.status == "empty"),
        duplicates=tuple(record for record in by_name if record.duplicate_of is not None),
        worst=studio.pictures(worst),
        best=studio.pictures(best),
        doubts=worst_masks(read_doubts(folder)),
        rows=settings.rows,
        note=note,
    )
    write_text(page or folder / REPORT_FILE, render(content))
    return summary


def _watched(records: Iterator[QualityRecord], progress: Progress) -> Iterator[QualityRecord]:
    for record in records:
        yield record
        progress.advance()


@dataclass(frozen=True)
class _Studio:
    """Makes small pictures of photographs and of the labels laid over them."""

    folder: Path
    root: Path
    vocabulary: Vocabulary
    settings: ReportSettings

    def pictures(self, records: Sequence[QualityRecord]) -> tuple[Picture, ...]:
        return tuple(self._picture(record) for record in records)

    def _picture(self, record: QualityRecord) -> Picture:
        try:
            photograph = read_image(self.root / PurePosixPath(record.name))
            labels = LabelMap.load(label_map_path(self.folder, record.name), names=self.vocabulary.names)
            if photograph.shape[:2] != labels.indices.shape:
                raise PatchwordError("the photograph has another size than its labels")
        except (PatchwordError, OSError, MemoryError) as error:
            return Picture(record, None, None, missing=str(error))
        small, reduced = self._reduce(photograph, labels)
        painted = overlay(small, reduced, opacity=0.6, legend=False)
        return Picture(record, self._jpeg(Image.fromarray(small)), self._jpeg(painted), missing="")

    def _reduce(self, photograph: NDArray[np.uint8], labels: LabelMap) -> tuple[NDArray[np.uint8], LabelMap]:
        image = Image.fromarray(photograph)
        scale = min(1.0, self.settings.picture_side / max(image.size))
        size = tuple(max(1, round(side * scale)) for side in image.size)
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new)
            for new, old in zip(size[::-1], labels.indices.shape, strict=True)
        )
        small = image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return np.asarray(small), LabelMap(labels.indices[np.ix_(rows, columns)], labels.names, self.vocabulary.colours)

    def _jpeg(self, picture: Image.Image) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=self.settings.picture_quality, optimize=True)
        return stream.getvalue()
