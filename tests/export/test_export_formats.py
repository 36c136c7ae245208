"""Each format read back by the tool that it is for, or by its rules, and compared pixel by pixel."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from export_data import EVERY_PIECE, NAMES, VOCABULARY, even_odd, make_labels, truth
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_export_brush import naive_decode

from patchword.config.exchange import ExportSettings
from patchword.config.inputs import choose_images
from patchword.data.masks import Segment
from patchword.errors import PatchwordError
from patchword.export.job import categories_of
from patchword.export.run import export_labels
from patchword.export.shards import sample_keys
from patchword.labeling.dataset import LabelledDataset

CATEGORIES = categories_of(VOCABULARY)
STEMS = ["a/x", "b/x.jpg", "b/x.png", "Füße im Schnee", "leer", "punkt"]
IGNORE = 255


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    return make_labels(tmp_path_factory.mktemp("labels"), failed=["kaputt.jpg"])


@pytest.fixture(scope="module")
def maps(labels: LabelledDataset) -> dict[str, np.ndarray]:
    return truth(labels)


def export(labels: LabelledDataset, name: str, out: Path, **settings: object) -> Path:
    chosen = ExportSettings(**EVERY_PIECE | settings)
    summary = export_labels(labels, format=name, out=out, settings=chosen, quiet=True)
    assert summary.slivers is None
    assert (summary.format, summary.images, summary.left_out) == (name, 6, 1)
    return out


def ids(indices: np.ndarray) -> np.ndarray:
    return np.where(indices == IGNORE, 0, indices.astype(int) + 1)


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_coco_by_pycocotools(labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, shapes: str) -> None:
    coco = COCO(str(export(labels, "coco", tmp_path / "coco.json", shapes=shapes)))
    assert [(each["id"], each["name"], tuple(each["color"])) for each in coco.loadCats(coco.getCatIds())] == [
        (each.id, each.name, each.colour) for each in CATEGORIES
    ]
    images = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    assert sorted(images) == sorted(NAMES)
    for name, image in images.items():
        assert maps[name].shape == (image["height"], image["width"])
        found = np.zeros(maps[name].shape, dtype=int)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert isinstance(annotation["segmentation"], list if shapes == "polygons" else dict)
            assert not found[mask].any()
            found[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
        np.testing.assert_array_equal(found, ids(maps[name]))


def test_coco_panoptic_by_the_rules_of_panopticapi(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = export(labels, "coco-panoptic", tmp_path / "panoptic")
    data = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))
    assert all(each["isthing"] in (0, 1) for each in data["categories"])
    categories = {each["id"] for each in data["categories"]}
    names = {image["id"]: image["file_name"] for image in data["images"]}
    assert len(data["annotations"]) == len(names) == 6
    for annotation in data["annotations"]:
        name = names[annotation["image_id"]]
        assert annotation["file_name"] == f"{name}.png"
        colours = np.array(Image.open(out / "panoptic" / annotation["file_name"])).astype(int)
        numbers = colours[..., 0] + 256 * colours[..., 1] + 256**2 * colours[..., 2]
        found = np.zeros(numbers.shape, dtype=int)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert len(infos) == len(annotation["segments_info"])
        assert set(np.unique(numbers)) - {0} == set(infos)
        for number, info in infos.items():
            assert info["category_id"] in categories
            assert info["area"] == (numbers == number).sum()
            rows, columns = np.nonzero(numbers == number)
            x, y, width, height = info["bbox"]
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            found[numbers == number] = info["category_id"]
        np.testing.assert_array_equal(found, ids(maps[name]))


def read_label_map(path: Path) -> dict[str, tuple[int, ...]]:
    rows = [row.split(":") for row in path.read_text(encoding="utf-8").splitlines() if not row.startswith("#")]
    assert all(len(row) == 4 for row in rows)
    return {row[0]: tuple(map(int, row[1].split(","))) for row in rows}


def test_voc_by_pillow(labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = export(labels, "voc", tmp_path / "voc", split="val")
    table = read_label_map(out / "labelmap.txt")
    assert list(table) == ["background", *VOCABULARY.names, "ignored"]
    listed = (out / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(listed) == sorted(STEMS)
    for stem, name in zip(STEMS, NAMES, strict=True):
        image = Image.open(out / "SegmentationClass" / f"{stem}.png")
        assert image.mode == "P"
        values = np.array(image)
        np.testing.assert_array_equal(values, np.where(maps[name] == IGNORE, 255, ids(maps[name])))
        colours = np.array(image.getpalette()).reshape(-1, 3)
        assert [tuple(colour) for colour in colours[[0, 1, 2, 3, 255]].tolist()] == list(table.values())
        objects = np.array(Image.open(out / "SegmentationObject" / f"{stem}.png"))
        np.testing.assert_array_equal(objects == 255, values == 255)
        for number in set(np.unique(objects)) - {255}:
            assert number > 0
            assert len(np.unique(values[objects == number])) == 1
    assert not (out / "JPEGImages").exists()


@pytest.mark.parametrize("how", ["copy", "link"])
def test_voc_with_photographs(labels: LabelledDataset, tmp_path: Path, how: str) -> None:
    out = export(labels, "voc", tmp_path / "voc", photographs=how)
    for stem, name in zip(STEMS, NAMES, strict=True):
        photo = out / "JPEGImages" / f"{stem}{Path(name).suffix}"
        assert photo.read_bytes() == (labels.root / name).read_bytes()
        assert photo.is_symlink() == (how == "link")
        assert how == "copy" or not photo.readlink().is_absolute()


def voc_colours() -> list[tuple[int, int, int]]:
    """The colour map of the VOC development kit, bit by bit."""
    colours = []
    for number in range(256):
        red = green = blue = 0
        rest = number
        for shift in range(7, -1, -1):
            red |= (rest & 1) << shift
            green |= (rest >> 1 & 1) << shift
            blue |= (rest >> 2 & 1) << shift
            rest >>= 3
        colours.append((red, green, blue))
    return colours


def test_cvat_by_the_rules_of_its_importer(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = export(labels, "cvat", tmp_path / "cvat")
    table = read_label_map(out / "labelmap.txt")
    class_of = {colour: index for index, colour in enumerate(table.values())}
    number_of = {colour: number for number, colour in enumerate(voc_colours())}
    assert set((out / "ImageSets/Segmentation/default.txt").read_text(encoding="utf-8").splitlines()) == set(STEMS)
    for stem, name in zip(STEMS, NAMES, strict=True):
        pictures = [
            np.array(Image.open(out / folder / f"{stem}.png")) for folder in ("SegmentationClass", "SegmentationObject")
        ]
        classes = np.array([[class_of[tuple(p)] for p in row] for row in pictures[0].tolist()])
        objects = np.array([[number_of[tuple(p)] for p in row] for row in pictures[1].tolist()])
        np.testing.assert_array_equal(classes, ids(maps[name]))
        found = np.zeros_like(classes)
        for number in set(np.unique(objects)) - {0}:
            inside = classes[objects == number]
            found[objects == number] = np.bincount(inside).argmax()
        np.testing.assert_array_equal(found, classes)


def test_more_objects_than_the_format_counts(tmp_path: Path) -> None:
    indices = np.full((40, 60), IGNORE, dtype=np.uint8)
    indices[::2, ::2] = np.arange(600).reshape(20, 30) % 3  # 600 objects of one pixel
    indices[0, :10] = 1
    labels = make_labels(tmp_path, {"many.png": (indices, [])})
    every = ExportSettings(**EVERY_PIECE)
    summary = export_labels(labels, format="voc", out=tmp_path / "voc", settings=every, quiet=True)
    assert summary.segments == 254
    assert any("many.png has" in note for note in summary.notes)
    classes = np.array(Image.open(tmp_path / "voc/SegmentationClass/many.png"))
    objects = np.array(Image.open(tmp_path / "voc/SegmentationObject/many.png"))
    assert set(np.unique(objects)) == {*range(1, 255), 255}
    for number in range(1, 255):
        assert len(np.unique(classes[objects == number])) == 1


def read_yolo(path: Path, size: tuple[int, int], classes: int) -> np.ndarray:
    """The rules of the format's reader: a class, then at least three points within the picture, a line each."""
    found = np.zeros(size, dtype=int)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines)
    for line in lines:
        number, *values = line.split()
        assert 0 <= int(number) < classes
        points = np.array(values, dtype=np.float64).reshape(-1, 2)
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1
        mask = even_odd(np.round(points * (size[1], size[0]), 4), size)
        assert not found[mask].any()
        found[mask] = int(number) + 1
    return found


