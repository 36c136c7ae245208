"""Where tiles lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError
from patchword.segmentation.large.tiles import Box, plan_tiles, settings_of_tile


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(1, 40),
    share=st.floats(0, 1, exclude_max=True),
)
def test_every_pixel_is_kept_once_with_context_around_it(height: int, width: int, tile: int, share: float) -> None:
    overlap = int(share * tile)
    written = np.zeros((height, width), dtype=np.int64)
    for each in plan_tiles((height, width), tile=tile, overlap=overlap):
        kept, seen = each.kept, each.seen
        assert (seen.height, seen.width) == (min(tile, height), min(tile, width))
        assert 0 <= seen.top <= seen.bottom <= height
        assert 0 <= seen.left <= seen.right <= width
        assert kept.top - seen.top >= overlap // 2 or seen.top == 0
        assert kept.left - seen.left >= overlap // 2 or seen.left == 0
        assert seen.bottom - kept.bottom >= overlap // 2 or seen.bottom == height
        assert seen.right - kept.right >= overlap // 2 or seen.right == width
        written[kept.top : kept.bottom, kept.left : kept.right] += 1
    assert (written == 1).all()


@pytest.mark.parametrize(("length", "count"), [(100, 1), (101, 2), (180, 2), (181, 3), (1, 1)])
def test_there_are_as_few_tiles_as_cover_the_image(length: int, count: int) -> None:
    tiles = plan_tiles((length, 50), tile=100, overlap=20)
    assert len(tiles) == count


def test_one_tile_for_an_image_that_is_smaller() -> None:
    (only,) = plan_tiles((30, 41), tile=64, overlap=63)
    assert only.seen == only.kept == Box(0, 0, 30, 41)


def test_a_box_in_an_array_of_another() -> None:
    values = np.arange(60).reshape(6, 10)
    outer, inner = Box(10, 20, 16, 30), Box(12, 21, 15, 29)
    np.testing.assert_array_equal(values[inner.within(outer)], values[2:5, 1:9])


@pytest.mark.parametrize(
    ("given", "seen", "expected"),
    [
        ({"image_size": 50}, Box(0, 0, 100, 100), (50, None)),
        ({"image_size": 50}, Box(0, 0, 25, 100), (25, None)),
        ({"shorter_side": 80}, Box(0, 0, 50, 100), (None, 40)),
        ({}, Box(0, 0, 25, 25), (10, None)),
        ({}, Box(0, 0, 100, 100), (None, None)),
    ],
)
def test_smaller_tiles_are_seen_at_the_same_scale(
    given: dict[str, int], seen: Box, expected: tuple[int | None, int | None]
) -> None:
    settings = settings_of_tile(SegmentSettings(tile=100, overlap=10, **given), seen=seen, own_size=40)
    assert (settings.image_size, settings.shorter_side) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"tile": 64, "overlap": 64}, "overlap is 64; it must be less than the tile's side, 64"),
        ({"bands": (1, 2)}, r"bands is \[1, 2\]; it must be one or three numbers"),
        ({"bands": (0, 1, 2)}, r"bands is \[0, 1, 2\]"),
        ({"value_range": (5, 5)}, r"value_range is \[5.0, 5.0\]; it must be two numbers, the lower first"),
        ({"value_percentiles": (50, 101)}, r"value_percentiles is \[50.0, 101.0\]"),
        ({"tile": 0}, "setting 'tile' is 0"),
    ],
)
def test_wrong_settings_are_one_line(values: dict[str, object], expected: str) -> None:
    with pytest.raises(PatchwordError, match=expected):
        SegmentSettings(**values)
