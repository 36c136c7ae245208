"""Overlays: the colours are where they should be, ignore is seen, the legend says what is there and hides nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from patchword.data.colours import palette
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.visualization import overlays as pictures
from patchword.visualization.overlays import overlay


def test_named_pixels_are_blended_with_their_colour() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    indices = np.random.default_rng(1).integers(0, 4, (6, 7))
    painted = np.asarray(overlay(image, LabelMap(indices, ("a", "b", "c", "d")), opacity=0.3, legend=False))
    for row in range(6):
        for column in range(7):
            expected = 0.7 * image[row, column] + 0.3 * palette(4)[indices[row, column]]
            assert np.abs(painted[row, column] - expected).max() <= 0.51
    assert painted.shape == image.shape


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_ignore_is_hatched_so_that_it_shows_on_any_picture(grey: int) -> None:
    image = np.full((100, 120, 3), grey, dtype=np.uint8)
    indices = np.zeros((100, 120), int)
    indices[:, 60:] = 255
    painted = np.asarray(overlay(image, LabelMap(indices, ("a",)), opacity=0, legend=False))
    assert (painted[:, :60] == grey).all()
    assert (np.abs(painted[:, 60:].astype(int) - grey).max(axis=2) > 100).mean() > 0.1
    assert (painted[:, 60:] == grey).all(axis=2).mean() > 0.5
    ignored = painted[:, 60:, 0].astype(int)
    np.testing.assert_array_equal(ignored[1:, :-1], ignored[:-1, 1:])  # lines that run along the diagonal


def test_a_map_of_many_names_is_painted() -> None:
    indices = np.array([[299, 65535]])
    painted = overlay(np.zeros((1, 2, 3), np.uint8), LabelMap(indices, tuple(map(str, range(300)))), legend=False)
    assert painted.getpixel((0, 0)) == tuple(int(np.rint(value * np.float32(0.55))) for value in palette(300)[299])


@pytest.mark.parametrize(("width", "height"), [(200, 150), (1, 1), (2000, 50), (30, 400)])
def test_the_legend_stands_under_the_picture(width: int, height: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    indices = np.arange(width * height).reshape(height, width) % 3
    label_map = LabelMap(indices, ("sky", "dog", "boat"))
    whole = overlay(image, label_map)
    bare = overlay(image, label_map, legend=False)
    assert whole.width >= width
    assert whole.height > height
    assert whole.crop((0, 0, width, height)).tobytes() == bare.tobytes()


def _legend_swatches(picture: Image.Image, height: int, colours: np.ndarray) -> list[int]:
    """Indices of `colours` in the order in which they first stand under the picture, row by row."""
    flat = np.asarray(picture)[height:].reshape(-1, 3)
    first = {}
    for index, colour in enumerate(colours):
        hits = np.flatnonzero((flat == colour).all(axis=1))
        if len(hits):
            first[index] = hits[0]
    return sorted(first, key=lambda index: first[index])


def test_the_legend_names_what_is_present_largest_first() -> None:
    indices = np.zeros((60, 60), int)
    indices[:40] = 3
    indices[:5] = 1
    label_map = LabelMap(indices, ("a", "b", "c", "d"))
    picture = overlay(np.zeros((60, 60, 3), np.uint8), label_map)
    assert _legend_swatches(picture, 60, palette(4)) == [3, 0, 1]


@pytest.mark.parametrize(("side", "letters"), [(64, 13), (720, 20), (2048, 28), (4000, 44), (6000, 67)])
def test_letters_grow_with_the_photograph(side: int, letters: int) -> None:
    strip = pictures.legend([("cat", None)], width=side, height=side // 2)
    assert strip.height == round(letters * 1.5) + round(letters * 1.5) // 2


def test_legend_text() -> None:
    indices = np.zeros((10, 100), int)
    indices[0] = 255
    indices[1, 0] = 2
    label_map = LabelMap(indices, ("cat", "dog", "n" * 60))
    entries = [pictures._legend_entry(label_map, value, share, 13)[0] for value, share in pictures._shares(label_map)]
    assert entries == ["cat, 90%", "n" * 37 + "..., <1%", "ignore, 10%"]


def test_letters_beyond_ascii_fall_back_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    own_font = ImageFont.load_default(13)
    monkeypatch.setattr(pictures, "_fonts", lambda size: [own_font])
    assert pictures.drawable("cat", "class 0", 13)[0] == "cat"
    assert pictures.drawable("café", "class 0", 13)[0] in ("café", "cafe")
    assert pictures.drawable("猫", "class 7", 13)[0] == "class 7"


def test_names_of_any_alphabet_draw_something() -> None:
    label_map = LabelMap(np.array([[0, 1, 2, 3]]), ("é ü", "猫", "кот", "🐟"))
    picture = overlay(np.zeros((1, 4, 3), np.uint8), label_map)
    assert (np.asarray(picture)[1:].max(axis=2) < 60).any()


@pytest.mark.parametrize(
    ("shape", "opacity", "message"),
    [
        ((4, 5, 3), 0.5, r"label map needs uint8 \(5, 4, 3\)"),
        ((5, 4, 3), 1.5, "opacity is 1.5"),
        ((5, 4, 3), -1, "opacity"),
    ],
)
def test_overlay_refuses(shape: tuple[int, int, int], opacity: float, message: str) -> None:
    with pytest.raises(PatchwordError, match=message):
        overlay(np.zeros(shape, np.uint8), LabelMap(np.zeros((5, 4), int), ("a",)), opacity=opacity)