def test_yolo_by_its_rules(labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path) -> None:
    import yaml

    out = export(labels, "yolo-seg", tmp_path / "yolo", photographs="link")
    data = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(VOCABULARY.names))
    photos = sorted(path for path in (out / data["train"]).rglob("*") if path.is_file())
    assert len(photos) == 6
    for photo in photos:
        label_file = Path(str(photo).replace("/images/", "/labels/")).with_suffix(".txt")
        name = photo.resolve().relative_to(labels.root.resolve()).as_posix()
        np.testing.assert_array_equal(read_yolo(label_file, maps[name].shape, 3), ids(maps[name]))


def test_polygons_tell_what_a_tolerance_loses(labels: LabelledDataset, tmp_path: Path) -> None:
    exact = export_labels(labels, format="yolo-seg", out=tmp_path / "exact", quiet=True).polygon_loss
    settings = ExportSettings(tolerance=2)
    coarse = export_labels(
        labels, format="yolo-seg", out=tmp_path / "coarse", settings=settings, quiet=True
    ).polygon_loss
    assert exact is not None
    assert coarse is not None
    assert (exact.mean_iou_loss, exact.worst_iou_loss) == (0, 0)
    assert coarse.corners < exact.corners
    assert 0 < coarse.mean_iou_loss < coarse.worst_iou_loss < 1
    assert exact.bridged_holes == coarse.bridged_holes > 0
    assert coarse.worst_image in NAMES


