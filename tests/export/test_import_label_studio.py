"""Label Studio's exports: photographs under the names of uploads, regions of all kinds, JSON-MIN."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import box, save_photo, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.config.exchange import ImportSettings
from patchword.data.components import NOTHING
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, SizeError
from patchword.export.brush import encode_brush
from patchword.export.importers import import_labels
from patchword.export.label_studio import _ellipse, read_label_studio
from patchword.export.rasterize import Photographs
from patchword.labeling.dataset import LabelledDataset

CATS = Vocabulary.of(["cat", "dog"])
SIZE = {"original_width": 80, "original_height": 60, "image_rotation": 0}
MASK = box(10, 10, 30, 30)
RLE = {"format": "rle", "rle": encode_brush(MASK)}
CORNERS = [[50, 50], [75, 50], [75, 100], [50, 100]]  # percent: x 40-60, y 30-60
IS_CAT = np.where(MASK, 0, 255)


def region(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": "tag", "to_name": "image", **SIZE, "value": value, **more}


def brush(*labels: str) -> dict[str, Any]:
    return region("brushlabels", {**RLE, "brushlabels": list(labels)})


def task(*regions: Any, **data: Any) -> dict[str, Any]:
    return {"id": 1, "data": data or {"image": "/data/upload/1/a.jpg"}, "annotations": [{"result": list(regions)}]}


def bring(folder: Path, *tasks: Any, names: tuple[str, ...] = ("a.jpg",), **settings: Any) -> LabelledDataset:
    for name in names:
        save_photo(folder / "photos" / name)
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    photos, out = folder / "photos", folder / "out"
    return import_labels(
        folder, format="label-studio", photos=photos, vocabulary=CATS, out=out, settings=settings, quiet=True
    )


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("photo_1.jpg", "/data/upload/3/1a2b3c4d-photo_1.jpg"),
        ("1a2b3c4d-photo_1.jpg", "/data/upload/3/1a2b3c4d-photo_1.jpg"),
        ("cat+dog.jpg", "/data/local-files/?d=photos/cat+dog.jpg"),
        ("cat+dog.jpg", "/data/local-files/?d=photos/cat%2Bdog.jpg"),
        ("cat dog.jpg", "/data/local-files/?d=photos/cat+dog.jpg"),
        ("a#1.jpg", "/data/local-files/?d=photos/a#1.jpg"),
        ("a#1.jpg", "/data/upload/1/a#1.jpg"),
        ("a?1.jpg", "/data/upload/1/a?1.jpg"),
        ("50%25.jpg", "/data/local-files/?d=photos/50%2525.jpg"),
        ("50%25.jpg", "/data/upload/1/50%25.jpg"),
        ("sub/a.jpg", "s3://bucket/set/sub/a.jpg"),
        ("a.jpg", "https://host.example/a.jpg?signature=x/b.jpg"),
        ("a.jpg", "http://[host/a.jpg"),
    ],
)
def test_a_photograph_is_found_by_what_its_address_may_mean(tmp_path: Path, name: str, image: str) -> None:
    back = bring(tmp_path, task(brush("cat"), image=image), names=(name, "b.jpg"))
    assert [item.record.name for item in back.items] == [name]


def test_a_name_that_fits_as_it_is_comes_before_that_of_an_upload(tmp_path: Path) -> None:
    names = ("photo.jpg", "1a2b3c4d-photo.jpg")
    back = bring(tmp_path, task(brush("cat"), image="/data/upload/3/1a2b3c4d-photo.jpg"), names=names)
    assert [item.record.name for item in back.items] == ["1a2b3c4d-photo.jpg"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("other.jpg",), "uploads to Label Studio are renamed"),
        (("x/photo.jpg", "y/photo.jpg"), r"may be 'x/photo\.jpg' or 'y/photo\.jpg'"),
    ],
)
def test_an_upload_that_none_or_two_fit_is_not_placed(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(PatchwordError, match=told):
        bring(tmp_path, task(brush("cat"), image="/data/upload/3/1a2b3c4d-photo.jpg"), names=names)


def test_tasks_that_cannot_be_used_fail_alone(tmp_path: Path) -> None:
    gone, odd = task(brush("cat"), image="gone.jpg"), {"data": {"image": "b.jpg"}, "annotations": [{}]}
    back = bring(
        tmp_path, gone, odd, 7, task(brush("cat")), task(brush("dog"), image="b.jpg"), names=("a.jpg", "b.jpg")
    )
    assert [item.record.name for item in back.items] == ["a.jpg", "b.jpg"]
    assert [record.name for record in back.failed] == ["gone.jpg", "task 2", "task 3"]


@pytest.mark.parametrize(
    ("bad", "trouble"),
    [
        (brush(), "object without a label"),
        (brush(" "), "object without a label"),
        (region("brushlabels", RLE), "object without a label"),
        (region("brush", RLE), "object without a label"),
        (brush("cat", "dog"), "object with several labels"),
        (region("rectanglelabels", {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["cat"]}),
         "object drawn as rectangle, which is not a mask"),
        (region("keypointlabels", {"x": 1, "y": 1, "width": 1, "keypointlabels": ["cat"]}),
         "object drawn as keypoint, which is not a mask"),
        (region("polygonlabels", {"points": [[1, 1], [9, 9]], "polygonlabels": ["cat"]}),
         "object whose outline has fewer than 3 points"),
        (region("polygonlabels", {"points": CORNERS, "closed": False, "polygonlabels": ["cat"]}),
         "object whose outline is not closed"),
        (region("polygonlabels", {"points": [[1, 1], [9, 9], [1, float("nan")]], "polygonlabels": ["cat"]}),
         "object whose outline is damaged"),
        (region("polygonlabels", {"polygonlabels": ["cat"]}), "object whose outline is damaged"),
        (region("polygonlabels", {"points": [[9e9, 1], [9, 9], [1, 1]], "polygonlabels": ["cat"]}),
         "object whose outline lies far outside the photograph"),
        (region("ellipselabels", {"x": 1, "y": 1, "radiusX": 0, "radiusY": 3, "ellipselabels": ["cat"]}),
         "object whose outline is damaged"),
        (region("brushlabels", {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["cat"]}),
         "object whose outline is damaged"),
        (region("brushlabels", {**RLE, "brushlabels": ["cat"]}, image_rotation=90),
         "object drawn on a picture that was turned in Label Studio"),
        ({"type": "brushlabels"}, "object without a label"),
    ],
)  # fmt: skip
def test_a_region_that_gives_no_mask_is_left_out_and_counted(tmp_path: Path, bad: Any, trouble: str) -> None:
    good = region("polygonlabels", {"points": CORNERS, "closed": True, "polygonlabels": ["dog"]})
    back = bring(tmp_path, task(bad, good))
    np.testing.assert_array_equal(truth(back)["a.jpg"], np.where(box(40, 30, 60, 60), 1, 255))
    assert back.counts.left_out == {trouble: 1}
    assert back.items[0].record.left_out == {trouble: 1}


def test_a_brush_and_its_labels_are_one_region_by_their_id(tmp_path: Path) -> None:
    parts = [region("brush", RLE, id="r"), region("labels", {**RLE, "labels": ["cat"]}, id="r")]
    remark = region("choices", {**RLE, "choices": ["dog"]}, id="r")
    back = bring(tmp_path, task(*parts, remark, {"type": "relation", "from_id": "r", "to_id": "r"}))
    np.testing.assert_array_equal(truth(back)["a.jpg"], IS_CAT)
    assert (back.counts.left_out, back.counts.segments) == ({}, 1)


def test_one_label_twice_is_one_label(tmp_path: Path) -> None:
    np.testing.assert_array_equal(truth(bring(tmp_path, task(brush("cat", "Cat"))))["a.jpg"], IS_CAT)


def test_later_regions_are_on_top_whatever_their_size(tmp_path: Path) -> None:
    whole = {"points": [[0, 0], [100, 0], [100, 100], [0, 100]], "polygonlabels": ["dog"]}
    back = bring(tmp_path, task(brush("cat"), region("polygonlabels", whole)))
    assert (truth(back)["a.jpg"] == 1).all()


def test_a_label_outside_the_class_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="task 1: 'cow'"):
        bring(tmp_path, task(brush("cow")))


def test_an_ellipse_of_known_pixels(tmp_path: Path) -> None:
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 50 / 3, "rotation": 0, "ellipselabels": ["cat"]}
    found = truth(bring(tmp_path, task(region("ellipselabels", value))))["a.jpg"] == 0
    assert np.flatnonzero(found[30]).tolist() == list(range(20, 60))  # 20 pixels to either side of x = 40
    assert np.flatnonzero(found[:, 40]).tolist() == list(range(20, 40))  # 10 above and below y = 30
    turned = {**value, "rotation": 90}
    found = truth(bring(tmp_path / "turned", task(region("ellipselabels", turned))))["a.jpg"] == 0
    assert np.flatnonzero(found[30]).tolist() == list(range(30, 50))
    assert np.flatnonzero(found[:, 40]).tolist() == list(range(10, 50))


@given(
    x=st.floats(0, 100), y=st.floats(0, 100), first=st.floats(5, 60), second=st.floats(5, 60), angle=st.floats(0, 360)
)
def test_the_two_ends_of_an_ellipse_are_where_its_rotation_turns_them(
    x: float, y: float, first: float, second: float, angle: float
) -> None:
    """A pixel is inside when its way back, turned against the clock, ends within the ellipse along the axes."""
    height, width = 20, 30
    found = _ellipse({"x": x, "y": y, "radiusX": first, "radiusY": second, "rotation": angle}, (height, width))
    clockwise = np.exp(1j * np.deg2rad(angle))  # y points down
    for row in range(0, height, 3):
        for column in range(0, width, 3):
            way = complex(column + 0.5 - x * width / 100, row + 0.5 - y * height / 100) / clockwise
            distance = (way.real / (first * width / 100)) ** 2 + (way.imag / (second * height / 100)) ** 2
            assert abs(distance - 1) < 1e-9 or found[row, column] == (distance < 1)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("cat")),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("points", "rle", "x", "y", "radiusX", "radiusY", "rotation", "brushlabels", "polygonlabels", "ellipselabels")
odd_regions = st.fixed_dictionaries(
    {"type": st.sampled_from(["brushlabels", "polygonlabels", "ellipselabels", "labels", "brush"]) | json_values},
    optional={
        "id": json_values,
        "value": st.dictionaries(st.sampled_from(FIELDS), st.just(["cat"]) | json_values) | json_values,
        "original_width": json_values,
        "original_height": json_values,
        "image_rotation": json_values,
    },
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for name in ("a.jpg", "b.jpg"):
        save_photo(folder / "photos" / name)
    return folder


@given(result=st.lists(odd_regions | json_values, max_size=4), flat=st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_stands_in_a_task_the_others_are_read(two: Path, result: list[Any], flat: bool) -> None:
    odd = {"image": "a.jpg", "annotation_id": 1, "tag": result} if flat else task(*result, image="a.jpg")
    (two / "tasks.json").write_text(json.dumps([odd, task(brush("cat"), image="b.jpg")]), encoding="utf-8")
    photographs, told = Photographs(two / "photos"), ""
    try:
        found = read_label_studio(two, photographs=photographs, vocabulary=CATS, settings=ImportSettings())
    except PatchwordError as error:
        told = str(error)
    if told:
        assert re.search("task 1: .* is not in the class list", told)
        return
    assert len(found.corrections) + len(found.failed) == 2
    for correction in found.corrections:
        with suppress(SizeError):
            painted = correction.load((60, 80))
            assert correction.name == "a.jpg" or (painted.indices == np.where(MASK, 0, NOTHING)).all()


def test_json_min_is_read(tmp_path: Path) -> None:
    size = {"original_width": 80, "original_height": 60}
    old = {"id": 1, "image": "/data/upload/1/a.jpg", "annotation_id": 5, "updated_at": "2024-01-01T00:00:00Z",
           "tag": [{**RLE, **size, "brushlabels": ["dog"]}]}  # fmt: skip
    new = {**old, "annotation_id": 6, "updated_at": "2024-01-01T00:00:00.5Z",
           "tag": [{**RLE, **size, "brushlabels": ["cat"]}, {"points": CORNERS, "closed": True, **size}],
           "mood": {"choices": ["good"]}}  # fmt: skip
    back = bring(tmp_path, new, old, {"id": 2, "image": "b.jpg"}, names=("a.jpg", "b.jpg"))
    np.testing.assert_array_equal(truth(back)["a.jpg"], IS_CAT)
    assert list(truth(back)) == ["a.jpg"]
    assert back.counts.left_out == {"object without a label": 1}


def test_the_field_of_the_photograph_is_found_or_named(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")
    by_value = bring(tmp_path / "value", task(brush("cat"), photo="/data/upload/1/a.jpg", author="Eve"), names=names)
    assert list(truth(by_value)) == ["a.jpg"]
    not_a_name = bring(tmp_path / "name", task(brush("cat"), name="Eve", image="a.jpg"), names=names)
    assert list(truth(not_a_name)) == ["a.jpg"]
    two = task(brush("cat"), before="a.jpg", after="b.jpg")
    with pytest.raises(
        PatchwordError, match=r"fields before, after name one each; name the field by --set image_field="
    ):
        bring(tmp_path / "two", two, names=names)
    named = bring(tmp_path / "named", two, names=names, image_field="after")
    assert list(truth(named)) == ["b.jpg"]
    with pytest.raises(PatchwordError, match="task 1 has no field 'picture'; it has before, after"):
        bring(tmp_path / "absent", two, names=names, image_field="picture")
    with pytest.raises(PatchwordError, match="no field of it names one"):
        bring(tmp_path / "none", task(brush("cat"), text="hello"), names=names)
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PatchwordError, match="setting 'image_field' is for the format label-studio, not for coco"):
        import_labels(
            tmp_path / "x.json",
            format="coco",
            photos=tmp_path / "two" / "photos",
            vocabulary=CATS,
            out=tmp_path / "out",
            settings={"image_field": "x"},
        )


def test_a_photograph_that_is_not_there_is_not_looked_for_in_other_fields(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"photograph 'gone\.jpg' is not in"):
        bring(tmp_path, task(brush("cat"), image="gone.jpg", reference="a.jpg"))
