"""The confusion matrix against a per-pixel count, against torchmetrics, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from patchword.errors import PatchwordError
from patchword.evaluation.confusion import ConfusionMatrix

IGNORE = 255


def naive_scores(
    predictions: list[int], truths: list[int], count: int
) -> tuple[list[float | None], list[float | None], float | None, float | None]:
    """IoU and accuracy a class, pixel accuracy and coverage, by sets of pixel positions."""
    valid = {place for place, truth in enumerate(truths) if truth != IGNORE}
    ious: list[float | None] = []
    accuracies: list[float | None] = []
    for index in range(count):
        truth = {place for place in valid if truths[place] == index}
        predicted = {place for place in valid if predictions[place] == index}
        ious.append(len(truth & predicted) / len(truth | predicted) if truth | predicted else None)
        accuracies.append(len(truth & predicted) / len(truth) if truth else None)
    right = {place for place in valid if predictions[place] == truths[place]}
    spoken = {place for place in valid if predictions[place] != IGNORE}
    pixel_accuracy = len(right) / len(valid) if valid else None
    coverage = len(spoken) / len(valid) if valid else None
    return ious, accuracies, pixel_accuracy, coverage


def mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def as_array(values: list[int]) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


label = st.sampled_from([0, 1, 2, 3, 4, IGNORE])


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(label, label), max_size=30), max_size=4))
def test_scores_equal_a_count_by_pixel(images: list[list[tuple[int, int]]]) -> None:
    matrix = ConfusionMatrix(5)
    for image in images:
        matrix.update(as_array([pair[0] for pair in image]), as_array([pair[1] for pair in image]), ignore=IGNORE)
    pairs = [pair for image in images for pair in image]
    ious, accuracies, pixel_accuracy, coverage = naive_scores(
        [pair[0] for pair in pairs], [pair[1] for pair in pairs], 5
    )
    scores = matrix.per_class()
    assert [score.iou for score in scores] == pytest.approx(ious)
    assert [score.accuracy for score in scores] == pytest.approx(accuracies)
    assert matrix.mean_iou() == pytest.approx(mean(ious))
    assert matrix.mean_accuracy() == pytest.approx(mean(accuracies))
    assert matrix.pixel_accuracy() == pytest.approx(pixel_accuracy)
    assert matrix.coverage() == pytest.approx(coverage)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_counts_equal_torchmetrics(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    prediction = generator.integers(0, count, (7, 11))
    truth = generator.integers(0, count, (7, 11))
    truth[generator.random((7, 11)) < 0.2] = IGNORE
    matrix = ConfusionMatrix(count)
    matrix.update(prediction, truth, ignore=IGNORE)
    expected = multiclass_confusion_matrix(
        torch.from_numpy(prediction), torch.from_numpy(truth), num_classes=count, ignore_index=IGNORE
    )
    np.testing.assert_array_equal(matrix.counts, expected.numpy())


def test_a_class_absent_from_both_is_left_out_of_the_mean_and_one_only_predicted_is_not() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(as_array([0, 0, 2]), as_array([0, 0, 0]), ignore=IGNORE)
    assert [score.iou for score in matrix.per_class()] == [pytest.approx(2 / 3), None, 0.0, None]
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.mean_accuracy() == pytest.approx(2 / 3)


def test_no_prediction_is_a_miss_of_the_class_and_lowers_coverage() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(as_array([0, IGNORE, 1, IGNORE]), as_array([0, 0, 1, IGNORE]), ignore=IGNORE)
    assert [score.iou for score in matrix.per_class()] == [0.5, 1.0]
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)
    assert matrix.coverage() == pytest.approx(2 / 3)


def test_scores_come_from_the_sums_and_not_from_a_mean_over_images() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(as_array([0]), as_array([0]))
    matrix.update(as_array([1] * 9), as_array([0] * 9))
    assert matrix.per_class()[0].iou == pytest.approx(1 / 10)


def test_merge_equals_one_matrix_over_both() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(0, 3, (2, 2, 50))
    whole, first, second = ConfusionMatrix(3), ConfusionMatrix(3), ConfusionMatrix(3)
    for part, (prediction, truth) in zip((first, second), pairs, strict=True):
        part.update(prediction, truth)
        whole.update(prediction, truth)
    first.merge(second)
    np.testing.assert_array_equal(first.counts, whole.counts)
    with pytest.raises(PatchwordError, match="3"):
        first.merge(ConfusionMatrix(4))


def test_counts_do_not_overflow_thirty_two_bits() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(as_array([1, 0]), as_array([1, 1]))
    for _ in range(33):
        matrix.merge(matrix)
    assert matrix.counts.tolist() == [[0, 0], [2**33, 2**33]]
    assert matrix.mean_iou() == pytest.approx(0.25)


def test_the_most_common_confusion_is_named() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(as_array([0, 0, 2, 1, 2, 2]), as_array([0, 0, 0, 0, 0, 2]))
    assert [score.confused_with for score in matrix.per_class()] == [2, None, None]


def test_an_empty_matrix_has_no_scores() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(as_array([0, 1]), as_array([IGNORE, IGNORE]))
    assert matrix.mean_iou() is matrix.mean_accuracy() is matrix.pixel_accuracy() is matrix.coverage() is None


@pytest.mark.parametrize(
    ("prediction", "truth", "ignore", "message"),
    [
        ([0, 3], [0, 0], IGNORE, "prediction has the value 3; values must be 0 to 2, or 255"),
        ([0, 0], [0, 7], IGNORE, "truth has the value 7"),
        ([0, 0], [0, IGNORE], 65535, "truth has the value 255"),
        ([0, 0, 0], [0, 0], IGNORE, r"\(3,\) against ground truth of shape \(2,\)"),
        ([0], [0], 2, "ignore index 2 is one of the 3 classes"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_counted(
    prediction: list[int], truth: list[int], ignore: int, message: str
) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(PatchwordError, match=message):
        matrix.update(as_array(prediction), as_array(truth), ignore=ignore)
    assert matrix.counts.sum() == matrix.missed.sum() == 0


def test_a_matrix_needs_a_class() -> None:
    with pytest.raises(PatchwordError, match="at least 1 class, not 0"):
        ConfusionMatrix(0)
