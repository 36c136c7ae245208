"""Boundary IoU against erosion mask by mask, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.confusion import boundary_reach, tally

IGNORE = -1


def eroded(mask: NDArray[np.bool_], *, times: int) -> NDArray[np.bool_]:
    """A mask less the pixels with the outside, of it or of the image, among their eight neighbours; again and again."""
    padded = np.pad(mask, 1)
    for _ in range(times):
        shrunk = np.zeros_like(padded)
        for y in range(1, padded.shape[0] - 1):
            for x in range(1, padded.shape[1] - 1):
                shrunk[y, x] = padded[y - 1 : y + 2, x - 1 : x + 2].all()
        padded = shrunk
    return padded[1:-1, 1:-1]


def near_another(labels: NDArray[np.int64], *, reach: int, y: int, x: int) -> bool:
    """By the definition with ignore: whether another label that counts, or the outside, is within reach."""
    height, width = labels.shape
    if y < reach or x < reach or y >= height - reach or x >= width - reach:
        return True
    around = labels[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return bool(((around != labels[y, x]) & (around != IGNORE)).any())


def naive_counts(
    prediction: NDArray[np.int64], truth: NDArray[np.int64], *, count: int, reach: int
) -> tuple[list[int], list[int]]:
    intersection, union = [0] * count, [0] * count
    nothing = count
    filled = np.where(prediction == IGNORE, nothing, prediction)
    filled = np.where(truth == IGNORE, IGNORE, filled)
    for y, x in np.ndindex(truth.shape):
        for index in range(count):
            in_truth = truth[y, x] == index and near_another(truth, reach=reach, y=y, x=x)
            in_prediction = filled[y, x] == index and near_another(filled, reach=reach, y=y, x=x)
            intersection[index] += in_truth and in_prediction
            union[index] += in_truth or in_prediction
    return intersection, union


def maps(seed: int, *, height: int, width: int, count: int, ignored: float) -> tuple[NDArray[np.int64], ...]:
    """A truth of blocks and a prediction that moves them, with holes in both."""
    generator = np.random.default_rng(seed)
    rows, columns = np.sort(generator.integers(0, 3, height)), np.sort(generator.integers(0, 3, width))
    truth = generator.integers(0, count, (3, 3))[rows][:, columns]
    prediction = np.roll(truth, generator.integers(-2, 3, 2), axis=(0, 1))
    prediction = np.where(generator.random(truth.shape) < 0.05, generator.integers(0, count, truth.shape), prediction)
    for labels in (truth, prediction):
        labels[generator.random(truth.shape) < ignored] = IGNORE
    return prediction, truth


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 14),
    st.sampled_from([1, 2, 3, 15, 16, 21, 255, 256, 300]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.02, 0.1, 0.2]),
)
def test_counts_equal_the_definition_pixel_by_pixel(
    seed: int, height: int, width: int, count: int, ignored: float, dilation: float
) -> None:
    prediction, truth = maps(seed, height=height, width=width, count=count, ignored=ignored)
    reach = boundary_reach(truth.shape, dilation=dilation)
    intersection, union = tally(prediction, truth, count=count, dilation=dilation)[1].T
    expected = naive_counts(prediction, truth, count=count, reach=reach)
    assert (intersection.tolist(), union.tolist()) == expected
    assert intersection.dtype == union.dtype == np.int64


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 16), st.integers(1, 16), st.integers(1, 3))
def test_without_ignore_every_class_is_a_mask_less_its_erosion(seed: int, height: int, width: int, times: int) -> None:
    prediction, truth = maps(seed, height=height, width=width, count=3, ignored=0)
    dilation = times / np.hypot(height, width)
    intersection, union = tally(prediction, truth, count=3, dilation=dilation)[1].T
    for index in range(3):
        rings = [labels == index for labels in (truth, prediction)]
        rings = [mask & ~eroded(mask, times=times) for mask in rings]
        assert intersection[index] == (rings[0] & rings[1]).sum()
        assert union[index] == (rings[0] | rings[1]).sum()


def test_a_square_by_hand() -> None:
    truth = np.zeros((20, 20), dtype=np.int64)
    truth[5:15, 5:15] = 1
    prediction = np.roll(truth, 1, axis=1)
    intersection, union = tally(prediction, truth, count=2, dilation=0.02)[1].T  # 0.57 pixels: one
    # rings of 36 pixels: they share 9 + 9 of the upper and lower side; the left and right sides lie apart
    assert (intersection[1], union[1]) == (18, 36 + 36 - 18)


def test_a_strip_of_ignore_neither_makes_nor_hides_a_contour() -> None:
    truth = np.zeros((9, 30), dtype=np.int64)
    truth[:, 15:] = 1
    truth[:, 14:16] = IGNORE
    prediction = np.where(np.arange(30) < 15, 0, 1)[None].repeat(9, axis=0)
    intersection, union = tally(prediction, truth, count=2, dilation=3 / np.hypot(9, 30))[1].T
    # frame of three pixels, and one column on each side of the strip that sees the other class across it
    assert intersection.tolist() == union.tolist() == [9 * 14 - 3 * (14 - 3 - 1)] * 2
    truth[:, 14:] = IGNORE
    intersection, union = tally(prediction, truth, count=2, dilation=3 / np.hypot(9, 30))[1].T
    assert intersection.tolist() == union.tolist() == [9 * 14 - 3 * (14 - 3), 0]


def test_the_reach_is_a_share_of_the_diagonal_and_at_least_a_pixel() -> None:
    assert boundary_reach((480, 640), dilation=0.02) == 16
    assert boundary_reach((2, 2), dilation=0.02) == 1
    assert boundary_reach((480, 640), dilation=0.005) == 4
    with pytest.raises(PatchwordError, match="boundary dilation is 0"):
        boundary_reach((480, 640), dilation=0)


def test_shapes_that_differ() -> None:
    with pytest.raises(PatchwordError, match=r"\(2, 3\) against ground truth of shape \(3, 2\)"):
        tally(np.zeros((2, 3), dtype=int), np.zeros((3, 2), dtype=int), count=1, dilation=0.02)
