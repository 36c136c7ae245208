"""A folder of labels of known label maps and segments, as if a run of the models had left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.folders import prepare_output, write_json
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, Segment
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.records import MARKER, Counts, DatasetRecord, ImageRecord, label_map_path, segments_path
from patchword.models.protocols import ModelRecord
from patchword.runs.records import VocabularyRecord

VOCABULARY = Vocabulary.of(["cat", "sofa; couch", "Bäume"])
MODEL = ModelRecord("fake", "fake", None, "0" * 64, 16, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 64, "")
EVERY_PIECE: dict[str, Any] = {"least_share": 0, "least_pixels": 0}
"""Settings under which the smallest piece is an object, so that nothing is left out."""
NAMES = ("a/x.jpg", "b/x.jpg", "b/x.png", "Füße im Schnee.jpg", "leer.png", "punkt.png")


def segment(mask: np.ndarray, class_index: int, score: float, *, names: Sequence[str] = VOCABULARY.names) -> Segment:
    return Segment.from_mask(
        mask,
        class_index=class_index,
        class_name=names[class_index],
        score=score,
        predicted_iou=0.9,
        similarity=0.5,
        generator="sam-then-clip",
    )


def scene(seed: int, *, size: tuple[int, int] = (37, 53)) -> tuple[np.ndarray, list[Segment]]:
    """Overlapping boxes with holes and loose pixels: a fused map, and segments that say more than the map does."""
    rng = np.random.default_rng(seed)
    height, width = size
    indices = np.full(size, 255, dtype=np.uint8)
    segments = []
    for position in range(5):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        mask = np.zeros(size, dtype=bool)
        mask[top : top + rng.integers(6, 20), left : left + rng.integers(6, 25)] = True
        mask[top + 2 : top + 4, left + 2 : left + 5] = False
        class_index = int(rng.integers(0, 3))
        indices[mask] = class_index
        segments.append(segment(mask, class_index, 0.3 + position / 10))
    noise = rng.random(size) < 0.02
    indices[noise] = rng.integers(0, 3, noise.sum())
    return indices, segments


def default_scenes() -> dict[str, tuple[np.ndarray, list[Segment]]]:
    scenes = {name: scene(seed) for seed, name in enumerate(NAMES[:4])}
    scenes["leer.png"] = (np.full((5, 7), 255, dtype=np.uint8), [])
    scenes["punkt.png"] = (np.full((1, 1), 2, dtype=np.uint8), [])
    return scenes


def make_labels(
    folder: Path,
    scenes: Mapping[str, tuple[np.ndarray, list[Segment]]] | None = None,
    *,
    vocabulary: Vocabulary = VOCABULARY,
    failed: Sequence[str] = (),
) -> LabelledDataset:
    scenes = default_scenes() if scenes is None else scenes
    photos, out = folder / "photos", folder / "labels"
    prepare_output(out, marker=MARKER)
    records = []
    with Manifest(out / "manifest.jsonl") as manifest:
        for name, (indices, segments) in scenes.items():
            label_map = LabelMap(indices, vocabulary.names)
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            colours = np.random.default_rng(len(name)).integers(0, 256, (*indices.shape, 3), dtype=np.uint8)
            Image.fromarray(colours).save(photos / name)
            label_map.save(label_map_path(out, name))
            write_json(segments_path(out, name), {"segments": [each.to_json() for each in segments]})
            present = [each for index, each in enumerate(vocabulary.names) if (label_map.indices == index).any()]
            records.append(_record(name, indices, present, len(segments)))
        records += [_failed(name) for name in failed]
        for record in records:
            manifest.append(record.model_dump(mode="json"))
        manifest.finish()
    counts = Counts.of(records, names=vocabulary.names)
    DatasetRecord(
        format="patchword-labels",
        format_version=2,
        complete=True,
        photographs="../photos",
        vocabulary=VocabularyRecord(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names),
        settings=LabelSettings(),
        image_text=MODEL,
        mask_proposer=MODEL,
        patch_encoder=None,
        shard=None,
        counts=counts,
    ).save(out)
    return LabelledDataset.open(out)


def _record(name: str, indices: np.ndarray, present: list[str], count: int) -> ImageRecord:
    return ImageRecord(
        name=name,
        status="ok" if present else "empty",
        size=(indices.shape[0], indices.shape[1]),
        classes=tuple(present),
        segments=count,
        coverage=float((indices != 255).mean()),
        reason=None if present else "nothing detected",
    )


def _failed(name: str) -> ImageRecord:
    return ImageRecord(name=name, status="failed", size=None, classes=(), segments=0, coverage=0, reason="damaged")


def save_photo(path: Path, *, width: int = 80, height: int = 60, orientation: int | None = None) -> None:
    """A grey photograph; with an EXIF orientation the sides are those of the stored pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), "grey").save(path, exif=exif)


def box(left: int, top: int, right: int, bottom: int, *, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A mask of a box, its right and bottom edge outside."""
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def truth(labels: LabelledDataset) -> dict[str, np.ndarray]:
    """Label maps by name."""
    return {
        item.record.name: LabelMap.load(item.label_map, names=labels.vocabulary.names).indices for item in labels.items
    }


def even_odd(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre a ray to the right leaves the polygon from an odd number of times."""
    x, y = np.arange(size[1]) + 0.5, (np.arange(size[0]) + 0.5)[:, None]
    inside = np.zeros(size, dtype=bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside
