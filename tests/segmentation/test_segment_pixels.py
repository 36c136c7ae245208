"""Classes of pixels, in pieces of any size, against upsampling everything at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from patchword.segmentation.pixels import PixelClasses, PostprocessConfig, apply_thresholds, assign_pixels
from patchword.segmentation.scores import GridScores


def random_scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def one_class_a_map(count: int, **rule: float) -> PostprocessConfig:
    return PostprocessConfig(np.arange(count), count, **{"temperature": 0.07, **rule})  # type: ignore[arg-type]


def naive(scores: Tensor, *, size: tuple[int, int], decision: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Classes' shares (classes, h, w) in a softmax over all maps: the largest of their maps; and the label map."""
    full = functional.interpolate(scores[None].double(), size=size, mode="bilinear", align_corners=False)[0]
    shares = (full / decision.temperature).softmax(dim=0)
    classes = torch.zeros(decision.count, *size, dtype=torch.float64)
    for share, owner in zip(shares, decision.class_of.tolist(), strict=True):
        classes[owner] = torch.maximum(classes[owner], share)
    confidence, index = classes.max(dim=0)
    if decision.background is not None:
        index[confidence < decision.background_threshold] = decision.background
    index[confidence < decision.threshold] = 255 if decision.count < 255 else 65535
    return classes, index


def check(found: PixelClasses, scores: Tensor, *, size: tuple[int, int], decision: PostprocessConfig) -> None:
    """The same result, but where rounding may decide between scores, or beside a threshold."""
    classes, index = naive(scores, size=size, decision=decision)
    best = classes.topk(min(2, len(classes)), dim=0).values
    np.testing.assert_allclose(found.confidence, best[0].numpy(), rtol=2e-4)
    close = torch.zeros(size, dtype=torch.bool)
    if len(best) > 1:
        close |= best[0] - best[1] < 1e-4
    for threshold in (decision.threshold, decision.background_threshold):
        close |= (best[0] - threshold).abs() < 1e-4
    assert (torch.from_numpy(found.indices.astype(np.int64)) == index)[~close].all()
    assert close.float().mean() < 0.2 or close.numel() < 30


@settings(deadline=None, max_examples=60)
@given(
    classes=st.integers(1, 9),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    most_values=st.integers(1, 300),
    seed=st.integers(0, 1000),
)
def test_pieces_of_any_size_give_the_whole(
    classes: int, grid: tuple[int, int], size: tuple[int, int], most_values: int, seed: int
) -> None:
    scores, decision = random_scores(classes, *grid, seed=seed), one_class_a_map(classes)
    found = assign_pixels(GridScores(scores, size), decision=decision, most_values=most_values)
    check(found, scores, size=size, decision=decision)


def test_where_memory_runs_out_half_as_much_is_done_at_once() -> None:
    scores, decision = GridScores(random_scores(5, 4, 3), (19, 13)), one_class_a_map(5)
    expected = assign_pixels(scores, decision=decision)
    asked: list[int] = []

    class Crowded(GridScores):
        def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
            asked.append(len(rows) * len(maps) * 13)
            if asked[-1] > 200:
                raise torch.OutOfMemoryError("too much")
            return super().rows(rows, maps=maps)

    found = assign_pixels(Crowded(scores.patches, (19, 13)), decision=decision)
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert max(asked) > 200 >= asked[-1]
    with pytest.raises(RuntimeError, match="another reason"):
        assign_pixels(Broken(scores.patches, (19, 13)), decision=decision)


class Broken(GridScores):
    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        raise RuntimeError("another reason")


@settings(deadline=None, max_examples=60)
@given(
    class_of=st.lists(st.integers(0, 3), min_size=4, max_size=9),
    threshold=st.sampled_from([0.0, 0.2, 0.3]),
    background_threshold=st.sampled_from([0.0, 0.15, 0.25, 0.4]),
    background=st.sampled_from([0, 2, 3]),
    most_values=st.integers(1, 300),
    seed=st.integers(0, 1000),
)
def test_words_and_thresholds(
    class_of: list[int], threshold: float, background_threshold: float, background: int, most_values: int, seed: int
) -> None:
    size = (19, 13)
    decision = PostprocessConfig(
        np.array(class_of),
        4,
        temperature=0.3,
        threshold=threshold,
        background_threshold=background_threshold,
        background=background,
    )
    scores = random_scores(len(class_of), 4, 3, seed=seed)
    found = assign_pixels(GridScores(scores, size), decision=decision, most_values=most_values)
    check(apply_thresholds(found, decision=decision), scores, size=size, decision=decision)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 5), (3, 3)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 30), (30, 1), (7, 5)])
