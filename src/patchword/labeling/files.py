"""What becomes of one photograph on disk: its label map, its segments, its line of the manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchword.data.folders import write_json
from patchword.errors import PatchwordError
from patchword.labeling.dataset import label_map_path, segments_path
from patchword.labeling.detect import Detection
from patchword.labeling.image import ImageLabels
from patchword.labeling.records import ImageRecord
from patchword.labeling.settings import LabelSettings
from patchword.runs.names import remove_files, why_unwritten


def write_result(
    folder: Path, name: str, found: ImageLabels | PatchwordError, *, content: str | None, settings: LabelSettings
) -> ImageRecord:
    """Write a photograph's files, or remove those of an earlier run where it failed.

    Args:
        folder: the data set's.
        name: the photograph's.
        found: its labels, or why there are none.
        content: see `ImageRecord`.
        settings: what it was labelled with.

    Returns:
        its record; to be written after the files, so that it vouches for them.
    """
    if isinstance(found, ImageLabels):
        try:
            found.label_map.save(label_map_path(folder, name))
            write_json(segments_path(folder, name), _segments_record(name, found))
        except PatchwordError as error:
            found = why_unwritten(error, folder=folder)
    if isinstance(found, ImageLabels):
        return _labelled(name, found, content=content, settings=settings)
    remove_files([label_map_path(folder, name), segments_path(folder, name)])
    return ImageRecord(
        name=name, status="failed", size=None, classes=(), segments=0, coverage=0, reason=str(found), content=content
    )


def _labelled(name: str, found: ImageLabels, *, content: str | None, settings: LabelSettings) -> ImageRecord:
    indices, label_map = found.label_map.indices, found.label_map
    counted = np.bincount(indices.ravel(), minlength=label_map.ignore + 1)
    present = tuple(class_name for index, class_name in enumerate(label_map.names) if counted[index])
    return ImageRecord(
        name=name,
        status="ok" if present else "empty",
        size=(indices.shape[0], indices.shape[1]),
        classes=present,
        segments=len(found.segments),
        coverage=1 - int(counted[label_map.ignore]) / indices.size,
        reason=None if present else _reason_of_emptiness(found, settings),
        content=content,
    )


def _reason_of_emptiness(found: ImageLabels, settings: LabelSettings) -> str:
    detected = found.detected
    if not detected.kept:
        return f"nothing detected: no class won {detected.needed} of {detected.crops} crops"
    if not found.segments:
        return f"no mask reached a predicted IoU of {settings.minimum_predicted_iou}"
    return "every claim is contested by another class"


def _segments_record(name: str, found: ImageLabels) -> dict[str, object]:
    indices = found.label_map.indices
    return {
        "name": name,
        "size": list(indices.shape),
        "detected": _detection_record(found.detected, found.label_map.names),
        "segments": [segment.to_json() for segment in found.segments],
    }


def _detection_record(detected: Detection, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "crops": detected.crops,
        "needed": detected.needed,
        "background_votes": detected.background_votes,
        "entropy": detected.entropy,
        "votes": {name: votes for name, votes in zip(names, detected.votes, strict=True) if votes},
        "kept": [names[index] for index in detected.kept],
    }
