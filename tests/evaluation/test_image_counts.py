"""Counts of images: they add in any order and grouping, and survive being written down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.evaluation.confusion import ConfusionMatrix, tally
from patchword.evaluation.counts import Gathered, ImageCounts, count_image
from patchword.evaluation.records import ImageScore
from patchword.evaluation.report import chance_of

COUNT = 5


def image_of(seed: int) -> ImageCounts:
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 13, 2)
    prediction, truth = (generator.integers(-1, COUNT, size) for _ in range(2))
    return count_image(prediction, truth, count=COUNT, dilation=0.1)


def same(one: ImageCounts, other: ImageCounts) -> bool:
    assert one.boundary is not None
    assert other.boundary is not None
    return bool((one.table == other.table).all() and (one.boundary == other.boundary).all())


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6), st.data())
def test_counts_add_in_any_order_and_grouping(seeds: list[int], data: st.DataObject) -> None:
    images = [image_of(seed) for seed in seeds]
    whole = Gathered.of(images, count=COUNT, boundary=True).whole
    shuffled = data.draw(st.permutations(images))
    cut = data.draw(st.integers(0, len(images)))
    parts = [Gathered.of(part, count=COUNT, boundary=True).whole for part in (shuffled[:cut], shuffled[cut:])]
    assert same(Gathered.of(parts, count=COUNT, boundary=True).whole, whole)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_line_of_the_file_gives_the_counts_back(seed: int) -> None:
    image = image_of(seed)
    line = ImageScore.of(image, name="a.jpg", size=(3, 4), content=None).model_dump_json()
    assert same(ImageScore.model_validate_json(line).counts(COUNT), image)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 21, 171, 300]), st.sampled_from([np.int64, np.int16]))
def test_counts_are_those_of_the_matrix_and_of_the_boundaries(seed: int, count: int, kind: type) -> None:
    generator = np.random.default_rng(seed)
    prediction, truth = (generator.integers(-1, count, (17, 23)).astype(kind) for _ in range(2))
    image = count_image(prediction, truth, count=count, dilation=0.05)
    matrix = ConfusionMatrix(count)
    matrix.update(prediction, truth, ignore=-1)
    np.testing.assert_array_equal(image.table, matrix.table)
    edges = tally(prediction, truth, count=count, dilation=0.05)[1]
    np.testing.assert_array_equal(image.boundary, edges)


def test_without_boundaries() -> None:
    image = count_image(np.zeros((2, 2), dtype=int), np.zeros((2, 2), dtype=int), count=2, dilation=None)
    assert image.boundary is None
    assert image.boundary_iou() == [None, None]
    assert image.sparse_boundary() is None
    assert Gathered.of([image], count=2, boundary=False).whole.boundary is None


def test_an_images_score_is_over_the_classes_of_its_mask() -> None:
    truth = np.zeros((1, 10), dtype=int)
    prediction = truth.copy()
    prediction[0, 0] = 1  # one stray pixel: the rule's mean IoU is 0.45, the image is still a good one
    image = count_image(prediction, truth, count=3, dilation=None)
    assert image.score() == pytest.approx(0.9)
    assert image.matrix.mean_iou() == pytest.approx(0.45)
    nothing = count_image(prediction, np.full((1, 10), -1), count=3, dilation=None)
    assert nothing.score() is None
    assert ImageScore.of(nothing, name="a", size=(1, 10), content=None).status == "empty"


@pytest.mark.parametrize(
    ("pairs", "boundary"),
    [([(3, 0, 1)], None), ([(0, 3, 1)], None), ([(0, -2, 1)], None), ([(0, 0, 0)], None), ([], [(0, 2, 1)])],
)
def test_counts_of_other_classes_are_refused(
    pairs: list[tuple[int, int, int]], boundary: list[tuple[int, int, int]] | None
) -> None:
    with pytest.raises(ValueError, match=r"(are|is) not of 3"):
        ImageCounts.from_sparse(tuple(pairs), None if boundary is None else tuple(boundary), count=3)


def test_chance_by_hand() -> None:
    # truth 60 and 40 pixels; predicted 50 and 30, and nothing for 20
    table = np.array([[30, 18, 12], [20, 12, 8]])
    chance = chance_of(table, names=("sky", "cat"), least=0.31)
    assert chance is not None
    assert (chance.constant_class, chance.constant_miou) == ("sky", pytest.approx(0.6 / 2))
    assert chance.random_miou == pytest.approx((30 / (60 + 50 - 30) + 12 / (40 + 30 - 12)) / 2)
    assert not chance.at_chance
    at = chance_of(table, names=("sky", "cat"), least=0.2)
    assert at is not None
    assert at.at_chance


def test_random_predictions_score_what_chance_says() -> None:
    generator = np.random.default_rng(0)
    truth = generator.choice(4, 40000, p=[0.5, 0.3, 0.2, 0.0])
    prediction = generator.choice(4, 40000, p=[0.1, 0.2, 0.3, 0.4])
    matrix = ConfusionMatrix(4)
    matrix.update(prediction, truth)
    chance = chance_of(matrix.table, names=tuple("abcd"), least=matrix.mean_iou())
    assert chance is not None
    assert chance.random_miou == pytest.approx(matrix.mean_iou(), abs=0.005)
    assert chance.at_chance


def test_no_pixels_no_chance() -> None:
    assert chance_of(np.zeros((2, 3), dtype=np.int64), names=("a", "b"), least=None) is None


def test_what_is_gathered_of_each_image() -> None:
    images = [image_of(seed) for seed in range(4)]
    found = Gathered.of(iter(images), count=COUNT, boundary=True)
    np.testing.assert_array_equal(found.sums.sum(axis=0), found.whole.class_sums())
    assert found.seen.tolist() == [sum(int(image.table[index].any()) for image in images) for index in range(COUNT)]
    nothing = Gathered.of([], count=2, boundary=True)
    assert nothing.sums.shape == (0, 2, 6)
    assert nothing.whole.matrix.mean_iou() is None
