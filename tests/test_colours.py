"""The palette, and how colours that a user gives take their places in it."""

from __future__ import annotations

import numpy as np
import pytest

from patchword.data import colours
from patchword.data.colours import alike, class_colours, palette, with_one_more


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 65535])
def test_colours_are_all_different(count: int) -> None:
    chosen = palette(count)
    assert chosen.shape == (count, 3)
    assert chosen.dtype == np.uint8
    assert len({tuple(colour) for colour in chosen.tolist()}) == count


def test_later_colours_leave_out_the_first_ones() -> None:
    first = colours._more_colours(3, palette(0))
    assert not set(map(tuple, first)) & set(map(tuple, colours._more_colours(100, first)))


def test_a_position_keeps_its_colour() -> None:
    most = palette(1000)
    for count in (1, 20, 256, 300):
        np.testing.assert_array_equal(palette(count), most[:count])
    palette(3)[:] = 0
    assert palette(3).any()


def test_the_first_colours_are_far_apart() -> None:
    chosen = palette(30).astype(float)
    distance = np.linalg.norm(chosen[:, None] - chosen[None], axis=2) + 1000 * np.eye(30)
    assert distance.min() > 40


def test_alike_is_a_matter_of_the_channel_that_differs_most() -> None:
    assert alike((10, 20, 30), (26, 4, 30))
    assert not alike((10, 20, 30), (10, 20, 47))


@pytest.mark.parametrize("count", [0, 3, 255, 256, 300])
def test_without_given_colours_the_palette_decides(count: int) -> None:
    np.testing.assert_array_equal(class_colours([None] * count), palette(count))
    np.testing.assert_array_equal(with_one_more(palette(count)), palette(count + 1))


def test_one_more_class_changes_no_colour_of_the_others() -> None:
    first = tuple(palette(1)[0].tolist())
    given = [None, first, None]
    longer = class_colours([*given, None])
    assert longer[[1, 2]].tolist() == class_colours(given)[[1, 2]].tolist()
    np.testing.assert_array_equal(with_one_more(class_colours(given))[:3], class_colours(given))
