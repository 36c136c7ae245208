"""COCO files as other tools write them: nothing is placed by guess, and nothing is dropped without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import box, save_photo, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from patchword.config.exchange import ExportSettings
from patchword.data.coco_masks import decode_segmentation
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, SizeError, UnusableError
from patchword.export.importers import import_labels
from patchword.export.run import export_labels
from patchword.labeling.dataset import LabelledDataset

CATS = Vocabulary.of(["cat", "dog"])
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
NO_OUTLINE, TOO_FEW = "object without an outline", "object whose outline has fewer than 3 points"
DAMAGED, OUTSIDE = "object whose outline is damaged", "object whose outline lies far outside the photograph"
NOT_FILLED = "object whose run lengths do not fill the photograph"


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def drawn(segmentation: Any, *, category: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


GOOD = drawn(square(40, 30, 60, 50), category=2)
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}


def bring(
    folder: Path,
    annotations: list[Any],
    *,
    images: list[dict[str, Any]] | None = None,
    categories: list[dict[str, Any]] = CATEGORIES,
) -> LabelledDataset:
    if not (folder / "photos").exists():
        save_photo(folder / "photos" / "a.jpg")
    record = {"images": images or [IMAGE], "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(record), encoding="utf-8")
    return import_labels(
        folder / "labels.json", format="coco", photos=folder / "photos", vocabulary=CATS, out=folder / "out", quiet=True
    )


def reasons(labels: LabelledDataset) -> dict[str, str | None]:
    return {record.name: record.reason for record in labels.failed}


@pytest.mark.parametrize(
    ("segmentation", "trouble"),
    [
        ([], NO_OUTLINE),
        (None, NO_OUTLINE),
        ({}, NO_OUTLINE),
        ([[]], NO_OUTLINE),
        ([[10, 10, 20, 20]], TOO_FEW),
        ([[40.0, 30.0]], TOO_FEW),
        (square(10, 10, 20, 20)[0], "object whose outline is a flat list of numbers instead of a list of polygons"),
        ([[1, 1, 5, 1, 5, 5, 1]], DAMAGED),
        ([[1, 1, 5, 1, 5, float("nan")]], DAMAGED),
        ([[1, 1, 5, 1, 5, 10**400]], DAMAGED),
        ([[1, 1, 5, 1, 5, None]], DAMAGED),
        ([["a", 1, 5, 1, 5, 5]], DAMAGED),
        ("text", DAMAGED),
        (7, DAMAGED),
        (square(1000, 10, 1010, 20), OUTSIDE),
        (square(1e300, 10, 1e301, 20), OUTSIDE),
        (square(90, 10, 95, 20), "object that covers no pixel of the photograph"),
        ({"size": [60, 80]}, DAMAGED),
        ({"size": [60, 80], "counts": [4800.5]}, DAMAGED),
        ({"size": [60, 80], "counts": "\u00e9"}, DAMAGED),
        ({"size": [60, 80], "counts": "o" * 500}, DAMAGED),
        ({"size": [60, 80], "counts": "oo"}, DAMAGED),
        ({"size": [60, 80], "counts": [10, 20]}, NOT_FILLED),
        ({"size": [60, 80], "counts": [4900, -100]}, NOT_FILLED),
        ({"size": [60, 80], "counts": [10**30]}, NOT_FILLED),
        ({"size": [60, 80], "counts": ""}, NOT_FILLED),
    ],
)
def test_an_object_that_gives_no_mask_is_left_out_and_counted(tmp_path: Path, segmentation: Any, trouble: str) -> None:
    back = bring(tmp_path, [drawn(segmentation), GOOD])
    np.testing.assert_array_equal(truth(back)["a.jpg"], np.where(box(40, 30, 60, 50), 1, 255))
    assert back.counts.left_out == {trouble: 1}
    assert back.items[0].record.left_out == {trouble: 1}
    assert f"left out: 1 x {trouble}" in (back.folder / "README.md").read_text(encoding="utf-8")


def test_an_object_without_the_field_is_left_out(tmp_path: Path) -> None:
    back = bring(tmp_path, [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}, GOOD])
    assert back.counts.left_out == {NO_OUTLINE: 1}


def test_a_part_of_one_point_leaves_the_rest_of_its_object(tmp_path: Path) -> None:
    back = bring(tmp_path, [drawn([*square(10, 10, 30, 30), [40.0, 30.0]])])
    np.testing.assert_array_equal(truth(back)["a.jpg"], np.where(box(10, 10, 30, 30), 0, 255))
    assert back.counts.left_out == {"part of an object that has fewer than 3 points": 1}


def test_a_photograph_whose_only_objects_are_left_out_fails(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg")
    save_photo(tmp_path / "photos" / "b.jpg")
    back = bring(
        tmp_path, [drawn([]), drawn(square(1, 1, 5, 5), image=2)], images=[IMAGE, {"id": 2, "file_name": "b.jpg"}]
    )
    assert reasons(back) == {"a.jpg": f"none of its objects can be used: 1 x {NO_OUTLINE}"}
    assert back.counts.left_out == {NO_OUTLINE: 1}
    with pytest.raises(PatchwordError, match=r"no labels of .* can be used; the first reason: none of its objects"):
        bring(tmp_path / "alone", [drawn([])])


def test_polygons_of_another_size_than_the_photograph_fail(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg")
    save_photo(tmp_path / "photos" / "turned.jpg", orientation=6)  # stored 80 x 60, upright 60 x 80
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 160, "height": 120},
        {"id": 2, "file_name": "turned.jpg", "width": 80, "height": 60},
    ]
    save_photo(tmp_path / "photos" / "good.jpg")
    objects = [drawn(square(40, 20, 60, 40)), drawn(square(5, 1, 7, 3), image=2), drawn(square(5, 1, 7, 3), image=3)]
    back = bring(tmp_path, objects, images=[*images, {"id": 3, "file_name": "good.jpg"}])
    assert list(truth(back)) == ["good.jpg"]
    told = reasons(back)
    assert "labels are of 160 x 120 pixels, the photograph is 80 x 60" in (told["a.jpg"] or "")
    assert "EXIF" not in (told["a.jpg"] or "")
    assert (
        "labels are of 80 x 60 pixels, the photograph is 60 x 80; its pixels are stored as 80 x 60, and its EXIF"
        in (told["turned.jpg"] or "")
    )


def test_without_a_size_polygons_must_fit(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg"}
    np.testing.assert_array_equal(
        truth(bring(tmp_path / "fits", [drawn(square(60, 40, 80.5, 60.5))], images=[image]))["a.jpg"],
        np.where(box(60, 40, 80, 60), 0, 255),
    )
    with pytest.raises(
        PatchwordError, match="reaches to x 100 and y 50, the photograph is 80 x 60 pixels, and the file"
    ):
        bring(tmp_path / "outside", [drawn(square(90, 40, 100, 50))], images=[image])


def test_run_lengths_of_another_size_fail(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="labels are of 60 x 80 pixels, the photograph is 80 x 60"):
        bring(tmp_path, [drawn({"size": [80, 60], "counts": [4000, 800]})])


def test_one_id_for_two_is_refused_with_both_names(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg")
    save_photo(tmp_path / "photos" / "c.jpg")
    with pytest.raises(PatchwordError, match=r"id 1 of images is both 'a\.jpg' and 'c\.jpg'"):
        bring(tmp_path, [GOOD], images=[IMAGE, {"id": "1", "file_name": "c.jpg"}])
    with pytest.raises(PatchwordError, match="id 1 of categories is both 'cat' and 'dog'"):
        bring(tmp_path, [GOOD], categories=[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", ["street_0001", "7", 10**30, 0, -1])
def test_any_text_or_number_is_an_id(tmp_path: Path, number: Any) -> None:
    names = [{"id": str(number), "name": "dog"}]
    objects = [drawn(square(1, 1, 5, 5), image=str(number), category=number)]
    back = bring(tmp_path, objects, images=[{**IMAGE, "id": number}], categories=names)
    np.testing.assert_array_equal(truth(back)["a.jpg"], np.where(box(1, 1, 5, 5), 1, 255))
    assert back.counts.left_out == {}


def test_objects_of_nothing_are_counted(tmp_path: Path) -> None:
    back = bring(tmp_path, [GOOD, drawn([], image=77), drawn([], image=None), drawn([], category=9), "text", None])
    assert back.counts.left_out == {
        "object of a photograph that the file does not list": 2,
        "object of a category that the file does not list": 1,
        "object that is no record": 2,
    }
    assert back.counts.ok == 1


def test_a_file_none_of_whose_objects_belongs_anywhere_is_refused(tmp_path: Path) -> None:
    """Such as COCO's panoptic annotations, which have segments instead of a category."""
    with pytest.raises(PatchwordError, match="the first reason: 1 x object of a category that the file does not list"):
        bring(tmp_path, [{"image_id": 1, "segments_info": [], "file_name": "a.png"}])


