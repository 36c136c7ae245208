"""Exports read back by the tools that they are for, pixel by pixel, where these are installed.

`pip install patchword[readers]` brings them; docs/formats.md has the versions that this was last run with.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from export_data import EVERY_PIECE, VOCABULARY, default_scenes, make_labels, scene, truth

from patchword.config.exchange import ExportSettings
from patchword.export.run import export_labels
from patchword.labeling.dataset import LabelledDataset

IGNORE = 255
NAMES = ["a/x.jpg", "b/x.jpg", "Füße im Schnee.jpg", "leer.png"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    """Names that differ in more than their suffix, which some of the tools leave off."""
    scenes = default_scenes()
    chosen = {name: scenes[name] for name in NAMES}
    chosen["leer.png"] = (np.full((15, 17), IGNORE, dtype=np.uint8), [])  # tools refuse pictures of fewer pixels
    return make_labels(tmp_path_factory.mktemp("labels"), chosen)


@pytest.fixture(scope="module")
def maps(labels: LabelledDataset) -> dict[str, np.ndarray]:
    """For each photograph the ids: 1 more than the index, 0 for ignore."""
    return {name: np.where(found == IGNORE, 0, found.astype(int) + 1) for name, found in truth(labels).items()}


def export(labels: LabelledDataset, name: str, out: Path, **settings: Any) -> Path:
    export_labels(labels, format=name, out=out, settings=ExportSettings(**EVERY_PIECE | settings), quiet=True)
    return out


def id_of(name: str) -> int:
    return VOCABULARY.names.index(name) + 1


@pytest.fixture(params=["label_studio_sdk.converter", "label_studio_converter"])
def label_studio(request: pytest.FixtureRequest) -> ModuleType:
    pytest.importorskip(request.param)
    return importlib.import_module(request.param)


def accepted(tasks: Path, target: Path) -> Path:
    """The tasks as Label Studio exports them once a person has accepted every prediction."""
    data = json.loads(tasks.read_text(encoding="utf-8"))
    for number, task in enumerate(data, start=1):
        (prediction,) = task.pop("predictions")
        who = {"id": number, "completed_by": {"email": "a@b"}, "was_cancelled": False}
        task |= {"id": number, "annotations": [who | {"result": prediction["result"]}]}
    target.write_text(json.dumps(data), encoding="utf-8")
    return target


def test_label_studios_converter_paints_the_brush(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, label_studio: ModuleType
) -> None:
    out = export(labels, "label-studio", tmp_path / "tasks")
    done = accepted(out / "tasks.json", tmp_path / "done.json")
    interface = (out / "label_config.xml").read_text(encoding="utf-8")
    converter = label_studio.Converter(config=interface, project_dir=str(tmp_path), download_resources=False)
    (tmp_path / "masks").mkdir()
    converter.convert(str(done), str(tmp_path / "masks"), "BRUSH_TO_NUMPY", is_dir=False)
    names = [task["data"]["name"] for task in json.loads(done.read_text(encoding="utf-8"))]
    found = {name: np.zeros(maps[name].shape, dtype=int) for name in names}
    files = list((tmp_path / "masks").iterdir())
    for path in files:  # task-1-annotation-1-by-a@b-brush-cat-0.npy
        parts = path.stem.split("-")
        mask = np.load(path) > 0
        name = names[int(parts[1]) - 1]
        assert not found[name][mask].any()
        found[name][mask] = id_of(parts[-2])
    assert len(files) > len(names)
    for name, ids in maps.items():
        np.testing.assert_array_equal(found[name], ids)


def ids_by_datumaro(dataset: Any, datumaro: Any) -> dict[str, np.ndarray]:
    """For each item its masks painted with our ids; what is called otherwise than a class is nothing."""
    names = [each.name for each in dataset.categories()[datumaro.AnnotationType.label]]
    found = {}
    for item in dataset:
        masks = [each for each in item.annotations if each.type == datumaro.AnnotationType.mask]
        painted = np.zeros(masks[0].image.shape if masks else (15, 17), dtype=int)
        for mask in masks:
            if names[mask.label] in VOCABULARY.names:
                inside = np.asarray(mask.image, dtype=bool)
                assert not painted[inside].any()
                painted[inside] = id_of(names[mask.label])
        found[item.id] = painted
    return found


def same(found: dict[str, np.ndarray], maps: dict[str, np.ndarray]) -> None:
    assert set(found) == {Path(name).with_suffix("").as_posix() for name in maps}
    for name, ids in maps.items():
        np.testing.assert_array_equal(found[Path(name).with_suffix("").as_posix()], ids)


@pytest.mark.parametrize("name", ["voc", "cvat", "coco", "coco-panoptic"])
def test_datumaro_reads_masks(labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, name: str) -> None:
    datumaro = pytest.importorskip("datumaro")
    place = tmp_path / "set"
    (place / "images").mkdir(parents=True)
    if name in ("voc", "cvat"):  # CVAT itself reads its masks with the reader for VOC
        shutil.rmtree(place)
        export(labels, name, place)
        form = "voc_instance_segmentation"
    elif name == "coco":
        export(labels, name, place / "annotations/instances_train.json")
        form = "coco_instances"
    else:
        out = export(labels, name, tmp_path / "panoptic")
        shutil.copytree(out / "panoptic", place / "annotations/panoptic_train")
        shutil.copy(out / "panoptic.json", place / "annotations/panoptic_train.json")
        form = "coco_panoptic"
    same(ids_by_datumaro(datumaro.Dataset.import_from(str(place), form), datumaro), maps)


@pytest.mark.parametrize("name", ["voc", "cvat"])
def test_datumaro_makes_no_shapes_of_slivers(tmp_path: Path, name: str) -> None:
    datumaro = pytest.importorskip("datumaro")
    indices = np.zeros((20, 20), dtype=np.uint8)
    indices[12:, 12:] = 1
    indices[2:4, 2:4] = 2
    export_labels(make_labels(tmp_path, {"x.png": (indices, [])}), format=name, out=tmp_path / "set", quiet=True)
    dataset = datumaro.Dataset.import_from(str(tmp_path / "set"), "voc_instance_segmentation")
    found = ids_by_datumaro(dataset, datumaro)["x"]
    np.testing.assert_array_equal(found, np.where(indices == 2, 0, indices + 1))


@pytest.mark.parametrize("how", ["leave", "copy"])
def test_fiftyones_importer_pairs_photographs_and_masks(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, how: str
) -> None:
    pytest.importorskip("fiftyone")
    importers = importlib.import_module("fiftyone.utils.data.importers")
    out = export(labels, "fiftyone", tmp_path / "fiftyone", photographs=how)
    data_path = "data.json" if how == "leave" else "data"
    seen = set()
    with importers.ImageSegmentationDirectoryImporter(dataset_dir=str(out), data_path=data_path) as importer:
        for photo, _, label in importer:
            root = labels.root if how == "leave" else out / "data"
            name = Path(photo).resolve().relative_to(root.resolve()).as_posix()
            np.testing.assert_array_equal(label.get_mask(), maps[name])
            seen.add(name)
    assert seen == set(maps)


def test_ultralytics_takes_every_line_and_draws_the_label_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    pytest.importorskip("ultralytics")
    utils = importlib.import_module("ultralytics.data.utils")
    scenes = {f"a/ü{seed}.png": scene(seed, size=(240, 320)) for seed in range(3)}
    labels = make_labels(tmp_path / "labels", scenes)
    out = tmp_path / "yolo"
    settings = ExportSettings(photographs="copy", **EVERY_PIECE)
    summary = export_labels(labels, format="yolo-seg", out=out, settings=settings, quiet=True)
    monkeypatch.chdir(tmp_path)  # a training starts anywhere
    data = utils.check_det_dataset(str(out / "data.yaml"), autodownload=False)
    assert data["names"] == dict(enumerate(VOCABULARY.names))
    photos = sorted(str(path) for path in Path(data["train"]).rglob("*.png"))
    lines = 0
    for photo, file in zip(photos, utils.img2label_paths(photos), strict=True):
        _, boxes, shape, segments, _, missing, found, empty, corrupt, said = utils.verify_image_label(
            (photo, file, "", False, len(VOCABULARY), 0, 0, False)
        )
        assert (missing, found, empty, corrupt, said) == (0, 1, 0, 0, "")
        lines += len(segments)
        indices = scenes[Path(photo).relative_to(out / "images/train").as_posix()][0]
        painted = np.full(indices.shape, IGNORE)
        for box, segment in zip(boxes, segments, strict=True):
            mask = utils.polygon2mask(shape, [(segment * shape[::-1]).reshape(-1)]).astype(bool)
            assert (painted[mask] == IGNORE).all()
            painted[mask] = int(box[0])
        np.testing.assert_array_equal(painted, indices)
    assert lines == summary.segments > 0
