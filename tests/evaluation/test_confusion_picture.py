"""The confusion matrix as a picture: what is drawn, and that it can be read at any number of classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from patchword.evaluation.pictures import draw_confusion


def opened(table: np.ndarray, names: list[str]) -> Image.Image:
    return Image.open(io.BytesIO(draw_confusion(table, names=names))).convert("RGB")


def strongest(picture: Image.Image) -> set[str]:
    """Which of blue and red are there at full strength."""
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    return {name for name, colour in {"blue": (8, 69, 148), "red": (166, 30, 20)}.items() if colour in colours}


def test_right_is_blue_and_wrong_is_red() -> None:
    assert strongest(opened(np.array([[9, 0, 0], [0, 5, 0]]), ["cat", "dog"])) == {"blue"}
    assert strongest(opened(np.array([[0, 9, 0], [0, 5, 0]]), ["cat", "dog"])) == {"blue", "red"}
    assert strongest(opened(np.array([[9, 0, 0], [0, 0, 5]]), ["cat", "dog"])) == {"blue", "red"}  # no prediction


def test_classes_that_occur_nowhere_take_no_room() -> None:
    few, many = np.zeros((2, 3), dtype=np.int64), np.zeros((20, 21), dtype=np.int64)
    few[0, 0] = few[1, 1] = many[3, 3] = many[7, 7] = 4
    names = [f"class {number:02}" for number in range(20)]
    assert opened(few, [names[3], names[7]]).size == opened(many, names).size


@pytest.mark.parametrize(("count", "least", "most"), [(21, 700, 1200), (60, 1000, 2000), (171, 2300, 3200)])
def test_cells_are_large_enough_and_the_picture_is_bounded(count: int, least: int, most: int) -> None:
    table = np.pad(np.eye(count, dtype=np.int64), ((0, 0), (0, 1)))
    width, height = opened(table, [f"number {index}" for index in range(count)]).size
    assert least <= width <= most
    assert least <= height <= most


def test_names_in_any_alphabet_and_length_and_no_pixels_at_all() -> None:
    table = np.array([[1, 2, 3], [4, 5, 6]])
    assert opened(table, ["猫", "a name that is much too long to stand beside a matrix as it is"]).width < 500
    opened(np.zeros((2, 3), dtype=np.int64), ["cat", "dog"])
