"""What all exports have in common: one way in, whole files, the same bytes, one photograph in memory."""

from __future__ import annotations

import json
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
from export_data import VOCABULARY, make_labels
from PIL import Image

from patchword.config.exchange import ExportSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export import job as job_module
from patchword.export.files import write_json_object
from patchword.export.run import FORMATS, SUMMARY_FILE, ExportSummary, export_labels
from patchword.labeling.dataset import LabelledDataset


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    return make_labels(tmp_path_factory.mktemp("labels"), failed=["kaputt.jpg"])


def target(folder: Path, name: str) -> Path:
    return folder / ("coco.json" if name == "coco" else name)


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_labels_give_the_same_bytes(labels: LabelledDataset, tmp_path: Path, name: str) -> None:
    first, second = (target(tmp_path / side, name) for side in ("one", "two"))
    one = export_labels(labels, format=name, out=first, quiet=True)
    export_labels(labels, format=name, out=second, quiet=True)
    assert contents(first) == contents(second)
    assert ExportSummary.model_validate_json(one.model_dump_json()) == one
    assert one.path == str(first)
    assert not list(tmp_path.rglob("*.tmp"))
    if first.is_dir():
        kept = json.loads((first / SUMMARY_FILE).read_text(encoding="utf-8"))
        assert kept == json.loads(one.model_dump_json(exclude={"path"}))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_is_only_replaced_when_asked(labels: LabelledDataset, tmp_path: Path, name: str) -> None:
    out = target(tmp_path, name)
    export_labels(labels, format=name, out=out, quiet=True)
    before = contents(out)
    if out.is_dir():
        (out / "stray.txt").write_text("x")
    else:
        out.write_text("x")
    with pytest.raises(PatchwordError, match="--overwrite"):
        export_labels(labels, format=name, out=out, quiet=True)
    export_labels(labels, format=name, out=out, overwrite=True, quiet=True)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["coco", "cvat"])
def test_an_export_that_fails_leaves_no_half_file(
    labels: LabelledDataset, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise PatchwordError("damaged")

    monkeypatch.setattr(job_module, "pieces_of", damaged)
    out = tmp_path / "out" / ("x.json" if name == "coco" else "x.zip")
    with pytest.raises(PatchwordError, match="damaged"):
        export_labels(labels, format=name, out=out, quiet=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_one_photograph_is_in_memory_at_a_time(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = {f"{number}.png": (np.full((4, 4), number % 3, dtype=np.uint8), []) for number in range(12)}
    labels = make_labels(tmp_path, scenes)
    alive: weakref.WeakSet[LabelMap] = weakref.WeakSet()
    most = 0

    def load(path: Path, *, names: tuple[str, ...]) -> LabelMap:
        nonlocal most
        label_map = LabelMap.load(path, names=names)
        alive.add(label_map)
        most = max(most, len(alive))
        return label_map

    class Watched:
        pass

    Watched.load = staticmethod(load)  # type: ignore[attr-defined]
    monkeypatch.setattr(job_module, "LabelMap", Watched)
    export_labels(labels, format=name, out=target(tmp_path, name), quiet=True)
    assert 1 <= most <= 2  # the one that is done goes when the next has come


def test_cvat_archive_holds_what_the_folder_holds(labels: LabelledDataset, tmp_path: Path) -> None:
    export_labels(labels, format="cvat", out=tmp_path / "folder", quiet=True)
    export_labels(labels, format="cvat", out=tmp_path / "masks.zip", quiet=True)
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    folder = contents(tmp_path / "folder")
    assert packed == {name: data for name, data in folder.items() if name not in (".patchword", SUMMARY_FILE)}


def test_wrong_ways_in_are_refused(labels: LabelledDataset, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="'format' is 'coca'; choose from coco, "):
        export_labels(labels, format="coca", out=tmp_path / "x", quiet=True)
    with pytest.raises(PatchwordError, match=r"must be a file that ends in \.json"):
        export_labels(labels, format="coco", out=tmp_path / "x", quiet=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("x")
    with pytest.raises(PatchwordError, match="was not made by patchword"):
        export_labels(labels, format="voc", out=tmp_path / "mine", overwrite=True, quiet=True)
    with pytest.raises(PatchwordError, match="inside the output folder"):
        export_labels(labels, format="voc", out=labels.folder.parent, overwrite=True, quiet=True)
    settings = ExportSettings(photographs="copy")
    with pytest.raises(PatchwordError, match="no place for photographs"):
        export_labels(labels, format="cvat", out=tmp_path / "cvat", settings=settings, quiet=True)
    for wrong in ({"shapes": "boxes"}, {"tolerance": -1}, {"own_share": 2}, {"split": "a/b"}, {"photograph": "copy"}):
        with pytest.raises(PatchwordError, match=next(iter(wrong))):
            ExportSettings(**wrong)


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    many = Vocabulary.of([f"class {number}" for number in range(300)])
    indices = np.array([[0, 299, 65535]], dtype=np.uint16)
    labels = make_labels(tmp_path / "many", {"x.png": (indices, [])}, vocabulary=many)
    for name in ("voc", "cvat", "cityscapes"):
        with pytest.raises(PatchwordError, match=f"format {name} holds 254 classes at most, the vocabulary has 300"):
            export_labels(labels, format=name, out=tmp_path / name, quiet=True)
    export_labels(labels, format="fiftyone", out=tmp_path / "fiftyone", quiet=True)
    assert np.array(Image.open(tmp_path / "fiftyone/labels/x.png")).tolist() == [[1, 300, 0]]
    export_labels(labels, format="hf", out=tmp_path / "hf", quiet=True)
    assert np.array(Image.open(tmp_path / "hf/train/masks/x.png.png")).tolist() == indices.tolist()
    colon = make_labels(
        tmp_path / "colon", {"x.png": (np.zeros((1, 1), np.uint8), [])}, vocabulary=Vocabulary.of(["a:b"])
    )
    with pytest.raises(PatchwordError, match="'a:b' has ':'"):
        export_labels(colon, format="voc", out=tmp_path / "colon.voc", quiet=True)
    line = make_labels(tmp_path / "line", {"x\ny.png": (np.zeros((1, 1), np.uint8), [])})
    with pytest.raises(PatchwordError, match="line break"):
        export_labels(line, format="cvat", out=tmp_path / "line.cvat", quiet=True)


def test_damaged_labels_are_named(tmp_path: Path) -> None:
    labels = make_labels(tmp_path, {"x.png": (np.zeros((2, 2), np.uint8), [])})
    LabelMap(np.zeros((3, 3), np.uint8), VOCABULARY.names).save(labels.items[0].label_map)
    with pytest.raises(PatchwordError, match=r"x\.png\.png is of \(3, 3\) pixels, its record says \(2, 2\)"):
        export_labels(labels, format="hf", out=tmp_path / "hf", quiet=True)


def test_json_piece_by_piece_is_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json_object(path, [("one", {"b": 1, "a": "ü"}), ("two", iter([1, [2]])), ("none", iter([]))])
    assert json.loads(path.read_text(encoding="utf-8")) == {"one": {"a": "ü", "b": 1}, "two": [1, [2]], "none": []}
    write_json_object(path, [("name", "\udcff.jpg")])
    assert json.loads(path.read_bytes()) == {"name": "\udcff.jpg"}
