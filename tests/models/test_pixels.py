"""Resizing, normalising, padding and point mapping against Pillow and naive computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchword.models.pixels import (
    crop_logits,
    longest_side_size,
    map_points,
    normalise,
    pad_bottom_right,
    resize,
    resize_photograph,
    resize_uint8,
    upload,
)
from patchword.models.registry import Filter

ONE_LEVEL = 1.01 / 255  # Pillow rounds to whole levels after each of its two passes
BICUBIC_LEVELS = 4  # and clips after each, which shows where bicubic overshoots


def random_photo(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A smooth random picture with some sharp noise, uint8 (h, w, 3)."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = random.integers(-20, 21, (height, width, 3))
    return np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8)


def to_tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("size", [(30, 41), (200, 31), (150, 90), (20, 120), (400, 300)])
@pytest.mark.parametrize(("mode", "antialias"), [("bicubic", True), ("bilinear", True), ("bilinear", False)])
def test_rows_at_a_time_give_the_same_bytes(size: tuple[int, int], mode: Filter, antialias: bool) -> None:
    photo = random_photo(200, 120)
    found = resize_photograph(upload(photo, device=torch.device("cpu")), size=size, mode=mode, antialias=antialias)
    expected = resize(to_tensor(photo), size=size, mode=mode, antialias=antialias)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("mode", "pillow"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
@pytest.mark.parametrize("size", [(16, 24), (50, 31), (90, 120), (40, 17)])
def test_resize_agrees_with_pillow(mode: str, pillow: int, size: tuple[int, int]) -> None:
    photo = random_photo(50, 70)
    expected = np.asarray(Image.fromarray(photo).resize((size[1], size[0]), pillow)).astype(np.float32) / 255
    got = resize(to_tensor(photo), size=size, mode=mode)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() <= ONE_LEVEL * (BICUBIC_LEVELS if mode == "bicubic" else 1)
    assert np.abs(got - expected).mean() <= 0.5 / 255


def test_resize_keeps_values_between_zero_and_one() -> None:
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1  # bicubic overshoots on both sides of an edge
    resized = resize(edge, size=(40, 40), mode="bicubic")
    assert resized.min() == 0
    assert resized.max() == 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    images = torch.rand(2, 3, 9, 11)
    assert torch.equal(resize(images, size=(9, 11)), images)


def test_normalise_channel_by_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    got = normalise(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        torch.testing.assert_close(got[:, channel], (images[:, channel] - mean) / std)


def test_pad_puts_zeros_below_and_to_the_right() -> None:
    images = torch.rand(1, 3, 4, 6) + 1
    padded = pad_bottom_right(images, size=(7, 8))
    assert padded.shape == (1, 3, 7, 8)
    assert torch.equal(padded[..., :4, :6], images)
    assert padded[..., 4:, :].abs().sum() + padded[..., 6:].abs().sum() == 0


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((480, 640), 1024, (768, 1024)),
        ((333, 500), 1024, (682, 1024)),
        ((500, 333), 1024, (1024, 682)),
        ((1, 1), 1024, (1024, 1024)),
        ((8000, 200), 1024, (1024, 26)),  # 25.6 rounds up
        ((8000, 2), 1024, (1024, 1)),  # 0.256 pixels would be none
        ((64, 64), 96, (96, 96)),
    ],
)
def test_longest_side_size(size: tuple[int, int], target: int, expected: tuple[int, int]) -> None:
    assert longest_side_size(size, target=target) == expected


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(16, 1024))
def test_longest_side_is_the_target_and_the_shape_is_kept(height: int, width: int, target: int) -> None:
    new_height, new_width = longest_side_size((height, width), target=target)
    assert max(new_height, new_width) == target
    assert abs(new_height - max(1, height * target / max(height, width))) <= 0.5 + 1e-6
    assert abs(new_width - max(1, width * target / max(height, width))) <= 0.5 + 1e-6


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_mapped_points_stay_in_the_input_and_map_back(height: int, width: int, x: float, y: float) -> None:
    image, resized = (height, width), longest_side_size((height, width), target=1024)
    points = torch.tensor([[[x * width, y * height]]])
    mapped = map_points(points, image_size=image, input_size=resized)
    assert 0 <= mapped[0, 0, 0] <= resized[1] * (1 + 1e-6)
    assert 0 <= mapped[0, 0, 1] <= resized[0] * (1 + 1e-6)
    back = map_points(mapped, image_size=resized, input_size=image)
    torch.testing.assert_close(back, points, rtol=1e-5, atol=1e-3)


def test_points_of_whole_numbers_are_mapped_as_floats() -> None:
    mapped = map_points(torch.tensor([[[3, 5]]]), image_size=(10, 10), input_size=(15, 25))
    assert mapped.dtype == torch.float32
    assert mapped.tolist() == [[[7.5, 7.5]]]


def test_crop_of_whole_cells_is_a_slice() -> None:
    logits = torch.randn(2, 3, 8, 8)
    assert torch.equal(crop_logits(logits, valid=(5.0, 8.0)), logits[:, :, :5])


def naive_crop(row: list[float], valid: float) -> list[float]:
    """Sample ceil(valid) places, evenly spread over [0, valid) cells, each between its two neighbours."""
    count = int(np.ceil(valid))
    samples = []
    for index in range(count):
        place = max(0.0, (index + 0.5) * valid / count - 0.5)
        lower = int(place)
        upper = min(lower + 1, len(row) - 1)
        samples.append(row[lower] * (1 - (place - lower)) + row[upper] * (place - lower))
    return samples


@settings(max_examples=30)
@given(st.integers(2, 12), st.floats(0.05, 1))
def test_crop_of_fractional_cells_agrees_with_naive_sampling(cells: int, share: float) -> None:
    generator = torch.Generator().manual_seed(cells)
    logits = torch.randn(1, 1, cells, cells, generator=generator)
    valid = cells * share
    got = crop_logits(logits, valid=(valid, float(cells)))
    expected = [naive_crop(logits[0, 0, :, column].tolist(), valid) for column in range(cells)]
    torch.testing.assert_close(got[0, 0].T, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("valid", [(170.5, 256.0), (256.0, 192.25), (85.75, 256.0)])
def test_crop_of_a_ramp_lies_where_the_valid_part_lies(valid: tuple[float, float]) -> None:
    """A plane stays a plane under bilinear sampling: its value tells the place, which must span the valid part."""
    ramp = torch.arange(256).float() + 0.5  # the place in cells
    plane = (ramp[:, None] + 1000 * ramp[None]).view(1, 1, 256, 256)
    cropped = crop_logits(plane, valid=valid)
    rows, columns = cropped.shape[-2:]
    y = (torch.arange(rows) + 0.5) * valid[0] / rows
    x = (torch.arange(columns) + 0.5) * valid[1] / columns
    torch.testing.assert_close(
        cropped[0, 0, 1:-1, 1:-1], (y[:, None] + 1000 * x[None])[1:-1, 1:-1], rtol=1e-5, atol=1e-1
    )


@pytest.mark.parametrize(
    ("size", "target"),
    [((375, 500), (336, 448)), ((333, 500), (336, 505)), ((1, 1), (5, 7)), ((64, 48), (32, 24)), ((40, 31), (80, 62))],
)
def test_resizing_in_whole_numbers_is_opencvs_bit_for_bit(size: tuple[int, int], target: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_uint8(pixels, size=target), expected)


sides = st.integers(1, 70)


@given(st.tuples(sides, sides), st.tuples(sides, sides), st.booleans(), st.integers(0, 2**32 - 1))
def test_resizing_in_whole_numbers_is_opencvs_at_any_size(
    size: tuple[int, int], target: tuple[int, int], stark: bool, seed: int
) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    if stark:
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    expected = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_uint8(pixels, size=target), expected)
