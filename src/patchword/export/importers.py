"""Brings labels that a person corrected elsewhere back into a folder that alignment learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from patchword.config.command import command
from patchword.config.exchange import ImportConfig, ImportFormat, ImportSettings
from patchword.config.inputs import tell
from patchword.data.components import NOTHING
from patchword.data.folders import prepare_output, write_json
from patchword.data.images import orientation_hint
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, Segment, ignore_index
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, SizeError
from patchword.export.coco import read_coco
from patchword.export.files import refuse_inside
from patchword.export.label_studio import read_label_studio
from patchword.export.rasterize import Correction, Findings, Photographs
from patchword.export.voc import read_voc
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import CORRECTIONS, finish, refuse_corrections
from patchword.labeling.records import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MARKER,
    DatasetRecord,
    ImageRecord,
    label_map_path,
    segments_path,
)
from patchword.runs.pipeline import content_of
from patchword.runs.progress import Progress
from patchword.runs.records import Session, VocabularyRecord, relative_root

IMPORT_FORMATS: dict[ImportFormat, Callable[..., Findings]] = {
    "coco": read_coco,
    "voc": read_voc,
    "label-studio": read_label_studio,
}
_GENERATOR = "imported"


@command(ImportConfig)
def import_labels(source: str | Path, config: ImportConfig) -> LabelledDataset:
    """Write a folder of labels from another tool's files.

    Classes are matched by name, photographs by path. Only photographs that the files speak of are in the data set.
    Photographs that are not there, and labels that cannot be used, such as masks of another size than the photograph,
    are written down in the manifest as failed, with the reason; single objects that cannot be used are left out, and
    counted by kind of trouble in the manifest and in the counts. Pixels without a class are ignore.

    Returns:
        the data set; it has no models and no settings, and its segments have generator "imported" and score 1.
    """
    out, vocabulary = config.out, Vocabulary.of(config.classes)
    refuse_inside(Path(out), Path(source), Path(config.photos))
    photographs = Photographs(Path(config.photos))
    read, settings = IMPORT_FORMATS[config.format], ImportSettings.of(config.settings)
    findings = read(Path(source), photographs=photographs, vocabulary=vocabulary, settings=settings)
    findings = findings.alone(place=str(source))
    if not findings.corrections:
        first = next(iter(findings.failed.values()), None)
        raise PatchwordError(
            f"{source} has labels of no photograph"
            if first is None
            else f"no labels of {source} can be used; the first reason: {first}"
        )
    if config.overwrite and not config.overwrite_corrections:
        refuse_corrections(out, keeping={correction.name for correction in findings.corrections}, instead=CORRECTIONS)
    tell(vocabulary.spoken(), quiet=config.quiet)
    folder = prepare_output(out, overwrite=config.overwrite or config.overwrite_corrections, marker=MARKER)
    record = _begin(folder, photographs=photographs, vocabulary=vocabulary, source=config.format)
    manifest = Manifest(folder / MANIFEST_FILE)
    reasons = [f"{count} x {trouble}" for trouble, count in findings.left_out.items()]
    usable = False
    with Session(folder, command=config.command) as session:
        failures = [_failure(name, why) for name, why in findings.failed.items()]
        entries: list[Correction | ImageRecord] = [*findings.corrections, *failures]
        with Progress(len(entries), "importing", "images", quiet=config.quiet) as progress, manifest:
            for entry in sorted(entries, key=lambda each: each.name):
                brought = entry
                if isinstance(brought, Correction):
                    brought = _bring_in(brought, photographs=photographs, vocabulary=vocabulary, folder=folder)
                manifest.append(brought.model_dump(mode="json"))
                session.count(brought.status)
                reasons += [brought.reason or ""] if brought.status == "failed" else []
                usable |= brought.status == "ok" or (brought.status == "empty" and not findings.left_out)
                progress.advance()
        if not usable:
            raise PatchwordError(f"no labels of {source} can be used; the first reason: {reasons[0]}")
        finish(folder, record=record, manifest=manifest, left_out=findings.left_out)
    return LabelledDataset.open(folder, photos=config.photos)


def _failure(name: str, reason: str, left_out: Mapping[str, int] | None = None) -> ImageRecord:
    return ImageRecord(
        name=name,
        status="failed",
        size=None,
        classes=(),
        segments=0,
        coverage=0,
        reason=reason,
        left_out=dict(left_out or {}),
    )


def _begin(folder: Path, *, photographs: Photographs, vocabulary: Vocabulary, source: ImportFormat) -> DatasetRecord:
    record = DatasetRecord(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        complete=False,
        source=source,
        photographs=relative_root(photographs.root, folder=folder),
        vocabulary=VocabularyRecord.of(vocabulary),
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
    except SizeError as error:
        return _failure(name, f"{error}{orientation_hint(photographs.root / name, size=error.found)}")
    except PatchwordError as error:
        return _failure(name, str(error))
    if painted.left_out and not painted.regions:
        troubles = ", ".join(f"{count} x {trouble}" for trouble, count in sorted(painted.left_out.items()))
        return _failure(name, f"none of its objects can be used: {troubles}", painted.left_out)
    indices = np.where(painted.indices == NOTHING, ignore_index(len(vocabulary)), painted.indices)
    label_map = LabelMap(indices, vocabulary.names, vocabulary.colours)
    label_map.save(label_map_path(folder, name))
    height, width = label_map.indices.shape
    segments = [
        Segment.from_mask(
            region.mask,
            class_index=region.class_index,
            class_name=vocabulary.names[region.class_index],
            score=1.0,
            predicted_iou=1.0,
            similarity=1.0,
            generator=_GENERATOR,
        ).to_json()
        for region in painted.regions
    ]
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
        left_out=dict(sorted(painted.left_out.items())),
    )
