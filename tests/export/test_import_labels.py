"""Corrections from other tools come back as a folder of labels that alignment learns from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import EVERY_PIECE, NAMES, VOCABULARY, make_labels, truth
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco_mask

from patchword.alignment.data import LabelledImages
from patchword.config.exchange import ExportSettings
from patchword.data.coco_masks import runs_of_text
from patchword.data.folders import prepare_output
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.importers import import_labels
from patchword.export.rasterize import Photographs
from patchword.export.run import export_labels
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import CORRECTIONS, refuse_corrections
from patchword.labeling.records import DatasetRecord
from small_world import state_of

ROUND_TRIPS = [
    ("coco", "masks"),
    ("coco", "polygons"),
    ("voc", "masks"),
    ("label-studio", "masks"),
    ("label-studio", "polygons"),
]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    return make_labels(tmp_path_factory.mktemp("labels"))


def exported(labels: LabelledDataset, name: str, folder: Path, shapes: str = "masks") -> Path:
    out = folder / ("labels.json" if name == "coco" else "exported")
    settings = ExportSettings(shapes=shapes, **EVERY_PIECE)
    export_labels(labels, format=name, out=out, settings=settings, quiet=True)
    return out


def bring(source: Path, name: str, labels: LabelledDataset, out: Path, **more: Any) -> LabelledDataset:
    return import_labels(
        source, format=name, photos=labels.root, out=out, quiet=True, **{"vocabulary": VOCABULARY} | more
    )


def changed_json(path: Path, change: Callable[[Any], Any]) -> Path:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "shapes"), ROUND_TRIPS)
def test_export_and_import_give_the_same_label_maps(
    labels: LabelledDataset, tmp_path: Path, name: str, shapes: str
) -> None:
    back = bring(exported(labels, name, tmp_path, shapes), name, labels, tmp_path / "back")
    expected, found = truth(labels), truth(back)
    assert list(found) == sorted(NAMES)
    for photo, indices in expected.items():
        np.testing.assert_array_equal(found[photo], indices)
    assert [item.label_map.read_bytes() for item in back.items] == [
        item.label_map.read_bytes() for item in labels.items
    ]
    assert back.counts.ok == 5
    assert back.counts.empty == 1
    assert back.vocabulary == labels.vocabulary
    assert DatasetRecord.load(back.folder).source == name
    assert (back.image_text, back.mask_generator, back.settings) == (None, None, None)
    for item, original in zip(back.items, labels.items, strict=True):
        assert item.record.classes == original.record.classes
        assert item.record.coverage == pytest.approx(original.record.coverage)
        union = sum(segment.mask() for segment in item.segments())
        np.testing.assert_array_equal(np.broadcast_to(union, item.record.size) > 0, found[item.record.name] != 255)


def test_what_comes_back_can_be_aligned_and_exported_again(labels: LabelledDataset, tmp_path: Path) -> None:
    source = exported(labels, "coco", tmp_path)
    back: LabelledImages = bring(source, "coco", labels, tmp_path / "back")
    assert [item.image for item in back.items] == [item.image for item in labels.items]
    assert isinstance(back, LabelledDataset)
    again = tmp_path / "again.json"
    export_labels(back, format="coco", out=again, settings=ExportSettings(**EVERY_PIECE), quiet=True)
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (source, again))
    assert [(each["bbox"], each["segmentation"]) for each in first["annotations"]] == [
        (each["bbox"], each["segmentation"]) for each in second["annotations"]
    ]


def test_a_correction_arrives(labels: LabelledDataset, tmp_path: Path) -> None:
    def correct(data: dict) -> None:
        number = next(image["id"] for image in data["images"] if image["file_name"] == "a/x.jpg")
        data["annotations"] = [each for each in data["annotations"] if each["image_id"] != number]
        corners = [2, 1, 12, 1, 12, 6, 2, 6]
        data["annotations"].append({"image_id": number, "category_id": 3, "segmentation": [corners]})
        uncompressed = {"size": [37, 53], "counts": [37 * 4, 37 * 2, 37 * 47]}  # two columns, larger than the box
        data["annotations"].append({"image_id": number, "category_id": 1, "segmentation": uncompressed})

    source = changed_json(exported(labels, "coco", tmp_path), correct)
    found = truth(bring(source, "coco", labels, tmp_path / "back"))["a/x.jpg"]
    expected = np.full((37, 53), 255)
    expected[:, 4:6] = 0
    expected[1:6, 2:12] = 2  # the smaller on top
    np.testing.assert_array_equal(found, expected)


def test_the_last_annotation_of_a_task_counts(labels: LabelledDataset, tmp_path: Path) -> None:
    def triangle(label: str) -> list[dict]:
        value = {"points": [[0, 0], [100, 0], [0, 100]], "closed": True, "polygonlabels": [label]}
        shape = {"original_width": 53, "original_height": 37, "image_rotation": 0}
        return [{"type": "polygonlabels", "value": value, **shape}, {"type": "choices", "value": {"choices": ["ok"]}}]

    def correct(tasks: list) -> None:
        task = next(task for task in tasks if task["data"]["name"] == "a/x.jpg")
        task["annotations"] = [
            {"updated_at": "2024-05-02T10:00:00Z", "result": triangle("couch")},
            {"updated_at": "2024-05-01T10:00:00Z", "result": triangle("cat")},
            {"updated_at": "2024-05-03T10:00:00Z", "result": triangle("cat"), "was_cancelled": True},
        ]
        del task["data"]["name"]
        del next(task for task in tasks if task["data"].get("name") == "leer.png")["predictions"]

    source = exported(labels, "label-studio", tmp_path)
    changed_json(source / "tasks.json", correct)
    back = bring(source, "label-studio", labels, tmp_path / "back")
    assert [item.record.name for item in back.items] == sorted(set(NAMES) - {"leer.png"})
    found = truth(back)["a/x.jpg"]
    assert found[0, 0] == 1  # a synonym of the class "sofa"
    assert set(np.unique(found)) == {1, 255}
    assert found[-1, -1] == 255


def test_masks_as_cvat_exports_them(labels: LabelledDataset, tmp_path: Path) -> None:
    source = exported(labels, "cvat", tmp_path)
    back = bring(source, "voc", labels, tmp_path / "back")
    for name, indices in truth(labels).items():
        np.testing.assert_array_equal(truth(back)[name], indices)
    shutil.rmtree(source / "SegmentationObject")
    shutil.rmtree(source / "ImageSets")
    table = (source / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    (source / "labelmap.txt").write_text("\n".join([*reversed(table[2:]), table[1]]), encoding="utf-8")
    again = bring(source, "voc", labels, tmp_path / "again")  # colours count, not the order of the table
    for name, indices in truth(labels).items():
        np.testing.assert_array_equal(truth(again)[name], indices)


def test_voc_without_a_table_counts_from_one_where_a_setting_says_so(labels: LabelledDataset, tmp_path: Path) -> None:
    source = tmp_path / "voc"
    (source / "SegmentationClass").mkdir(parents=True)
    mask = np.zeros((1, 1), dtype=np.uint8) + 2
    Image.fromarray(mask).save(source / "SegmentationClass" / "punkt.png")
    with pytest.raises(PatchwordError, match=r"no labelmap\.txt, so nothing says which class a value is"):
        bring(source, "voc", labels, tmp_path / "back")
    back = bring(source, "voc", labels, tmp_path / "back", settings={"values": "positions"})
    assert truth(back)["punkt.png"].tolist() == [[1]]
    (source / "labelmap.txt").write_text("background:0,0,0::\n", encoding="utf-8")
    with pytest.raises(PatchwordError, match=r"values is 'positions', but .* has a labelmap\.txt"):
        bring(source, "voc", labels, tmp_path / "again", settings={"values": "positions"})


def test_a_class_of_the_name_background_keeps_its_pixels(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of(["background", "cat"])
    indices = np.array([[0, 1, 255, 0]], dtype=np.uint8)
    labels = make_labels(tmp_path, {"x.png": (indices, [])}, vocabulary=vocabulary)
    for name in ("voc", "cvat"):
        out = tmp_path / name
        export_labels(labels, format=name, out=out, quiet=True)
        assert (out / "labelmap.txt").read_text(encoding="utf-8").splitlines()[1] == "unlabelled:0,0,0::"
        back = bring(out, "voc", labels, tmp_path / f"{name}-back", vocabulary=vocabulary)
        np.testing.assert_array_equal(truth(back)["x.png"], indices)


def test_labels_of_another_size_are_listed_as_failed(labels: LabelledDataset, tmp_path: Path) -> None:
    def shrink(tasks: list) -> None:
        task = next(task for task in tasks if task["data"]["name"] == "a/x.jpg")
        for region in task["predictions"][0]["result"]:
            region["original_width"] = 9

    source = exported(labels, "label-studio", tmp_path)
    changed_json(source / "tasks.json", shrink)
    back = bring(source, "label-studio", labels, tmp_path / "back")
    (failed,) = back.failed
    assert failed.name == "a/x.jpg"
    assert "9 x 37 pixels, the photograph is 53 x 37" in (failed.reason or "")
    assert len(back.items) == 5


def no_category(data: dict) -> None:
    data["categories"][0]["name"] = "dog"


def no_photographs(data: dict) -> None:
    for number, image in enumerate(data["images"]):
        image["file_name"] = f"gone-{number}.jpg"


def all_one(data: dict) -> None:
    for image in data["images"]:
        image["file_name"] = data["images"][0]["file_name"]


def short_runs(data: dict) -> None:
    for annotation in data["annotations"]:
        annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"][:-2]


def two_points(data: dict) -> None:
    for annotation in data["annotations"]:
        annotation["segmentation"] = [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_category, "'dog' is not in the class list"),
        (no_photographs, r"photograph 'gone-0\.jpg' is not in"),
        (all_one, "has 6 entries for photograph"),
        (lambda data: data.pop("images"), "not a COCO instances file"),
        (lambda data: data["images"].clear(), "labels of no photograph"),
    ],
)
def test_coco_files_that_cannot_be_used(
    labels: LabelledDataset, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    source = changed_json(exported(labels, "coco", tmp_path), change)
    with pytest.raises(PatchwordError, match=message) as caught:
        bring(source, "coco", labels, tmp_path / "back")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("change", "message"), [(short_runs, "run lengths do not fill the photograph"), (two_points, "fewer than 3 points")]
)
def test_damaged_masks_fail_one_by_one(
    labels: LabelledDataset, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    source = changed_json(exported(labels, "coco", tmp_path), change)
    back = bring(source, "coco", labels, tmp_path / "back")
    assert [item.record.name for item in back.items] == ["leer.png"]
    assert all(message in (record.reason or "") for record in back.failed)
    objects = json.loads(source.read_text(encoding="utf-8"))["annotations"]
    assert sum(back.counts.left_out.values()) == len(objects)


def test_wrong_sources_are_refused(labels: LabelledDataset, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    (tmp_path / "object.json").write_text("{}", encoding="utf-8")
    (tmp_path / "photos").mkdir()
    cases = [
        ("coco", "nowhere.json", "cannot read"),
        ("coco", "bad.json", "is not JSON"),
        ("label-studio", "object.json", "no list of tasks"),
        ("voc", "nowhere", "cannot read"),
        ("voc", "bad.json", r"is not a VOC folder, nor a \.zip of one"),
        ("voc", "photos", "no folder SegmentationClass"),
        ("yolo-seg", "nowhere", "'format' is 'yolo-seg'; choose from coco, voc, label-studio$"),
        ("cvat", "nowhere", "'Segmentation mask 1.1' is read by voc"),
    ]
    for name, source, message in cases:
        with pytest.raises(PatchwordError, match=message):
            bring(tmp_path / source, name, labels, tmp_path / "back")
    with pytest.raises(PatchwordError, match="inside the output folder"):
        import_labels(tmp_path / "bad.json", format="coco", photos=labels.root, vocabulary=VOCABULARY, out=tmp_path)
    with pytest.raises(PatchwordError, match="not empty"):
        bring(exported(labels, "coco", tmp_path), "coco", labels, labels.folder)
    assert len(LabelledDataset.open(labels.folder)) == 6


def test_photographs_are_found_by_what_other_tools_call_them(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "b/y.png", "é.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 3)).save(tmp_path / name)
    photographs = Photographs(tmp_path)
    assert photographs.named("a/x.jpg", place="") == "a/x.jpg"
    assert photographs.named("y.png", place="") == "b/y.png"
    assert photographs.named("data/set/b/x.jpg", place="") == "b/x.jpg"
    assert photographs.named("e\u0301.png", place="") == "é.png"
    assert photographs.without_suffix("b/y", place="") == "b/y.png"
    with pytest.raises(PatchwordError, match=r"may be 'a/x\.jpg' or 'b/x\.jpg'"):
        photographs.named("x.jpg", place="list")
    assert photographs.size("a/x.jpg") == (3, 2)


def test_the_size_of_a_turned_photograph_is_that_of_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 9)).save(tmp_path / "x.jpg", exif=exif)
    assert Photographs(tmp_path).size("x.jpg") == (5, 9)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=30)), st.booleans())
def test_compressed_runs_are_read_as_coco_writes_them(mask: np.ndarray, wide: bool) -> None:
    mask = np.repeat(mask, 40, axis=0) if wide else mask
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1], [True]]))
    expected = [*([0] if flat[0] else []), *np.diff(edges).tolist()]
    assert runs_of_text(counts) == expected


def test_labels_of_an_earlier_version_still_open(tmp_path: Path) -> None:
    """Which counted nothing that was left out."""
    labels = make_labels(tmp_path)
    for path in (labels.folder / "dataset.json", labels.folder / "manifest.jsonl"):
        text = path.read_text(encoding="utf-8")
        earlier = re.sub(r',\s*"left_out":\s*\{\}|"left_out":\s*\{\},\s*', "", text)
        assert "left_out" in text
        assert "left_out" not in earlier
        path.write_text(earlier, encoding="utf-8")
    assert LabelledDataset.open(labels.folder).counts.left_out == {}


def test_a_photograph_without_a_name_is_a_mistake_and_no_crash(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    with pytest.raises(PatchwordError, match=r"tasks\.json: photograph '' is not in"):
        Photographs(labels.root).named("", place="tasks.json")


def test_corrections_are_not_overwritten_by_machine_output(labels: LabelledDataset, tmp_path: Path) -> None:
    source = exported(labels, "coco", tmp_path)
    bring(source, "coco", labels, tmp_path / "back")
    before = state_of(tmp_path / "back")
    with pytest.raises(PatchwordError, match=r"labels of 6 photographs .* imported from coco.*--overwrite-corrections"):
        refuse_corrections(tmp_path / "back", instead=CORRECTIONS)
    for marker in ("segmentation", "evaluation", "model"):
        with pytest.raises(PatchwordError, match=f"holds 'labels', not '{marker}'"):
            prepare_output(tmp_path / "back", overwrite=True, marker=marker)
    assert state_of(tmp_path / "back") == before
    refuse_corrections(labels.folder, instead=CORRECTIONS)  # made by models
    refuse_corrections(tmp_path / "nowhere", instead=CORRECTIONS)


def test_an_import_replaces_another_of_the_same_photographs_only(labels: LabelledDataset, tmp_path: Path) -> None:
    source = exported(labels, "coco", tmp_path)
    bring(source, "coco", labels, tmp_path / "back")
    bring(source, "coco", labels, tmp_path / "back", overwrite=True)

    def leave_one_out(data: Any) -> None:
        gone = data["images"].pop()["id"]
        data["annotations"] = [each for each in data["annotations"] if each["image_id"] != gone]

    changed_json(source, leave_one_out)
    before = state_of(tmp_path / "back")
    with pytest.raises(PatchwordError, match="labels of 1 photograph that were corrected"):
        bring(source, "coco", labels, tmp_path / "back", overwrite=True)
    assert state_of(tmp_path / "back") == before
    assert len(bring(source, "coco", labels, tmp_path / "back", overwrite_corrections=True)) == 5


def test_imported_labels_know_their_photographs(labels: LabelledDataset, tmp_path: Path) -> None:
    back = bring(exported(labels, "voc", tmp_path), "voc", labels, tmp_path / "back")
    shutil.copytree(labels.root, tmp_path / "photos")
    moved = LabelledDataset.open(back.folder, photos=tmp_path / "photos")
    assert moved.unusable() == {}
    Image.new("RGB", (53, 37)).save(tmp_path / "photos" / "a" / "x.jpg")
    assert list(moved.unusable()) == ["a/x.jpg"]
    with pytest.raises(PatchwordError, match=r"changed since it was labelled: a/x\.jpg; nothing is exported"):
        export_labels(moved, format="voc", out=tmp_path / "again", quiet=True)
    assert not (tmp_path / "again").exists()