def read_tasks(out: Path) -> dict[str, dict]:
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    for task in tasks:
        assert task["data"]["image"] == "/data/local-files/?d=" + task["data"]["image"].partition("?d=")[2]
        assert unquote(task["data"]["image"].partition("?d=")[2]) == task["data"]["name"]
    return {task["data"]["name"]: task for task in tasks}


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_label_studio_by_its_description(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, shapes: str
) -> None:
    out = export(labels, "label-studio", tmp_path / "tasks", shapes=shapes)
    root = ElementTree.parse(out / "label_config.xml").getroot()
    tags = {tag.get("name"): tag for tag in root}
    tasks = read_tasks(out)
    assert list(tasks) == sorted(NAMES)
    for name, task in tasks.items():
        height, width = maps[name].shape
        found = np.zeros((height, width), dtype=int)
        regions = task["predictions"][0]["result"]
        assert len({region["id"] for region in regions}) == len(regions)
        for region in regions:
            kind = region["type"]
            tag = tags[region["from_name"]]
            assert tag.tag.lower() == kind
            assert tag.get("toName") == region["to_name"] == "image"
            assert (region["original_width"], region["original_height"]) == (width, height)
            (label,) = region["value"][kind]
            colours = {each.get("value"): each.get("background") for each in tag}
            assert colours[label] == CATEGORIES[VOCABULARY.index(label)].hexadecimal
            if shapes == "masks":
                assert region["value"]["format"] == "rle"
                mask = np.array(naive_decode(region["value"]["rle"])).reshape(height, width, 4)[..., 3] > 0
            else:
                points = np.array(region["value"]["points"]) * (width / 100, height / 100)
                mask = even_odd(np.round(points, 6), (height, width))
            assert not found[mask].any()
            found[mask] = VOCABULARY.index(label) + 1
        np.testing.assert_array_equal(found, ids(maps[name]))


@pytest.mark.parametrize("how", ["leave", "copy"])
def test_fiftyone_by_the_rules_of_its_importer(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, how: str
) -> None:
    out = export(labels, "fiftyone", tmp_path / "fiftyone", photographs=how)
    assert (out / "data").is_dir() != (out / "data.json").is_file()
    if how == "leave":  # a list of paths from the list's own folder, matched without suffix
        listed = json.loads((out / "data.json").read_text(encoding="utf-8"))
        photos = {str(Path(key).with_suffix("")): out / value for key, value in listed.items()}
    else:
        files = [path for path in (out / "data").rglob("*") if path.is_file()]
        photos = {str(path.relative_to(out / "data").with_suffix("")): path for path in files}
    masks = {
        str(path.relative_to(out / "labels").with_suffix("")): path
        for path in (out / "labels").rglob("*")
        if path.is_file()
    }
    assert set(photos) == set(masks) == set(STEMS)
    targets = json.loads((out / "mask_targets.json").read_text(encoding="utf-8"))
    assert targets == {str(each.id): each.name for each in CATEGORIES}
    for stem, name in zip(STEMS, NAMES, strict=True):
        assert photos[stem].read_bytes() == (labels.root / name).read_bytes()
        image = Image.open(masks[stem])
        assert image.mode == "L"  # an indexed picture would be read as a coloured one
        np.testing.assert_array_equal(np.array(image), ids(maps[name]))
    compile((out / "open_in_fiftyone.py").read_text(encoding="utf-8"), "open_in_fiftyone.py", "exec")


