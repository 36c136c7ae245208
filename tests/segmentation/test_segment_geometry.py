"""Images in any form, and the size at which they are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import model_size
from patchword.segmentation.sliding_window import as_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((500, 500), (518, 518)),
        ((480, 640), (448, 602)),
        ((640, 480), (602, 448)),
        ((1, 1), (518, 518)),
        ((200, 8000), (84, 3276)),
        ((1, 100_000), (14, 37 * 37 * 14)),
        ((100_000, 1), (37 * 37 * 14, 14)),
    ],
)
def test_sizes_keep_proportions_and_area(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert model_size(size, image_size=518, patch_size=14) == expected


@given(
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    image_size=st.integers(1, 1200),
    patch_size=st.sampled_from([4, 8, 14, 16]),
)
def test_any_image_costs_about_as_much_as_the_square(size: tuple[int, int], image_size: int, patch_size: int) -> None:
    height, width = model_size(size, image_size=image_size, patch_size=patch_size)
    assert height % patch_size == width % patch_size == 0
    side = max(1, int(image_size / patch_size + 0.5))
    patches = (height // patch_size) * (width // patch_size)
    assert 1 <= patches <= 2.5 * side**2 + 2 * side + 1


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        Image.fromarray(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1)[None] / 255,
    ],
    ids=["array", "pillow", "bytes tensor", "float tensor"],
)
def test_every_form_is_the_same_image(image: Any) -> None:
    np.testing.assert_array_equal(as_rgb(image), PIXELS)


@pytest.mark.filterwarnings("error")
def test_arrays_that_cannot_be_written_are_taken() -> None:
    fixed = PIXELS.copy()
    fixed.setflags(write=False)
    np.testing.assert_array_equal(to_tensor(as_rgb(fixed))[0].permute(1, 2, 0).numpy() * 255, PIXELS)


def test_path_is_read(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_rgb(tmp_path / "a.png"), PIXELS)
    np.testing.assert_array_equal(as_rgb(str(tmp_path / "a.png")), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_pillow_modes_become_what_their_file_would(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    np.testing.assert_array_equal(as_rgb(image), as_rgb(path))


def test_pillow_orientation_is_applied() -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(as_rgb(image), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), dtype=np.uint8), r"it must be uint8 of shape \(height, width, 3\)"),
        (np.zeros((4, 4, 3)), r"float64"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"it must be uint8"),
        (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\)"),
        (torch.zeros(4, 4, 3), r"it must be \(3, height, width\)"),
        (torch.full((3, 2, 2), 2.0), r"outside \[0, 1\]"),
        (torch.full((3, 2, 2), torch.nan), r"outside \[0, 1\]"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), r"torch.int64"),
        (Image.new("I;16", (2, 2)), r"mode I;16"),
        (Image.new("F", (2, 2)), r"mode F"),
        (7, r"image is a int"),
    ],
)
def test_other_things_are_refused(image: Any, message: str) -> None:
    with pytest.raises(PatchwordError, match=message):
        as_rgb(image)
