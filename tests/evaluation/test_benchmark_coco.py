import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import every_value, make_split, save_mask, save_photo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.lists import class_list
from patchword.evaluation.benchmarks.record import BENCHMARKS

NAME = "000000000139"
# The ids of COCO's 80 annotated categories, as its instance annotations have them.
COCO_IDS = [
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83), *range(84, 91),
]  # fmt: skip
STUFF_IDS = list(range(92, 183))


def test_coco_has_the_categories_that_it_has():
    assert len(COCO_IDS) == 80
    assert len(STUFF_IDS) == 91


def make_stuff(root: Path, *, maps: str = "stuffthingmaps_trainval2017/val2017", photos: str = "val2017") -> Path:
    """The official archives: the pixel maps hold category ids less one, 255 where nothing is labelled."""
    values = [[*(each - 1 for each in COCO_IDS), *(each - 1 for each in STUFF_IDS), 255]]
    make_split(root / photos, root / maps, {NAME: values})
    return root


def read(name: str, data: Path) -> list[int]:
    opened = BENCHMARKS[name].open(data)
    assert [pair.name for pair in opened.pairs] == [f"{NAME}.jpg"]
    return opened.truth.read_truth(opened.pairs[0])[0].tolist()


@pytest.mark.parametrize(
    "maps", ["stuffthingmaps_trainval2017/val2017", "annotations/val2017", "stuffthingmaps/val2017"]
)
@pytest.mark.parametrize("photos", ["val2017", "images/val2017"])
def test_pixel_maps_hold_the_171_classes_in_order(tmp_path: Path, maps: str, photos: str):
    assert read("coco-stuff", make_stuff(tmp_path, maps=maps, photos=photos)) == [*range(171), -1]


def test_converted_masks_hold_positions(tmp_path: Path):
    make_split(
        tmp_path / "images/val2017",
        tmp_path / "annotations/val2017",
        {NAME: every_value(0, 170)},
        suffix="_labelTrainIds.png",
    )
    assert read("coco-stuff", tmp_path) == [*range(171), -1]
    assert read("coco-object", tmp_path) == [*range(1, 81), *[0] * 91, 0]


@pytest.mark.parametrize("folder", ["stuffthingmaps_detectron2", "annotations_detectron2"])
def test_contiguous_maps_hold_positions(tmp_path: Path, folder: str):
    make_split(tmp_path / "coco/val2017", tmp_path / "coco" / folder / "val2017", {NAME: every_value(0, 170)})
    assert read("coco-stuff", tmp_path) == [*range(171), -1]


def test_converted_masks_come_before_pixel_maps(tmp_path: Path):
    make_stuff(tmp_path, maps="annotations/val2017", photos="images/val2017")
    save_mask(tmp_path / "annotations/val2017" / f"{NAME}_labelTrainIds.png", np.full((1, 172), 7))
    assert read("coco-stuff", tmp_path) == [7] * 172


@pytest.mark.parametrize("value", [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182])
def test_values_of_categories_that_nobody_annotated_are_refused(tmp_path: Path, value: int):
    make_split(tmp_path / "val2017", tmp_path / "stuffthingmaps_trainval2017/val2017", {NAME: [[0, value]]})
    with pytest.raises(PatchwordError, match=rf"has the value {value} \(1 pixel\); values must be 0 to 10, 12 to 24"):
        read("coco-stuff", tmp_path)


def test_objects_from_pixel_maps(tmp_path: Path):
    assert read("coco-object", make_stuff(tmp_path)) == [*range(1, 81), *[0] * 91, 0]


def test_unlabelled_pixels_are_background_as_in_the_converter_that_published_numbers_come_from(tmp_path: Path):
    """GroupViT's converter: every number one higher, in 8 bits, then stuff to 0; 255 becomes 0 by either."""
    make_stuff(tmp_path)
    values = np.array([each - 1 for each in COCO_IDS] + [each - 1 for each in STUFF_IDS] + [255])
    converted = [COCO_IDS.index(value + 1) + 1 if value <= 90 else 0 for value in values.tolist()]
    assert read("coco-object", tmp_path) == converted
    opened = BENCHMARKS["coco-object"].open(tmp_path)
    assert opened.truth.rule.endswith("unlabelled pixels are background")
    assert read("coco-stuff", tmp_path)[-1] == -1


