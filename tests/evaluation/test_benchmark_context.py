import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import every_value, make_split, save_photo, write_list
from pycocotools import mask as coco_mask
from scipy.io import savemat

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS

# Some of the 459 labels as the annotations' own labels.txt numbers them; "accordion" and "zoo" are none of the 59.
SOME = {
    "accordion": 1, "aeroplane": 2, "bag": 9, "bed": 18, "bedclothes": 19, "bench": 22, "bicycle": 23, "boat": 31,
    "bottle": 34, "building": 44, "ceiling": 68, "curtain": 105, "dog": 113, "door": 115, "grass": 187, "ground": 189,
    "light": 232, "mountain": 259, "mouse": 260, "person": 284, "plate": 295, "platform": 296, "sign": 355, "sky": 360,
    "table": 397, "track": 415, "train": 416, "tree": 420, "tvmonitor": 427, "wall": 440, "water": 445, "window": 454,
    "wood": 458, "zoo": 459,
}  # fmt: skip
NONE_OF_THEM = ("accordion", "zoo")


def names_of(truth: Any, values: np.ndarray) -> list[str | None]:
    """What each pixel is, None where it does not count."""
    return [None if value < 0 else truth.names[value] for value in values.ravel().tolist()]


def make_photos(root: Path, *names: str, size: tuple[int, int] = (1, len(SOME) + 1)) -> Path:
    for name in names:
        save_photo(root / "JPEGImages" / f"{name}.jpg", size)
    return root


def label_row() -> np.ndarray:
    """Unlabelled, then every label of SOME."""
    return np.array([[0, *SOME.values()]], dtype=np.uint16)


def expected(background: str | None) -> list[str | None]:
    return [background, *(background if name in NONE_OF_THEM else name for name in SOME)]


def test_converted_masks(tmp_path: Path):
    root = tmp_path / "VOCdevkit" / "VOC2010"
    make_split(root / "JPEGImages", root / "SegmentationClassContext", {"2008_000002": every_value(0, 59, more=())})
    make_split(root / "JPEGImages", root / "SegmentationClassContext", {"2008_000003": every_value(0, 59, more=())})
    write_list(root / "ImageSets" / "SegmentationContext" / "val.txt", ["2008_000003"])
    with_background = BENCHMARKS["context60"].open(tmp_path)
    assert [pair.name for pair in with_background.pairs] == ["2008_000003.jpg"]
    assert with_background.truth.read_truth(with_background.pairs[0])[0].tolist() == list(range(60))
    without = BENCHMARKS["context59"].open(tmp_path)
    assert without.truth.read_truth(without.pairs[0])[0].tolist() == [-1, *range(59)]
    assert without.truth.names == with_background.truth.names[1:]


def test_masks_of_the_59_classes_alone(tmp_path: Path):
    make_photos(tmp_path, "2008_000003")
    make_split(
        tmp_path / "JPEGImages", tmp_path / "annotations_detectron2/pc59_val", {"2008_000002": every_value(0, 58)}
    )
    opened = BENCHMARKS["context60"].open(tmp_path)
    assert [pair.name for pair in opened.pairs] == ["2008_000002.jpg"]
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [*range(1, 60), 0]
    without = BENCHMARKS["context59"].open(tmp_path)
    assert without.truth.read_truth(without.pairs[0])[0].tolist() == [*range(59), -1]


def make_mat(root: Path, *, list_name: str = "SegmentationContext") -> Path:
    make_photos(root, "2008_000002", "2008_000003")
    for name in ("2008_000002", "2008_000003"):
        (root / "trainval").mkdir(exist_ok=True)
        savemat(str(root / "trainval" / f"{name}.mat"), {"LabelMap": label_row()})
    write_list(root / "ImageSets" / list_name / "val.txt", ["2008_000002"])
    return root


def test_a_list_beside_the_label_maps_will_do(tmp_path: Path):
    root = make_mat(tmp_path)
    (root / "ImageSets" / "SegmentationContext" / "val.txt").rename(root / "pascalcontext_val.txt")
    assert [pair.name for pair in BENCHMARKS["context59"].open(root).pairs] == ["2008_000002.jpg"]


