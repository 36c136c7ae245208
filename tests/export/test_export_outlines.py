"""Connected pieces, their outlines as polygons, and what polygons lose."""

from __future__ import annotations

import numpy as np
import pytest
from export_data import even_odd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from patchword.data.coco_masks import filled
from patchword.data.components import NOTHING, connected_components
from patchword.export.instances import Piece
from patchword.export.outlines import LossCounter, outline_of, painted

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))
maps = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(NOTHING, 2))


def flood(values: np.ndarray) -> np.ndarray:
    """Pieces one after the other, pixel by pixel."""
    labels = np.zeros(values.shape, dtype=int)
    for start in zip(*np.nonzero(values != NOTHING), strict=True):
        if labels[start]:
            continue
        number, waiting = labels.max() + 1, [start]
        labels[start] = number
        while waiting:
            row, column = waiting.pop()
            for r in range(max(row - 1, 0), min(row + 2, values.shape[0])):
                for c in range(max(column - 1, 0), min(column + 2, values.shape[1])):
                    if not labels[r, c] and values[r, c] == values[start]:
                        labels[r, c] = number
                        waiting.append((r, c))
    return labels


def pieces(mask: np.ndarray) -> list[np.ndarray]:
    labels = connected_components(np.where(mask, 0, NOTHING)).labels
    return [labels == number for number in range(1, labels.max(initial=0) + 1)]


@given(maps)
def test_components_are_those_of_a_flood_fill(values: np.ndarray) -> None:
    found = connected_components(values)
    np.testing.assert_array_equal(found.labels, flood(values))
    assert len(found.areas) == len(found.boxes) == found.labels.max()
    for number, (area, (x, y, width, height)) in enumerate(zip(found.areas, found.boxes, strict=True), start=1):
        rows, columns = np.nonzero(found.labels == number)
        assert area == len(rows)
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_spiral_is_one_piece() -> None:
    spiral = np.array(
        [[int(c) for c in row] for row in ("1111111", "0000001", "1111101", "1000101", "1011101", "1000001", "1111111")]
    )
    assert len(pieces(spiral == 1)) == 1


@given(masks)
def test_an_exact_outline_encloses_exactly_the_mask(mask: np.ndarray) -> None:
    size = (mask.shape[0], mask.shape[1])
    for piece in pieces(mask):
        points = outline_of(piece).points
        assert len(points) >= 4
        np.testing.assert_array_equal(even_odd(points, size), piece)
        np.testing.assert_array_equal(filled(points, size=size), piece)


def drawn(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As a reader draws with whole numbers: a line from pixel to pixel, and what lies inside it."""
    corners = np.floor(points).astype(int)
    mask = even_odd(corners + 0.5, size)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        step = end - start
        assert 0 in step or abs(step[0]) == abs(step[1])  # else pixels of the line would be a matter of taste
        for along in range(abs(step).max() + 1):
            x, y = start + np.sign(step) * along
            mask[y, x] = True
    return mask


@given(masks)
def test_an_outline_inside_is_exact_for_readers_that_draw_and_for_those_that_fill(mask: np.ndarray) -> None:
    size = (mask.shape[0], mask.shape[1])
    for piece in pieces(mask):
        outline = outline_of(piece, inside=True)
        assert outline.holes == outline_of(piece).holes
        single = (outline.points / size[::-1]).astype(np.float32) * np.array(size[::-1], dtype=np.float32)
        np.testing.assert_array_equal(np.floor(single), np.floor(outline.points))
        np.testing.assert_array_equal(drawn(outline.points, size), piece)
        np.testing.assert_array_equal(painted(outline.points, size=size), piece)
        np.testing.assert_array_equal(even_odd(outline.points, size), piece)


@pytest.mark.parametrize(
    ("rows", "holes", "corners"),
    [
        (["1"], 0, 4),
        (["111", "111"], 0, 4),
        (["111", "101", "111"], 1, 10),
        (["10", "01"], 0, 8),
        (["0100", "1010", "0100"], 1, None),  # pixels that meet at corners around a hole
        (["11111", "10101", "11111"], 2, None),
        (["1111111", "1000001", "1011101", "1010101", "1011101", "1000001", "1111111"], 1, None),
    ],
)
def test_holes_are_counted_and_stay_holes(rows: list[str], holes: int, corners: int | None) -> None:
    mask = np.array([[character == "1" for character in row] for row in rows])
    piece = pieces(mask)[0]
    outline = outline_of(piece)
    assert outline.holes == holes
    assert corners is None or len(outline.points) == corners
    np.testing.assert_array_equal(even_odd(outline.points, (mask.shape[0], mask.shape[1])), piece)


def test_the_corners_of_a_rectangle_are_those_of_its_pixels() -> None:
    assert outline_of(np.ones((2, 5), dtype=bool)).points.tolist() == [[0, 0], [5, 0], [5, 2], [0, 2]]


def disc(radius: float, *, hole: float = 0.0) -> np.ndarray:
    side = np.arange(2 * radius + 5) - radius - 2
    distance = np.hypot(side[:, None], side[None])
    return (distance < radius) & (distance >= hole)


@pytest.mark.parametrize("hole", [0.0, 12.0])
@pytest.mark.parametrize("tolerance", [0.75, 1.5, 3.0])
def test_a_tolerance_saves_corners_and_keeps_the_line_near(tolerance: float, hole: float) -> None:
    mask = disc(30, hole=hole)
    exact, simple = outline_of(mask), outline_of(mask, tolerance=tolerance)
    assert len(simple.points) < len(exact.points) / 2
    assert simple.holes == (hole > 0)
    for point in exact.points:
        following = np.roll(simple.points, -1, axis=0) - simple.points
        share = ((point - simple.points) * following).sum(axis=1) / np.maximum((following**2).sum(axis=1), 1e-9)
        nearest = simple.points + np.clip(share, 0, 1)[:, None] * following
        assert np.hypot(*(point - nearest).T).min() <= tolerance + 1e-9
    again = filled(simple.points, size=(mask.shape[0], mask.shape[1]))
    assert (again & mask).sum() / (again | mask).sum() > 1 - 0.04 * tolerance


def test_a_tolerance_larger_than_the_mask_leaves_a_polygon() -> None:
    assert len(outline_of(np.ones((1, 1), dtype=bool), tolerance=50).points) >= 3
    assert len(outline_of(disc(4, hole=2), tolerance=50).points) >= 3


def test_loss_is_counted_and_names_the_worst() -> None:
    mask = disc(20)
    piece = Piece(0, (60, 70), (3, 4, mask.shape[1], mask.shape[0]), mask, int(mask.sum()), None)
    counter = LossCounter()
    assert counter.summary() is None
    np.testing.assert_array_equal(even_odd(counter.polygon(piece, name="exact", tolerance=0), (60, 70)), piece.mask())
    summary = counter.summary()
    assert summary is not None
    assert (summary.mean_iou_loss, summary.worst_iou_loss, summary.worst_image) == (0, 0, None)
    counter.polygon(piece, name="coarse", tolerance=8)
    summary = counter.summary()
    assert summary is not None
    assert summary.worst_image == "coarse"
    assert 0.02 < summary.worst_iou_loss < 0.5
    assert summary.mean_iou_loss == pytest.approx(summary.worst_iou_loss / 2, abs=1e-6)