def test_unlabelled_pixels_can_be_ignored(tmp_path: Path):
    opened = BENCHMARKS["coco-object"].open(make_stuff(tmp_path)).with_unlabelled("ignored")
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [*range(1, 81), *[0] * 91, -1]
    assert opened.truth.rule.endswith("unlabelled pixels do not count")


def test_masks_that_made_background_of_unlabelled_pixels_cannot_ignore_them(tmp_path: Path):
    make_split(
        tmp_path / "images/val2017",
        tmp_path / "annotations/val2017",
        {NAME: every_value(0, 80)},
        suffix="_instanceTrainIds.png",
    )
    with pytest.raises(PatchwordError, match=r"unlabelled is 'ignored', but the masks in .* have made background"):
        BENCHMARKS["coco-object"].open(tmp_path).with_unlabelled("ignored")


@pytest.mark.parametrize(("name", "rule"), [("voc21", "ignored"), ("coco-stuff", "background")])
def test_a_rule_for_unlabelled_pixels_that_cannot_be_chosen_is_refused(name: str, rule: str):
    with pytest.raises(PatchwordError, match="unlabelled is"):
        BENCHMARKS[name].check_unlabelled(rule)


def test_objects_from_converted_masks(tmp_path: Path):
    make_split(
        tmp_path / "images/val2017",
        tmp_path / "annotations/val2017",
        {NAME: every_value(0, 80)},
        suffix="_instanceTrainIds.png",
    )
    assert read("coco-object", tmp_path) == [*range(81), -1]


def test_the_archives_unpacked_into_one_folder_are_told_apart(tmp_path: Path):
    """Photographs and pixel maps of one name in one folder: endings tell which is which."""
    assert read("coco-stuff", make_stuff(tmp_path, maps="val2017")) == [*range(171), -1]


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(category: int, segmentation: Any, area: float, *, iscrowd: int = 0, image: int = 139) -> dict[str, Any]:
    return {
        "image_id": image, "category_id": category, "segmentation": segmentation, "area": area, "iscrowd": iscrowd,
    }  # fmt: skip


def make_instances(root: Path, annotations: list[dict[str, Any]], *, size: tuple[int, int] = (8, 10)) -> Path:
    save_photo(root / "val2017" / f"{NAME}.jpg", size)
    names = class_list("coco_object").names
    record = {
        "images": [{"id": 139, "file_name": f"{NAME}.jpg", "height": size[0], "width": size[1]}],
        "annotations": annotations,
        "categories": [{"id": each, "name": name} for each, name in zip(COCO_IDS, names, strict=True)][::-1],
    }
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return root


def painted(data: Path) -> np.ndarray:
    opened = BENCHMARKS["coco-object"].open(data)
    return opened.truth.read_truth(opened.pairs[0])


def test_of_overlapping_objects_the_smaller_is_on_top_in_any_order(tmp_path: Path):
    large, small = annotation(1, box(0, 0, 10, 8), 80), annotation(90, box(2, 2, 5, 5), 9)
    expected = np.ones((8, 10), dtype=int)
    expected[2:5, 2:5] = 80
    for order, name in ((0, "first"), (1, "second")):
        data = make_instances(tmp_path / name, [large, small] if order else [small, large])
        assert (painted(data) == expected).all()