@pytest.mark.parametrize("list_name", ["SegmentationContext", "Main"])
@pytest.mark.parametrize("labels", [True, False])
def test_label_maps_of_459_labels(tmp_path: Path, labels: bool, list_name: str):
    root = make_mat(tmp_path, list_name=list_name)
    if labels:
        (root / "labels.txt").write_text("".join(f"{value}: {name}\n" for name, value in SOME.items()))
    opened = BENCHMARKS["context60"].open(root)
    assert [pair.name for pair in opened.pairs] == ["2008_000002.jpg"]
    assert names_of(opened.truth, opened.truth.read_truth(opened.pairs[0])) == expected("background")
    without = BENCHMARKS["context59"].open(root)
    assert names_of(without.truth, without.truth.read_truth(without.pairs[0])) == expected(None)


def test_names_decide_where_labels_are_numbered_otherwise(tmp_path: Path):
    root = make_mat(tmp_path)
    (root / "labels.txt").write_text("1: aeroplane\n2: accordion\n")
    opened = BENCHMARKS["context60"].open(root)
    found = names_of(opened.truth, opened.truth.read_truth(opened.pairs[0]))
    assert found[1:3] == ["aeroplane", "background"]


def test_label_maps_without_a_list_are_refused(tmp_path: Path):
    root = make_mat(tmp_path)
    (root / "ImageSets" / "SegmentationContext" / "val.txt").unlink()
    with pytest.raises(PatchwordError, match=r"training and validation photographs together; needed .* is ImageSets"):
        BENCHMARKS["context59"].open(root)


def test_labels_that_are_not_understood_are_refused_with_their_line(tmp_path: Path):
    root = make_mat(tmp_path)
    (root / "labels.txt").write_text("1: accordion\naeroplane\n")
    with pytest.raises(PatchwordError, match=r"labels.txt:2: cannot read 'aeroplane'"):
        BENCHMARKS["context59"].open(root)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file, cut off"])
def test_a_damaged_label_map_is_refused(tmp_path: Path, content: bytes):
    root = make_mat(tmp_path)
    (root / "trainval" / "2008_000002.mat").write_bytes(content)
    opened = BENCHMARKS["context59"].open(root)
    with pytest.raises(PatchwordError, match=r"cannot read LabelMap in .*2008_000002.mat"):
        opened.truth.read_truth(opened.pairs[0])


def test_a_matlab_file_without_a_label_map_is_refused(tmp_path: Path):
    root = make_mat(tmp_path)
    savemat(str(root / "trainval" / "2008_000002.mat"), {"Other": label_row()})
    opened = BENCHMARKS["context59"].open(root)
    with pytest.raises(PatchwordError, match="LabelMap"):
        opened.truth.read_truth(opened.pairs[0])


def test_without_scipy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = BENCHMARKS["context59"].open(make_mat(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(PatchwordError, match=r'pip install "patchword\[mat\]"'):
        opened.truth.read_truth(opened.pairs[0])


def encoded(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def make_detail(root: Path, *, phases: tuple[str, ...] = ("val", "train")) -> Path:
    """Two photographs of one row, every label a pixel; the first pixel is labelled by nothing."""
    names = ("2008_000002", "2008_000003")[: len(phases)]
    make_photos(root, *names)
    row = label_row()
    images, segments = [], []
    for number, (name, phase) in enumerate(zip(names, phases, strict=True)):
        size = {"height": 1, "width": row.shape[1]}
        images.append({"image_id": number, "file_name": f"{name}.jpg", "phase": phase, **size})
        for value in SOME.values():
            segments.append({"image_id": number, "category_id": value, "segmentation": encoded(row == value)})
    categories = [{"category_id": value, "name": name} for name, value in SOME.items()]
    record = {"images": images, "annos_segmentation": segments, "categories": categories}
    (root / "trainval_merged.json").write_text(json.dumps(record))
    return root


def test_the_annotations_of_pascal_in_detail(tmp_path: Path):
    opened = BENCHMARKS["context60"].open(make_detail(tmp_path))
    assert [pair.name for pair in opened.pairs] == ["2008_000002.jpg"]
    assert names_of(opened.truth, opened.truth.read_truth(opened.pairs[0])) == expected("background")
    assert opened.split == "phase val of trainval_merged.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": {"image_id": 7, "file_name": "2008_000002.jpg", "phase": "val"}}, "photograph '2008_000002' twice"),
        ({"images": {"image_id": 0, "file_name": "2008_000009.jpg", "phase": "val"}}, "image_id '0' twice"),
        ({"categories": {"category_id": 7, "name": "zoo"}}, "category 'zoo' twice"),
        ({"categories": {"category_id": -7, "name": "new"}}, "label id -7 is outside 0 to 65535"),
    ],
)
def test_detail_with_one_name_or_id_for_two_is_refused(tmp_path: Path, change: dict[str, Any], said: str):
    path = make_detail(tmp_path) / "trainval_merged.json"
    record = json.loads(path.read_text())
    for what, added in change.items():
        record[what].append(added)
    path.write_text(json.dumps(record))
    with pytest.raises(PatchwordError, match=said):
        BENCHMARKS["context60"].open(tmp_path)


