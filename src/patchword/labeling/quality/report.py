"""`quality.jsonl`, written during a run and completed at its end, and the page `report.html`."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from patchword.config.base import Settings
from patchword.config.label import LabelSettings
from patchword.data.folders import json_text, replacing, write_text
from patchword.data.images import read_image
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, Segment
from patchword.data.tar_shards import photograph_at
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.labeling.clip_crops import Detection
from patchword.labeling.image import ImageLabels
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.page import Page, Picture, render
from patchword.labeling.quality.records import QualityRecord, QualitySummary, read_doubts, summarise, worst_masks
from patchword.labeling.records import MANIFEST_FILE, DatasetRecord, label_map_path, read_manifest, segments_path
from patchword.runs.progress import Progress
from patchword.runs.records import recorded_root
from patchword.visualization.pages import Labelled, small_pictures

QUALITY_FILE = "quality.jsonl"

_NAME = re.compile(rb'"name": ("(?:[^"\\]|\\.)*")')

Again = Callable[[], QualityRecord]
"""Makes a line that is missing."""


def gather_quality(folders: Iterable[Path], *, into: Path) -> None:
    """Put the lines of several data sets together, in any order; what is missing is made again later.

    Args:
        folders: of the labels.
        into: folder of the labels of all of them.
    """
    path = into / QUALITY_FILE
    try:
        with replacing(path) as whole:
            for source in (folder / QUALITY_FILE for folder in folders):
                if source.exists():
                    with source.open("rb") as lines:
                        shutil.copyfileobj(lines, whole)
    except OSError as error:
        raise PatchwordError(f"cannot write {path}: {error.strerror}") from None


def read_quality(folder: Path, *, wanted: Mapping[str, Again]) -> Iterator[QualityRecord]:
    """The records of `quality.jsonl`, sorted by name, one in memory at a time.

    Args:
        folder: of the labels.
        wanted: by name, how to make a line that is missing or damaged. Lines of other names are passed over.
    """
    for record, _ in _records(folder, wanted=wanted):
        yield record


def complete_quality(folder: Path, *, wanted: Mapping[str, Again]) -> Iterator[QualityRecord]:
    """Write `quality.jsonl` anew, complete and sorted by name, and give its records on the way.

    The file is replaced when the last record has been taken.
    """
    path = folder / QUALITY_FILE
    try:
        with replacing(path) as file:
            for record, line in _records(folder, wanted=wanted):
                file.write(line)
                yield record
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from None


def assessors(
    folder: Path, *, images: Iterable[str], names: tuple[str, ...], settings: LabelSettings | None
) -> dict[str, Again]:
    """How to assess each photograph's labels as they are on disk.

    Args:
        folder: of the labels.
        images: names of the photographs that did not fail.
        names: the vocabulary's classes, in order.
        settings: of the labelling.
    """
    if settings is None:
        raise PatchwordError(f"the labels of {folder} were imported; only labels that models made have a quality")
    return {image: partial(assess_again, folder, name=image, names=names, settings=settings) for image in images}


def assess_again(folder: Path, *, name: str, names: tuple[str, ...], settings: LabelSettings) -> QualityRecord:
    """Assess a photograph's labels as they are on disk; the record is the one that the run made.

    Args:
        folder: of the labels.
        name: of the photograph.
        names: the vocabulary's classes, in order.
        settings: of the labelling.
    """
    path = segments_path(folder, name)
    try:
        data = json.loads(path.read_bytes())
        segments = tuple(Segment.from_json(segment) for segment in data["segments"])
        detected = _detection(data["detected"], names)
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PatchwordError(f"{path} is damaged: {error}") from None
    label_map = LabelMap.load(label_map_path(folder, name), names=names)
    try:
        return assess(ImageLabels(label_map, segments, detected), name=name, settings=settings)
    except PatchwordError as error:
        raise PatchwordError(f"{path} is damaged: {error}") from None


def _detection(data: Mapping[str, Any], names: tuple[str, ...]) -> Detection:
    return Detection(
        votes=tuple(int(data["votes"].get(name, 0)) for name in names),
        background_votes=int(data["background_votes"]),
        needed=int(data["needed"]),
        kept=tuple(names.index(name) for name in data["kept"]),
        entropy=float(data["entropy"]),
    )


def _records(folder: Path, *, wanted: Mapping[str, Again]) -> Iterator[tuple[QualityRecord, bytes]]:
    """The wanted records by name, each with its line."""
    path = folder / QUALITY_FILE
    with path.open("rb") if path.is_file() else io.BytesIO() as file:
        places = _places(file)
        for name in sorted(wanted):
            line = b""
            if name in places:
                file.seek(places[name])
                line = file.readline()
            record = _parse(line)
            if record is None or record.name != name:  # lost, damaged or of another version: it can be made again
                record = wanted[name]()
                line = (json_text(record.model_dump(mode="json")) + "\n").encode("utf-8")
            yield record, line


def _places(file: IO[bytes]) -> dict[str, int]:
    """Where the last whole line of every name begins, in bytes.

    Only the name is read: most of a line is its masks, and the lines are many.
    """
    places: dict[str, int] = {}
    place = 0
    for line in file:
        found = _NAME.search(line)
        if found is not None and line.endswith(b"\n"):
            with suppress(ValueError):
                places[json.loads(found[1])] = place
        place += len(line)
    return places


def _parse(line: bytes) -> QualityRecord | None:
    try:
        return QualityRecord.model_validate(json.loads(line))
    except ValueError:
        return None


REPORT_FILE = "report.html"


class ReportSettings(Settings):
    """How much of a data set its report shows, which bounds the page however many photographs there are."""

    worst: int = Field(100, ge=1, le=1000, description="Photographs of lowest score that are shown as pictures")
    best: int = Field(8, ge=0, le=1000, description="Photographs of highest score that are shown as pictures")
    rows: int = Field(1000, ge=1, le=10000, description="Most rows of any table of photographs")
    picture_side: int = Field(360, ge=64, le=1024, description="Longer side of a picture in pixels")
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
    root = recorded_root(folder, dataset.photographs) if photos is None else photos
    vocabulary = Vocabulary.recorded(dataset.vocabulary.text, source=f"vocabulary of {folder}")
    names = vocabulary.names
    labelled = [name for name, record in images.items() if record.status != "failed"]
    wanted = assessors(folder, images=labelled, names=names, settings=dataset.settings)
    with Progress(len(wanted), "assessing", quiet=quiet) as progress:
        records = _watched(complete_quality(folder, wanted=wanted), progress)
        summary = summarise(records, images=images, names=names, worst=settings.rows, best=settings.best)
    show = partial(_picture, folder=folder, root=root, vocabulary=vocabulary, how=settings)
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
        worst=tuple(map(show, worst)),
        best=tuple(map(show, best)),
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


def _picture(
    record: QualityRecord, *, folder: Path, root: Path, vocabulary: Vocabulary, how: ReportSettings
) -> Picture:
    try:
        photograph = read_image(photograph_at(root, record.name))
        labels = LabelMap.load(label_map_path(folder, record.name), names=vocabulary.names)
        shown = small_pictures(
            photograph, labels, colours=vocabulary.colours, side=how.picture_side, quality=how.picture_quality
        )
    except (PatchwordError, OSError, MemoryError) as error:
        shown = Labelled(missing=str(error))
    return Picture(record, shown)
