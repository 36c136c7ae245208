"""Bootstrap intervals against resampling whole images one by one, and what they must be by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.confusion import ConfusionMatrix
from patchword.evaluation.counts import bootstrap_interval, percentiles, resampled_sums


def made_up(images: int, *, classes: int, seed: int = 0) -> NDArray[np.int64]:
    """Pixels of intersection, truth and prediction; some classes are in some images only, one is in none."""
    generator = np.random.default_rng(seed)
    sums = generator.integers(0, 50, (images, classes, 3))
    sums[..., 1:] += sums[..., :1]
    sums[generator.random((images, classes)) < 0.4] = 0
    sums[:, -1] = 0
    return sums


def miou(sums: NDArray[np.int64]) -> float:
    """By the rule, from the sums (classes, 3) of some images."""
    ious = [part / (truth + found - part) for part, truth, found in sums.tolist() if truth + found]
    return sum(ious) / len(ious)


def test_sums_are_of_as_many_images_drawn_with_replacement() -> None:
    images = np.eye(7, dtype=np.int64)  # a sum tells how often each image was drawn
    sums = resampled_sums(images, resamples=300, seed=1)
    assert sums.shape == (300, 7)
    assert (sums.sum(axis=1) == 7).all()
    assert sums.mean(axis=0) == pytest.approx(np.ones(7), abs=0.25)
    assert (sums == 0).any()
    assert (sums > 1).any()


def test_the_interval_is_that_of_resampled_images() -> None:
    images = made_up(12, classes=4)
    draws = resampled_sums(np.eye(12, dtype=np.int64), resamples=200, seed=5).astype(np.int64)
    values = [miou((images * weights[:, None, None]).sum(axis=0)) for weights in draws]
    low, high = np.quantile(values, [0.05, 0.95])
    found = bootstrap_interval(images, resamples=200, seed=5, level=0.9)
    assert found == pytest.approx((low, high))
    assert low < miou(images.sum(axis=0)) < high


def test_more_images_than_are_multiplied_at_once() -> None:
    images = np.ones((9000, 1), dtype=np.int64)
    assert (resampled_sums(images, resamples=3, seed=0) == 9000).all()


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    images = made_up(20, classes=5)
    assert bootstrap_interval(images, seed=3) == bootstrap_interval(images, seed=3)
    assert bootstrap_interval(images, seed=3) != bootstrap_interval(images, seed=4)


def test_a_wider_level_holds_a_narrower_one() -> None:
    images = made_up(20, classes=5)
    wide, narrow = bootstrap_interval(images, level=0.99), bootstrap_interval(images, level=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_counts_beyond_thirty_two_bits_are_exact() -> None:
    sums = resampled_sums(np.array([[2**45 + 1]]), resamples=2, seed=0)
    assert sums.tolist() == [[2**45 + 1], [2**45 + 1]]


def test_images_that_are_all_alike_leave_no_doubt() -> None:
    image = made_up(1, classes=3)
    low, high = bootstrap_interval(np.repeat(image, 9, axis=0)) or (0, 0)
    assert low == high == pytest.approx(miou(image[0]))


def test_a_value_that_no_resample_has_is_none() -> None:
    values = np.array([[np.nan, 1.0, np.nan], [np.nan, 3.0, 2.0]])
    assert percentiles(values, level=0.5) == [None, (1.5, 2.5), (2.0, 2.0)]
    assert bootstrap_interval(np.zeros((4, 2, 3), dtype=np.int64)) is None


def test_without_images() -> None:
    with pytest.raises(PatchwordError, match="no images"):
        resampled_sums(np.zeros((0, 2, 3), dtype=np.int64), resamples=5, seed=0)


def test_resampled_scores_follow_the_matrix() -> None:
    matrix = ConfusionMatrix(3)
    generator = np.random.default_rng(0)
    matrix.update(generator.integers(0, 3, 99), generator.integers(0, 3, 99))
    sums = np.stack([matrix.counts.diagonal(), matrix.counts.sum(axis=1), matrix.counts.sum(axis=0)], axis=-1)
    assert bootstrap_interval(sums[None]) == pytest.approx((matrix.mean_iou(), matrix.mean_iou()))