@pytest.mark.parametrize("changed", [{"segmentation": []}, {"segmentation": None}, {"category_id": 70_000}])
def test_a_segment_of_detail_that_cannot_be_painted_is_refused(tmp_path: Path, changed: dict[str, Any]):
    path = make_detail(tmp_path) / "trainval_merged.json"
    record = json.loads(path.read_text())
    record["annos_segmentation"][0] |= changed
    path.write_text(json.dumps(record))
    opened = BENCHMARKS["context60"].open(tmp_path)
    with pytest.raises(PatchwordError, match=r"the annotation of 2008_000002\.jpg is damaged: "):
        opened.truth.read_truth(opened.pairs[0])


@pytest.mark.parametrize("text", ["²: aeroplane\n", "2:\n", "2: aeroplane\n3: aeroplane\n", f"{10**9}: aeroplane\n"])
def test_a_list_of_labels_that_leaves_a_doubt_is_refused_with_its_line(tmp_path: Path, text: str):
    root = make_mat(tmp_path)
    (root / "labels.txt").write_text(text, encoding="utf-8")
    with pytest.raises(PatchwordError, match=rf"labels\.txt:{text.count(chr(10))}: "):
        BENCHMARKS["context59"].open(root)


def test_detail_without_photographs_for_validation_is_refused(tmp_path: Path):
    with pytest.raises(PatchwordError, match="no photographs of the phase val"):
        BENCHMARKS["context60"].open(make_detail(tmp_path, phases=("train", "train")))


def test_detail_with_a_photograph_missing_is_refused(tmp_path: Path):
    root = make_detail(tmp_path, phases=("val", "val"))
    (root / "JPEGImages" / "2008_000003.jpg").unlink()
    with pytest.raises(PatchwordError, match=r"2 photographs for validation, 1 of them .* such as 2008_000003"):
        BENCHMARKS["context60"].open(root)


def test_the_archive_of_59_labels_has_an_order_of_its_own(tmp_path: Path):
    names = BENCHMARKS["context59"].vocabulary().names
    order = [*names[::-1]]
    make_split(tmp_path / "JPEGImages", tmp_path / "59_context_labels", {"2008_000002": every_value(0, 59, more=())})
    written = [{"table": "diningtable", "pottedplant": "potted plant"}.get(name, name) for name in order]
    (tmp_path / "59_labels.txt").write_text("".join(f"{k}: {name}\n" for k, name in enumerate(written, start=1)))
    opened = BENCHMARKS["context60"].open(tmp_path)
    assert names_of(opened.truth, opened.truth.read_truth(opened.pairs[0])) == ["background", *order]


def test_59_labels_without_a_class_are_refused(tmp_path: Path):
    make_split(tmp_path / "JPEGImages", tmp_path / "59_context_labels", {"2008_000002": every_value(0, 59, more=())})
    (tmp_path / "59_labels.txt").write_text("1: aeroplane\n")
    with pytest.raises(PatchwordError, match=r"59_labels.txt lacks 58 of the 59 classes, such as 'bag'"):
        BENCHMARKS["context60"].open(tmp_path)
