"""`quality.jsonl`: one line a photograph, written during a run, complete and sorted at its end, remade when lost."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from patchword.data.folders import Manifest, json_text, replacing
from patchword.data.masks import LabelMap, Segment
from patchword.errors import PatchwordError
from patchword.labeling.dataset import label_map_path, segments_path
from patchword.labeling.detect import Detection
from patchword.labeling.image import ImageLabels
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.records import QualityRecord
from patchword.labeling.settings import LabelSettings

QUALITY_FILE = "quality.jsonl"

_NAME = re.compile(rb'"name": ("(?:[^"\\]|\\.)*")')

Again = Callable[[], QualityRecord]
"""Makes a line that is missing."""


def append_quality(file: Manifest, record: QualityRecord) -> None:
    """Add one photograph's line; of several with one name the last counts."""
    file.append(record.model_dump(mode="json"))


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
        raise PatchwordError(f"cannot write {path}: {error.strerror}") from None


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
    with path.open("rb") if path.exists() else io.BytesIO() as file:
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
