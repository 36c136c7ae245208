"""Label maps and segments: what is allowed, what files hold, and that nothing changes on the way to disk and back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from patchword.data.colours import IGNORE_COLOUR, palette
from patchword.data.masks import LabelMap, Segment, ignore_index, read_indices
from patchword.errors import PatchwordError
from patchword.visualization.overlays import overlay


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


@pytest.mark.parametrize(
    ("count", "ignore", "kind", "mode"),
    [
        (1, 255, np.uint8, "P"),
        (254, 255, np.uint8, "P"),
        (255, 65535, np.uint16, "I;16"),
        (300, 65535, np.uint16, "I;16"),
    ],
)
def test_depth_and_ignore_follow_the_number_of_names(
    tmp_path: Path, count: int, ignore: int, kind: type, mode: str
) -> None:
    label_map = LabelMap(np.array([[0, count - 1, ignore]]), _names(count))
    assert (label_map.ignore, label_map.indices.dtype) == (ignore, kind)
    assert ignore_index(count) == ignore
    label_map.save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.mode == mode
    again = LabelMap.load(tmp_path / "map.png", names=_names(count))
    assert again.indices.tolist() == [[0, count - 1, ignore]]
    assert again.indices.dtype == kind
    assert again.names == label_map.names


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_label_map_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 2, 20, 254, 255, 256, 1000, 65535]))
    values = st.one_of(st.integers(0, count - 1), st.just(ignore_index(count)))
    shape = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
    indices = data.draw(arrays.arrays(np.int64, shape, elements=values))
    path = tmp_path_factory.mktemp("maps") / "map.png"
    LabelMap(indices, _names(count)).save(path)
    np.testing.assert_array_equal(LabelMap.load(path, names=_names(count)).indices, indices)


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 20, (40, 50))
    for name, stored in (
        ("a.png", indices),
        ("b.png", indices.astype(np.uint8)),
        ("c.png", np.asfortranarray(indices)),
    ):
        LabelMap(stored, _names(20)).save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")}) == 1


def test_the_png_shows_the_palette(tmp_path: Path) -> None:
    LabelMap(np.array([[0, 1, 2, 255]]), _names(3)).save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        colours = np.asarray(image.convert("RGB"))[0]
    np.testing.assert_array_equal(colours[:3], palette(3))
    assert tuple(colours[3]) == (224, 224, 192)


@pytest.mark.parametrize(
    ("indices", "count", "message"),
    [
        (np.array([[0, 3]]), 3, "index 3; it must be 0 to 2, or 255"),
        (np.array([[-1]]), 3, "index -1"),
        (np.array([[255]]), 255, None),
        (np.array([[255]]), 300, None),
        (np.array([[256]]), 255, "index 256; it must be 0 to 254, or 65535"),
        (np.array([[65535]]), 3, "index 65535"),
        (np.array([0, 1]), 3, "must hold integers"),
        (np.zeros((0, 4), np.uint8), 3, "must hold integers"),
        (np.zeros((2, 2)), 3, "must hold integers"),
        (np.zeros((2, 2), bool), 3, "must hold integers"),
        (np.zeros((2, 2), np.uint8), 65536, "65536 names; at most 65535"),
    ],
)
def test_only_indices_with_a_name_or_ignore(indices: NDArray[np.integer], count: int, message: str | None) -> None:
    if message is None and count == 255:
        message = "index 255; it must be 0 to 254"
    if message is None:
        assert LabelMap(indices, _names(count)).indices.tolist() == indices.tolist()
        return
    with pytest.raises(PatchwordError, match=message):
        LabelMap(indices, _names(count))


def test_masks_of_others_are_read(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 2, 255]], dtype=np.uint8))
    grey.save(tmp_path / "grey.png")
    assert LabelMap.load(tmp_path / "grey.png", names=_names(3)).indices.tolist() == [[0, 2, 255]]
    indexed = Image.fromarray(np.array([[0, 2, 1]], dtype=np.uint8))
    indexed.putpalette([0, 0, 0, 9, 9, 9, 5, 5, 5])
    indexed.save(tmp_path / "two_bit.png")
    assert LabelMap.load(tmp_path / "two_bit.png", names=_names(3)).indices.tolist() == [[0, 2, 1]]
    assert read_indices(tmp_path / "grey.png").tolist() == [[0, 2, 255]]


def test_files_that_are_no_label_map(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "seven.png")
    (tmp_path / "text.png").write_text("hello")
    LabelMap(np.zeros((9, 9), int), _names(2)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-30])
    for name, count, message in [
        ("colour.png", 3, "mode RGB"),
        ("seven.png", 3, "index 7; it must be 0 to 2"),
        ("seven.png", 255, "8-bit label map; 255 names need a 16-bit one"),
        ("text.png", 3, "cannot read"),
        ("cut.png", 2, "cannot read"),
        ("missing.png", 3, "No such file"),
    ]:
        with pytest.raises(PatchwordError, match=message) as raised:
            LabelMap.load(tmp_path / name, names=_names(count))
        assert name in str(raised.value)


def _segment(mask: NDArray[np.bool_]) -> Segment:
    return Segment.from_mask(
        mask,
        class_index=3,
        class_name="Über 猫",
        score=0.25,
        predicted_iou=0.875,
        similarity=0.3,
        generator="querying SAM with CLIP",
        points=[(1.5, 2.0), (0, 3)],
    )


_masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(_masks)
@settings(deadline=None)
def test_segment_round_trip_through_json(mask: NDArray[np.bool_]) -> None:
    segment = _segment(mask)
    again = Segment.from_json(json.loads(json.dumps(segment.to_json())))
    assert again == segment
    np.testing.assert_array_equal(again.mask(), mask)
    assert again.mask().dtype == np.bool_


@given(_masks)
@settings(deadline=None)
def test_area_and_box_are_those_of_the_mask(mask: NDArray[np.bool_]) -> None:
    segment = _segment(mask)
    assert segment.area == sum(map(sum, mask.tolist()))
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        assert segment.box == (0, 0, 0, 0)
    else:
        left, top = columns.min(), rows.min()
        assert segment.box == (left, top, columns.max() + 1 - left, rows.max() + 1 - top)


def test_run_lengths_are_those_of_coco() -> None:
    # Column by column: 1 outside, 2 inside, 3 outside.
    mask = np.array([[0, 1, 0], [1, 0, 0]], dtype=bool)
    segment = _segment(mask)
    assert segment.rle == {"size": [2, 3], "counts": "123"}


@pytest.mark.parametrize("mask", [np.zeros((0, 3), bool), np.zeros(3, bool), np.zeros((1, 2, 3), bool)])
def test_masks_of_another_shape_are_refused(mask: NDArray[np.bool_]) -> None:
    with pytest.raises(PatchwordError, match="mask has shape"):
        _segment(mask)


@pytest.mark.parametrize("counts", ["", "1", "12", "zzzz", "é", "1234567"])
def test_damaged_run_lengths_are_noticed(counts: str) -> None:
    record = _segment(np.array([[0, 1, 0], [1, 0, 0]], dtype=bool)).to_json()
    segment = Segment.from_json({**record, "rle": {"size": [2, 3], "counts": counts}})
    with pytest.raises(PatchwordError, match="damaged mask"):
        segment.mask()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "high"}, "segment cannot be read"),
        ({"points": [[1]]}, "segment cannot be read"),
        ({"box": [1, 2]}, "segment cannot be read"),
        ({"rle": None}, "segment cannot be read"),
        ({"rle": {"size": [2, 3]}}, "no field 'counts'"),
    ],
)
def test_records_that_are_no_segment(change: dict[str, object], message: str) -> None:
    record = _segment(np.ones((2, 3), bool)).to_json()
    with pytest.raises(PatchwordError, match=message):
        Segment.from_json({**record, **change})
    del record["generator"]
    with pytest.raises(PatchwordError, match="no field 'generator'"):
        Segment.from_json(record)


def test_a_label_map_with_colours_of_its_own_shows_them_everywhere(tmp_path: Path) -> None:
    own = np.array([[200, 30, 60], [30, 60, 200]], dtype=np.uint8)
    label_map = LabelMap(np.array([[0, 0, 1, 255]]), ("a", "b"), own)
    label_map.save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        stored = np.array(image.getpalette("RGB")).reshape(-1, 3)
    assert stored[:2].tolist() == own.tolist()
    assert stored[255].tolist() == list(IGNORE_COLOUR)
    painted = np.asarray(overlay(np.zeros((1, 4, 3), dtype=np.uint8), label_map, opacity=1, legend=False))
    assert painted[0, :3].tolist() == own[[0, 0, 1]].tolist()
    legend = np.asarray(overlay(np.zeros((1, 4, 3), dtype=np.uint8), label_map, opacity=0))
    assert all((legend == colour).all(axis=2).any() for colour in own)
    with pytest.raises(PatchwordError, match=r"colours \(2, 3\); they must have shape \(3, 3\)"):
        LabelMap(np.array([[0]]), ("a", "b", "c"), own)


def test_a_large_map_is_read_without_a_word_of_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.zeros((8, 12), dtype=np.int64)
    LabelMap(indices, _names(2)).save(tmp_path / "map.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", indices.size - 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "map.png"):
            assert [each.category for each in said] == [Image.DecompressionBombWarning]
        np.testing.assert_array_equal(LabelMap.load(tmp_path / "map.png", names=_names(2)).indices, indices)
    assert len(said) == 1
