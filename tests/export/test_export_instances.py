"""Objects are pieces of the label map, told apart by segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from export_data import VOCABULARY, scene, segment
from hypothesis import given
from hypothesis import strategies as st

from patchword.data.colours import palette
from patchword.data.masks import LabelMap, Segment
from patchword.data.run_lengths import run_lengths
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.instances import Piece, pieces_of
from patchword.export.job import categories_of, stems


def drawn(rows: list[str]) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def label_map(mask: np.ndarray, index: int = 0) -> LabelMap:
    return LabelMap(np.where(mask, index, 255).astype(np.uint8), VOCABULARY.names)


def objects(
    label_map: LabelMap, segments: Sequence[Segment], *, own_share: float = 0.5, least_area: float = 0
) -> tuple[Piece, ...]:
    return pieces_of(label_map, segments, own_share=own_share, least_area=least_area).objects


def areas(pieces: tuple[Piece, ...]) -> list[int]:
    return sorted(piece.area for piece in pieces)


@given(st.integers(0, 200), st.floats(0, 1), st.integers(0, 40))
def test_objects_and_slivers_are_the_label_map_to_the_pixel(seed: int, own_share: float, least: int) -> None:
    indices, segments = scene(seed, size=(20, 25))
    found = np.full(indices.shape, 255)
    pieces = pieces_of(LabelMap(indices, VOCABULARY.names), segments, own_share=own_share, least_area=least)
    assert all(piece.area >= least for piece in pieces.objects)
    assert all(piece.area < least for piece in pieces.slivers)
    assert pieces.labelled == (indices != 255).sum()
    for piece in (*pieces.objects, *pieces.slivers):
        mask = piece.mask()
        assert (found[mask] == 255).all()
        assert mask.sum() == piece.area
        assert piece.run_lengths() == run_lengths(mask)
        found[mask] = piece.class_index
    np.testing.assert_array_equal(found, indices)


def test_two_segments_that_touch_are_two_objects() -> None:
    both = drawn(["######", "######"])
    left, right = both.copy(), both.copy()
    left[:, 3:] = right[:, :3] = False
    pieces = objects(label_map(both), [segment(left, 0, 0.5), segment(right, 0, 0.7)], own_share=0.5)
    assert [(piece.box, piece.score) for piece in pieces] == [((0, 0, 3, 2), 0.5), ((3, 0, 3, 2), 0.7)]
    assert areas(objects(label_map(both), [], own_share=0.5)) == [12]


def test_a_second_mask_of_the_same_object_makes_no_second_object() -> None:
    whole = drawn(["######", "######", "######"])
    better = whole.copy()
    better[:, 5] = False  # the worse mask covers a column more
    pieces = objects(label_map(whole), [segment(whole, 0, 0.4), segment(better, 0, 0.6)], own_share=0.5)
    assert [(piece.area, piece.score) for piece in pieces] == [(18, 0.6)]
    pieces = objects(label_map(whole), [segment(whole, 0, 0.4), segment(better, 0, 0.6)], own_share=0.1)
    assert areas(pieces) == [3, 15]


def test_a_rest_goes_to_the_object_that_it_touches_most() -> None:
    whole = drawn(["#########"] * 3)
    left, right = whole.copy(), whole.copy()
    left[:, 4:] = False
    right[:, :5] = False
    left[2] = False  # the rest, column 4 and row 2 of the left, touches the left more often
    pieces = objects(label_map(whole), [segment(left, 0, 0.4), segment(right, 0, 0.6)], own_share=0.5)
    assert {piece.score: piece.area for piece in pieces} == {0.4: 15, 0.6: 12}


def test_segments_of_another_class_or_outside_the_map_say_nothing() -> None:
    mask = drawn(["##..", "##.."])
    pieces = objects(label_map(mask, 1), [segment(np.ones((2, 4), dtype=bool), 0, 0.9)], own_share=0.5)
    assert [(piece.class_index, piece.area, piece.score) for piece in pieces] == [(1, 4, None)]
    pieces = objects(label_map(mask, 1), [segment(np.ones((2, 4), dtype=bool), 1, 0.9)], own_share=0.5)
    assert [(piece.box, piece.score) for piece in pieces] == [((0, 0, 2, 2), 0.9)]


def test_parts_of_a_segment_that_do_not_touch_are_objects_of_their_own() -> None:
    mask = drawn(["##..#", "##..#", "...#."])
    assert areas(objects(label_map(mask), [segment(mask, 0, 0.9)], own_share=0.5)) == [3, 4]


def test_a_small_piece_joins_the_object_of_its_class_that_it_touches() -> None:
    whole = drawn(["#####.", "#####.", ".....#"])
    left, right = whole.copy(), whole.copy()
    left[:, 3:] = right[:, :3] = False
    segments = [segment(left, 0, 0.4), segment(right, 0, 0.6)]
    assert areas(objects(label_map(whole), segments)) == [5, 6]
    joined = pieces_of(label_map(whole), segments, least_area=6)
    assert [(piece.area, piece.score) for piece in joined.objects] == [(11, 0.4)]
    assert joined.slivers == ()


def test_a_small_piece_that_touches_no_object_of_its_class_is_a_sliver() -> None:
    indices = np.array([[0, 0, 1, 255, 0], [0, 0, 1, 255, 0]], dtype=np.uint8)
    pieces = pieces_of(LabelMap(indices, VOCABULARY.names), [], least_area=3)
    assert [(piece.class_index, piece.box) for piece in pieces.objects] == [(0, (0, 0, 2, 2))]
    assert [(piece.class_index, piece.box) for piece in pieces.slivers] == [(1, (2, 0, 1, 2)), (0, (4, 0, 1, 2))]


def test_small_pieces_that_touch_each_other_are_measured_together() -> None:
    whole = drawn(["####"])
    left, right = whole.copy(), whole.copy()
    left[:, 2:] = right[:, :2] = False
    segments = [segment(left, 0, 0.4), segment(right, 0, 0.6)]
    assert areas(objects(label_map(whole), segments, least_area=2)) == [2, 2]
    assert areas(objects(label_map(whole), segments, least_area=3)) == [4]


def test_a_segment_of_another_size_is_refused() -> None:
    with pytest.raises(PatchwordError, match="segment of 'cat' is of"):
        objects(label_map(drawn(["##"])), [segment(np.ones((2, 2), dtype=bool), 0, 0.5)], own_share=0.5)


def test_the_table_of_classes_has_the_colours_of_the_masks(tmp_path: Path) -> None:
    table = categories_of(Vocabulary.of([f"class {number}" for number in range(300)]))
    assert [each.index for each in table] == list(range(300))
    assert [each.id for each in table] == list(range(1, 301))
    assert [each.colour for each in table] == [tuple(colour) for colour in palette(300).tolist()]
    assert (0, 0, 0) not in {each.colour for each in table}
    assert table[0].hexadecimal == "#{:02x}{:02x}{:02x}".format(*table[0].colour)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/x.jpg", "b/x.jpg"], ["a/x", "b/x"]),
        (["x.jpg", "x.png", "y.png"], ["x.jpg", "x.png", "y"]),
        (["X.jpg", "x.png"], ["X.jpg", "x.png"]),
        (["x.jpg", "x.png", "x.jpg.png"], ["x.jpg", "x.png", "x.jpg.png"]),
        (["é.jpg", "e\u0301.png"], ["é.jpg", "e\u0301.png"]),
        (["no suffix", "a.b/c.d.jpg"], ["no suffix", "a.b/c.d"]),
    ],
)
def test_names_without_suffix_differ(names: list[str], expected: list[str]) -> None:
    assert list(stems(names).values()) == expected