def test_names_that_differ_in_their_accents_alone_are_told_apart(tmp_path: Path) -> None:
    composed, apart = "\u00e9.png", "e\u0301.png"
    for name in (composed, apart):
        save_photo(tmp_path / "photos" / name)
    if len(list((tmp_path / "photos").iterdir())) < 2:
        pytest.skip("the file system takes them for one")
    images = [{"id": 1, "file_name": apart}, {"id": 2, "file_name": composed}]
    back = bring(tmp_path, [drawn(square(1, 1, 5, 5)), GOOD | {"image_id": 2}], images=images)
    assert {name: sorted(set(np.unique(found)) - {255}) for name, found in truth(back).items()} == {
        apart: [0],
        composed: [1],
    }


def test_a_photograph_that_is_not_there_or_is_there_twice_fails_alone(tmp_path: Path) -> None:
    for name in ("a.jpg", "x/b.jpg", "y/b.jpg", "twice.jpg"):
        save_photo(tmp_path / "photos" / name)
    names = ["a.jpg", "gone.jpg", "b.jpg", "twice.jpg", "twice.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)]
    back = bring(tmp_path, [drawn(square(1, 1, 5, 5), image=number) for number in range(1, 6)], images=images)
    assert [item.record.name for item in back.items] == ["a.jpg"]
    told = reasons(back)
    assert list(told) == ["b.jpg", "gone.jpg", "twice.jpg"]
    assert "may be 'x/b.jpg' or 'y/b.jpg'" in (told["b.jpg"] or "")
    assert "is not in" in (told["gone.jpg"] or "")
    assert "has 2 entries for photograph 'twice.jpg'" in (told["twice.jpg"] or "")


def test_uploads_and_paths_of_windows_are_found(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "photo_1.jpg")
    name = "..\\..\\label-studio\\media\\upload\\4\\1a2b3c4d-photo_1.jpg"
    back = bring(tmp_path, [GOOD], images=[{**IMAGE, "file_name": name}])
    assert list(truth(back)) == ["photo_1.jpg"]
    with pytest.raises(PatchwordError, match="uploads to Label Studio are renamed"):
        bring(tmp_path / "other", [GOOD], images=[{**IMAGE, "file_name": name}])


def test_a_byte_order_mark_and_unknown_keys_do_no_harm(tmp_path: Path) -> None:
    bring(tmp_path, [{**GOOD, "rotation": 3, "attributes": {"occluded": False}}])
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    arguments: Any = {"format": "coco", "photos": tmp_path / "photos", "vocabulary": CATS, "quiet": True}
    assert import_labels(path, out=tmp_path / "again", **arguments).counts.ok == 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"images": 3}', '{"images": [[]], "annotations": [], "categories": []}']
)
def test_other_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    save_photo(tmp_path / "a.jpg")
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(PatchwordError, match=r"x\.json is not") as caught:
        import_labels(tmp_path / "x.json", format="coco", photos=tmp_path, vocabulary=CATS, out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def compressed(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}


numbers = st.one_of(st.integers(-5, 90), st.floats(), st.integers())
leaves = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=8), st.text("0123456789:;<=>?@PQRSTUo", max_size=20)
)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner)
)
likely = st.one_of(
    json_values,
    st.lists(st.lists(numbers, max_size=10), max_size=3),
    st.fixed_dictionaries({"size": st.just([6, 8]) | json_values, "counts": st.lists(numbers) | json_values}),
)


