"""`quality.jsonl`: one line a photograph, written during a run, complete and sorted at its end, remade when lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.folders import Manifest, json_text, replacing
from patchword.label.dataset import label_map_path, segments_path
from patchword.label.detect import Detection
from patchword.label.image import ImageLabels
from patchword.label.quality import assess
from patchword.label.quality_records import QualityRecord
from patchword.label.settings import LabelSettings
from patchword.maps import LabelMap, Segment

QUALITY_FILE = "quality.jsonl"

Again = Callable[[], QualityRecord]
"""Makes a line that is missing."""


def append_quality(file: Manifest, record: QualityRecord) -> None:
    """Add one photograph's line; of several with one name the last counts.

    Raises:
        PatchwordError: when the file cannot be written.
    """
    file.append(record.model_dump(mode="json"))


def gather_quality(folders: Iterable[Path], *, into: Path) -> None:
    """Put the lines of several data sets together, in any order; what is missing is made again later.

    Args:
        folders: of the labels.
        into: folder of the labels of all of them.

    Raises:
        PatchwordError: when a file cannot be read or written.
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
    """The lines of `quality.jsonl`, sorted by name, one in memory at a time.

    Args:
        folder: of the labels.
        wanted: by name, how to make a line that is missing or damaged. Lines of other names are passed over.
    """
    for name, line in _lines(folder, wanted=wanted):
        try:
            yield QualityRecord.model_validate(json.loads(line))
        except ValueError:  # of another version, or damaged: it can be made again
            yield wanted[name]()


def complete_quality(folder: Path, *, wanted: Mapping[str, Again]) -> Iterator[QualityRecord]:
    """Write `quality.jsonl` anew, complete and sorted by name, and give its records on the way.

    The file is replaced when the last record has been taken.

    Raises:
        PatchwordError: when it cannot be written.
    """
    path = folder / QUALITY_FILE
    try:
        with replacing(path) as file:
            for record in read_quality(folder, wanted=wanted):
                file.write((json_text(record.model_dump(mode="json")) + "\n").encode("utf-8"))
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

    Raises:
        PatchwordError: when there are no settings, since the labels were imported.
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

    Raises:
        PatchwordError: when its label map or segments are missing or damaged.
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


def _lines(folder: Path, *, wanted: Mapping[str, Again]) -> Iterator[tuple[str, bytes]]:
    """The last line of every wanted name, by name; an empty one where there is none."""
    path = folder / QUALITY_FILE
    if not path.exists():
        yield from ((name, b"") for name in sorted(wanted))
        return
    with path.open("rb") as file:
        places: dict[str, int] = {}
        place = 0
        for line in file:
            name = _name(line)
            if name is not None:
                places[name] = place
            place += len(line)
        for name in sorted(wanted):
            if name in places:
                file.seek(places[name])
            yield name, file.readline() if name in places else b""


def _name(line: bytes) -> str | None:
    """Whose line it is; none for one that was cut off or damaged."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    name = record.get("name") if isinstance(record, dict) else None
    return name if isinstance(name, str) else None