def test_cityscapes_by_pillow(labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = export(labels, "cityscapes", tmp_path / "city", photographs="copy")
    table = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["id"], row["trainId"], tuple(row["color"])) for row in table] == [
        (each.name, each.id, each.index, each.colour) for each in CATEGORIES
    ]
    for stem, name in zip(STEMS, NAMES, strict=True):
        image = Image.open(out / "gtFine/train" / f"{stem}_gtFine_labelTrainIds.png")
        assert image.mode == "L"
        np.testing.assert_array_equal(np.array(image), maps[name])
        assert (out / "leftImg8bit/train" / f"{stem}_leftImg8bit{Path(name).suffix}").is_file()


def test_hugging_face_by_datasets(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    out = export(labels, "hf", tmp_path / "hf")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    lines = [json.loads(line) for line in (out / "train/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["file_name"] for line in lines] == [f"images/{name}" for name in sorted(NAMES)]
    by_map = {maps[name].tobytes(): name for name in NAMES}
    seen = set()
    for row in rows:
        name = by_map[np.array(row["mask"]).tobytes()]
        seen.add(name)
        np.testing.assert_array_equal(np.array(row["mask"]), maps[name])
        np.testing.assert_array_equal(np.array(row["image"]), np.array(Image.open(labels.root / name)))
    assert seen == set(NAMES)
    id2label = json.loads((out / "id2label.json").read_text(encoding="utf-8"))
    assert id2label == {str(each.index): each.name for each in CATEGORIES}


def test_hugging_face_needs_photographs(labels: LabelledDataset, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="use photographs copy or link"):
        export_labels(
            labels, format="hf", out=tmp_path / "hf", settings=ExportSettings(photographs="leave"), quiet=True
        )


@pytest.mark.parametrize("limits", [{"shard_images": 4}, {"shard_megabytes": 0.006}])
def test_shards_by_webdataset(
    labels: LabelledDataset, maps: dict[str, np.ndarray], tmp_path: Path, limits: dict[str, float]
) -> None:
    import webdataset

    out = export(labels, "webdataset", tmp_path / "shards", split="val", **limits)
    again = export(labels, "webdataset", tmp_path / "again", split="val", **limits)
    shards = sorted(path.name for path in out.glob("*.tar"))
    assert shards == [f"val-{number:06}.tar" for number in range(len(shards))]
    assert len(shards) >= 2
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in shards)
    if "shard_megabytes" in limits:
        assert all((out / name).stat().st_size <= 20480 for name in shards)  # of tar's own blocks

    pattern = str(out / f"val-{{000000..{len(shards) - 1:06}}}.tar")
    read = {json.loads(each["json"])["name"]: each for each in webdataset.WebDataset(pattern, shardshuffle=False)}
    assert list(read) == sorted(NAMES)
    for name, sample in read.items():
        assert sample[Path(name).suffix[1:].lower()] == (labels.root / name).read_bytes()
        image = Image.open(io.BytesIO(sample["mask.png"]))
        np.testing.assert_array_equal(np.array(image), maps[name])
        told = json.loads(sample["json"])
        assert told["classes"] == list(labels[name].record.classes)
        assert [Segment.from_json(each) for each in told["segments"]] == list(labels[name].segments())
    assert read[NAMES[1]]["__key__"].count(".") == 0
    assert json.loads((out / "id2label.json").read_text()) == {str(each.index): each.name for each in CATEGORIES}

    found = choose_images(pattern)  # the same shards are photographs of a run
    assert len(found.images) == len(NAMES)
    assert found.skipped == {".json": len(NAMES), ".mask.png": len(NAMES)}


def test_keys_of_samples_have_no_dots_and_are_unique() -> None:
    names = ["a/x.v2.jpg", "a/x_v2.jpg", "a/x.jpg", "a/x.png", "b.c/y.jpg"]
    assert list(sample_keys(names).values()) == ["a/x_v2", "a/x_v2_2", "a/x_jpg", "a/x_png", "b.c/y"]


def test_shards_need_photographs(labels: LabelledDataset, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="use photographs copy"):
        export_labels(
            labels, format="webdataset", out=tmp_path, settings=ExportSettings(photographs="link"), quiet=True
        )