def test_strip_is_a_part_of_the_whole(grid: tuple[int, int], size: tuple[int, int]) -> None:
    scores = random_scores(3, *grid)
    whole = functional.interpolate(scores[None].double(), size=size, mode="bilinear", align_corners=False)[0].float()
    for rows in (range(size[0]), range(size[0] // 2, size[0]), range(size[0] - 1, size[0])):
        found = GridScores(scores, size).rows(rows, maps=[2, 0])
        torch.testing.assert_close(found, whole[[2, 0], rows.start : rows.stop])


def test_cold_softmax_neither_overflows_nor_vanishes() -> None:
    scores = torch.tensor([-1.0, 1.0, 0.99]).reshape(3, 1, 1)
    for most_values in (2, 100):
        found = assign_pixels(
            GridScores(scores, (2, 2)), decision=one_class_a_map(3, temperature=0.001), most_values=most_values
        )
        assert found.indices.tolist() == [[1, 1], [1, 1]]
        assert found.confidence == pytest.approx(np.full((2, 2), 1 / (1 + np.exp(-10))), rel=1e-3)


@pytest.mark.parametrize("most_values", [3, 30, 1000])
def test_first_of_equal_classes_wins(most_values: int) -> None:
    scores = torch.zeros(5, 2, 2)
    scores[0] = -1
    decision = one_class_a_map(5, temperature=1.0)
    found = assign_pixels(GridScores(scores, (3, 3)), decision=decision, most_values=most_values)
    assert (found.indices == 1).all()


def test_the_least_difference_decides() -> None:
    scores = torch.full((200, 1, 1), 0.3)
    scores[7] = torch.nextafter(torch.tensor(0.3), torch.tensor(1.0))
    found = assign_pixels(GridScores(scores, (1, 1)), decision=one_class_a_map(200), most_values=10**6)
    assert found.indices.tolist() == [[7]]


def test_threshold_ignores_what_is_less_certain() -> None:
    scores = GridScores(random_scores(4, 5, 5), (20, 20))
    free = assign_pixels(scores, decision=one_class_a_map(4))
    held = apply_thresholds(free, decision=one_class_a_map(4, threshold=0.6))
    low = free.confidence < 0.6
    assert 0 < low.sum() < low.size
    assert (held.indices[low] == 255).all()
    assert (held.indices[~low] == free.indices[~low]).all()
    np.testing.assert_array_equal(held.confidence, free.confidence)


@pytest.mark.parametrize(
    ("classes", "kind", "ignore"), [(254, np.uint8, 255), (255, np.uint16, 65535), (600, np.uint16, 65535)]
)
def test_many_classes_use_sixteen_bits(classes: int, kind: type, ignore: int) -> None:
    scores = torch.zeros(classes, 2, 2)
    scores[-1, 0] = 1
    decision = one_class_a_map(classes, temperature=0.01, threshold=0.5)
    found = apply_thresholds(assign_pixels(GridScores(scores, (2, 2)), decision=decision), decision=decision)
    assert found.indices.dtype == kind
    assert found.indices.tolist() == [[classes - 1] * 2, [ignore] * 2]


def test_memory_does_not_grow_with_classes_and_pixels() -> None:
    largest = 0

    class Watching(GridScores):
        def rows(self, rows: range, *, maps: range) -> Tensor:  # type: ignore[override]
            nonlocal largest
            part = super().rows(rows, maps=maps)
            largest = max(largest, part.numel())
            return part

    for classes, size in ((3, (40, 40)), (90, (40, 40)), (90, (200, 90))):
        scores = Watching(torch.zeros(classes, 3, 3), size)
        assign_pixels(scores, decision=one_class_a_map(classes), most_values=1000)
    assert 500 < largest <= 1000