def test_crowds_lie_below_all_single_objects(tmp_path: Path):
    crowd = np.zeros((8, 10), dtype=np.uint8)
    crowd[:4, :4] = 1
    runs = coco_mask.encode(np.asfortranarray(crowd))
    compressed = {"size": runs["size"], "counts": runs["counts"].decode()}
    uncompressed = {"size": [8, 10], "counts": runs_of(crowd)}
    for kind, segmentation in (("compressed", compressed), ("uncompressed", uncompressed)):
        data = make_instances(
            tmp_path / kind,
            [annotation(1, box(0, 0, 10, 8), 80), annotation(13, segmentation, 16, iscrowd=1)],
        )
        assert (painted(data) == 1).all(), "the crowd is smaller, and below all the same"
        alone = make_instances(tmp_path / f"{kind}-alone", [annotation(13, segmentation, 16, iscrowd=1)])
        assert (painted(alone) == np.where(crowd, 12, 0)).all(), "id 13 is the twelfth class: 12 was never annotated"


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, beginning with zeros."""
    runs, last = [0], 0
    for value in mask.T.ravel().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def test_every_category_id_is_painted_as_its_class(tmp_path: Path):
    bands = [annotation(each, box(k, 0, k + 1, 2), 2) for k, each in enumerate(COCO_IDS)]
    truth = painted(make_instances(tmp_path, bands, size=(2, 80)))
    assert truth.tolist() == [[*range(1, 81)]] * 2


def test_a_photograph_without_objects_is_background(tmp_path: Path):
    assert (painted(make_instances(tmp_path, [])) == 0).all()


def test_an_object_of_several_polygons_is_all_of_them(tmp_path: Path):
    data = make_instances(tmp_path, [annotation(2, box(0, 0, 2, 8) + box(8, 0, 10, 8), 32)])
    assert painted(data)[0].tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 2, 2]


def test_pixel_maps_come_before_instances(tmp_path: Path):
    make_stuff(make_instances(tmp_path, []))
    assert BENCHMARKS["coco-object"].open(tmp_path).layout == "stuffthingmaps_trainval2017"


def test_photographs_that_the_annotations_do_not_know_are_refused(tmp_path: Path):
    data = make_instances(tmp_path, [])
    save_photo(data / "val2017" / "000000999999.jpg", (2, 2))
    with pytest.raises(PatchwordError, match=r"does not know 1 of 2 photographs, such as 000000999999.jpg"):
        BENCHMARKS["coco-object"].open(data)


def test_two_photographs_of_one_name_are_refused(tmp_path: Path):
    data = make_instances(tmp_path, [])
    save_photo(data / "val2017" / "copy" / f"{NAME}.jpg", (8, 10))
    with pytest.raises(PatchwordError, match=rf"{NAME}\.jpg and copy/{NAME}\.jpg have one name"):
        BENCHMARKS["coco-object"].open(data)


def test_other_categories_than_cocos_are_refused(tmp_path: Path):
    data = make_instances(tmp_path, [])
    path = data / "annotations" / "instances_val2017.json"
    record = json.loads(path.read_text())
    record["categories"][0]["name"] = "toothpick"
    path.write_text(json.dumps(record))
    with pytest.raises(PatchwordError, match=r"80 categories; they must be COCO's 80 \('toothbrush'"):
        BENCHMARKS["coco-object"].open(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": []}', "'categories'"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_refused(tmp_path: Path, text: str, said: str):
    data = make_instances(tmp_path, [])
    (data / "annotations" / "instances_val2017.json").write_text(text)
    with pytest.raises(PatchwordError, match=said):
        BENCHMARKS["coco-object"].open(data)


def test_a_damaged_annotation_is_refused_by_name(tmp_path: Path):
    with pytest.raises(PatchwordError, match=f"the annotation of {NAME}.jpg is damaged"):
        painted(make_instances(tmp_path, [annotation(12, box(0, 0, 1, 1), 1)]))


@pytest.mark.parametrize(
    "segmentation",
    [[], None, [[1, 1, 3, 3]], [[1.0, 1.0]], [1, 1, 3, 1, 3, 3], [[1, 1, 3, 1, float("nan"), 3]], {"size": [8, 10]},
     {"size": [8, 10], "counts": "oo"}, {"size": [8, 10], "counts": [3, 4]}, {"size": [10, 8], "counts": [80]}],
)  # fmt: skip
def test_an_object_without_an_outline_is_refused_and_never_background(tmp_path: Path, segmentation: Any):
    data = make_instances(tmp_path, [annotation(1, segmentation, 4), annotation(2, box(0, 0, 2, 2), 4)])
    with pytest.raises(PatchwordError, match=f"the annotation of {NAME}.jpg is damaged: ") as caught:
        painted(data)
    assert "\n" not in str(caught.value)


def test_a_part_that_encloses_nothing_takes_nothing_from_its_object(tmp_path: Path):
    data = make_instances(tmp_path, [annotation(2, [*box(0, 0, 2, 8), [5.0, 5.0]], 16)])
    assert painted(data)[0].tolist() == [2, 2, *[0] * 8]


def test_an_area_that_is_no_number_is_refused(tmp_path: Path):
    with pytest.raises(PatchwordError, match="area nan is not a number of pixels"):
        painted(make_instances(tmp_path, [annotation(1, box(0, 0, 2, 2), float("nan"))]))


@pytest.mark.parametrize(
    ("what", "changed", "said"),
    [
        ("images", {"id": 139, "file_name": "other.jpg"}, "image id '139' twice"),
        ("images", {"id": 140, "file_name": f"{NAME}.jpg"}, f"file_name '{NAME}.jpg' twice"),
        ("categories", {"id": 500, "name": "person"}, "category 'person' twice"),
        ("categories", {"id": 1, "name": "toothpick"}, "category id '1' twice"),
    ],
)
def test_one_id_or_name_for_two_is_refused(tmp_path: Path, what: str, changed: dict[str, Any], said: str):
    data = make_instances(tmp_path, [])
    path = data / "annotations" / "instances_val2017.json"
    record = json.loads(path.read_text())
    record[what].append({"height": 8, "width": 10, **changed})
    path.write_text(json.dumps(record))
    with pytest.raises(PatchwordError, match=said):
        BENCHMARKS["coco-object"].open(data)


def test_what_is_missing_is_said_for_every_layout(tmp_path: Path):
    save_photo(tmp_path / "coco" / "images" / "val2017" / f"{NAME}.jpg", (2, 2))
    with pytest.raises(PatchwordError) as caught:
        BENCHMARKS["coco-object"].open(tmp_path)
    message = str(caught.value)
    for expected in ("_instanceTrainIds.png", "stuffthingmaps_trainval2017/val2017", "instances_val2017.json"):
        assert expected in message


@st.composite
def drawn_boxes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Boxes with whole corners in 10 x 8 pixels, of any class, some of them crowds, no two of one area."""
    found: dict[int, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, 6))):
        left, top = draw(st.integers(0, 8)), draw(st.integers(0, 6))
        right, bottom = draw(st.integers(left + 1, 10)), draw(st.integers(top + 1, 8))
        area = (right - left) * (bottom - top)
        category = draw(st.sampled_from(COCO_IDS))
        found[area] = annotation(category, box(left, top, right, bottom), area, iscrowd=draw(st.integers(0, 1)))
    return list(found.values())


@given(objects=drawn_boxes())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_painting_is_the_rule_pixel_by_pixel(objects: list[dict[str, Any]], tmp_path: Path):
    """At every pixel: the smallest single object there, else the smallest crowd, else background."""
    truth = painted(make_instances(tmp_path, objects))
    for y in range(8):
        for x in range(10):
            here = [each for each in objects if covers(each, x, y)]
            single = [each for each in here if not each["iscrowd"]]
            top = min(single or here, key=lambda each: each["area"], default=None)
            assert truth[y, x] == (0 if top is None else COCO_IDS.index(top["category_id"]) + 1)


def covers(each: dict[str, Any], x: int, y: int) -> bool:
    corners = each["segmentation"][0]
    return min(corners[0::2]) <= x < max(corners[0::2]) and min(corners[1::2]) <= y < max(corners[1::2])