@given(segmentation=likely)
@settings(max_examples=60, deadline=None)
def test_whatever_stands_there_is_a_mask_or_a_known_trouble(segmentation: Any) -> None:
    try:
        mask, parts = decode_segmentation(segmentation, size=(6, 8))
    except (UnusableError, SizeError):
        return
    assert (mask.shape, mask.dtype) == ((6, 8), bool)
    assert parts >= 0


boxes = st.tuples(
    st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2]), st.booleans()
)


@given(objects=st.lists(boxes, max_size=5))
@settings(max_examples=25, deadline=None)
def test_at_every_pixel_the_smallest_single_object_is_on_top(
    tmp_path_factory: pytest.TempPathFactory, objects: list[tuple[int, int, int, int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("boxes")
    save_photo(folder / "photos" / "a.png", width=10, height=10)
    masks = [box(x, y, x + width, y + height, size=(10, 10)) for x, y, width, height, _, _ in objects]
    annotations = [
        drawn(compressed(mask), category=category, iscrowd=int(crowd))
        for mask, (*_, category, crowd) in zip(masks, objects, strict=True)
    ]
    back = bring(folder, annotations, images=[{"id": 1, "file_name": "a.png", "width": 10, "height": 10}])
    found = truth(back)["a.png"]
    for y in range(10):
        for x in range(10):
            here = [each for each, mask in zip(objects, masks, strict=True) if mask[y, x]]
            single = [each for each in here if not each[5]]
            least = min((each[2] * each[3] for each in single or here), default=None)
            last = [each for each in single or here if each[2] * each[3] == least]
            assert found[y, x] == (last[-1][4] - 1 if last else 255)


@given(
    indices=arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 255])),
    form=st.sampled_from(["coco", "voc", "label-studio"]),
)
@settings(max_examples=30, deadline=None)
def test_any_label_map_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, indices: np.ndarray, form: str
) -> None:
    from export_data import make_labels

    folder = tmp_path_factory.mktemp("map")
    labels = make_labels(folder, {"x.png": (indices, [])}, vocabulary=CATS)
    out = folder / ("labels.json" if form == "coco" else "exported")
    export_labels(labels, format=form, out=out, settings=ExportSettings(least_share=0, least_pixels=0), quiet=True)
    back = import_labels(out, format=form, photos=labels.root, vocabulary=CATS, out=folder / "back", quiet=True)
    np.testing.assert_array_equal(truth(back)["x.png"], indices)
    assert back.counts.left_out == {}
