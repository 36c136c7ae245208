"""Brings labels that a person corrected elsewhere back into a folder that alignment learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np

from patchword.components import NOTHING
from patchword.errors import PatchwordError
from patchword.export.files import refuse_inside
from patchword.export.painting import Correction, Painted, Photographs, Region
from patchword.export.read_coco import read_coco
from patchword.export.read_label_studio import read_label_studio
from patchword.export.read_voc import read_voc
from patchword.folders import Manifest, prepare_output, write_json
from patchword.label.dataset import LabelledDataset, label_map_path, segments_path
from patchword.label.finish import finish
from patchword.label.records import FORMAT, FORMAT_VERSION, MANIFEST_FILE, MARKER, DatasetRecord, ImageRecord
from patchword.label.resume import CORRECTIONS, refuse_corrections
from patchword.maps import LabelMap, Segment, ignore_index
from patchword.progress import Progress
from patchword.runs.contents import content_of
from patchword.runs.records import VocabularyRecord, relative_root
from patchword.runs.sessions import Session
from patchword.vocabulary import Vocabulary

IMPORT_FORMATS: dict[str, Callable[..., list[Correction]]] = {
    "coco": read_coco,
    "voc": read_voc,
    "label-studio": read_label_studio,
}
_GENERATOR = "imported"


def import_labels(
    source: str | Path,
    *,
    format: str,
    photos: str | Path,
    vocabulary: Vocabulary,
    out: str | Path,
    overwrite: bool = False,
    overwrite_corrections: bool = False,
    quiet: bool = False,
    command: str = "",
) -> LabelledDataset:
    """Write a folder of labels from another tool's files.

    Classes are matched by name, photographs by path. Only photographs that the files speak of are in the data set.
    Labels that cannot be used, such as masks of another size than the photograph, are written down in the manifest as
    failed, with the reason. Pixels without a class are ignore.

    Args:
        source: a file for coco and label-studio, a folder for voc.
        format: a key of `IMPORT_FORMATS`.
        photos: folder of the photographs.
        vocabulary: of the labels; its order gives the indices.
        out: folder of the data set.
        overwrite: empty such a folder first, unless it holds corrected labels of photographs that `source` has none of.
        overwrite_corrections: empty it even then.
        quiet: whether to show no progress.
        command: what the user typed, for the record.

    Returns:
        the data set; it has no models and no settings, and its segments have generator "imported" and score 1.

    Raises:
        PatchwordError: for an unknown format, files that are not of it, classes that the vocabulary does not have,
            photographs that are not there, labels none of which can be used, or a folder that is in use.
    """
    read = IMPORT_FORMATS.get(format)
    if read is None:
        raise PatchwordError(f"format {format!r} cannot be imported; allowed are {', '.join(IMPORT_FORMATS)}")
    refuse_inside(Path(out), Path(source), Path(photos))
    photographs = Photographs(Path(photos))
    corrections = read(Path(source), photographs=photographs, vocabulary=vocabulary)
    _check(corrections, source=Path(source))
    if overwrite and not overwrite_corrections:
        refuse_corrections(out, keeping={correction.name for correction in corrections}, instead=CORRECTIONS)
    folder = prepare_output(out, overwrite=overwrite or overwrite_corrections, marker=MARKER)
    record = _begin(folder, photographs=photographs, vocabulary=vocabulary, source=format)
    manifest = Manifest(folder / MANIFEST_FILE)
    reasons = []
    with Session(folder, command=command) as session:
        with Progress(len(corrections), "importing", "images", quiet=quiet) as progress, manifest:
            for correction in sorted(corrections, key=lambda each: each.name):
                brought = _bring_in(correction, photographs=photographs, vocabulary=vocabulary, folder=folder)
                manifest.append(brought.model_dump(mode="json"))
                session.count(brought.status)
                reasons += [brought.reason] if brought.status == "failed" else []
                progress.advance()
        if len(reasons) == len(corrections):
            raise PatchwordError(f"no labels of {source} can be used; the first reason: {reasons[0]}")
        finish(folder, record=record, manifest=manifest)
    return LabelledDataset.open(folder, photos=photos)


def _check(corrections: list[Correction], *, source: Path) -> None:
    if not corrections:
        raise PatchwordError(f"{source} has labels of no photograph")
    name, count = Counter(correction.name for correction in corrections).most_common(1)[0]
    if count > 1:
        raise PatchwordError(f"{source} has {count} entries for photograph {name!r}; allowed is one")


def _begin(folder: Path, *, photographs: Photographs, vocabulary: Vocabulary, source: str) -> DatasetRecord:
    record = DatasetRecord(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        complete=False,
        source=cast(Literal["coco", "voc", "label-studio"], source),
        photographs=relative_root(photographs.root, folder=folder),
        vocabulary=VocabularyRecord(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names),
        settings=None,
        image_text=None,
        mask_proposer=None,
        patch_encoder=None,
        shard=None,
        counts=None,
    )
    record.save(folder)
    return record


def _bring_in(correction: Correction, *, photographs: Photographs, vocabulary: Vocabulary, folder: Path) -> ImageRecord:
    name = correction.name
    try:
        painted = correction.load(photographs.size(name))
    except PatchwordError as error:
        return ImageRecord(name=name, status="failed", size=None, classes=(), segments=0, coverage=0, reason=str(error))
    label_map = _label_map(painted, vocabulary)
    label_map.save(label_map_path(folder, name))
    height, width = label_map.indices.shape
    segments = [_segment(region, vocabulary).to_json() for region in painted.regions]
    write_json(segments_path(folder, name), {"name": name, "size": [height, width], "segments": segments})
    present = np.unique(painted.indices[painted.indices != NOTHING]).tolist()
    return ImageRecord(
        name=name,
        status="ok" if present else "empty",
        size=(height, width),
        classes=tuple(vocabulary.names[index] for index in present),
        segments=len(segments),
        coverage=float(np.count_nonzero(painted.indices != NOTHING) / painted.indices.size),
        reason=None if present else "no region has a class",
        content=content_of(photographs.root / PurePosixPath(name)),
    )


def _label_map(painted: Painted, vocabulary: Vocabulary) -> LabelMap:
    ignore = ignore_index(len(vocabulary))
    return LabelMap(np.where(painted.indices == NOTHING, ignore, painted.indices), vocabulary.names, vocabulary.colours)


def _segment(region: Region, vocabulary: Vocabulary) -> Segment:
    return Segment.from_mask(
        region.mask,
        class_index=region.class_index,
        class_name=vocabulary.names[region.class_index],
        score=1.0,
        predicted_iou=1.0,
        similarity=1.0,
        generator=_GENERATOR,
    )
