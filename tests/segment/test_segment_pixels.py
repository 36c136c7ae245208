"""Classes of pixels, in pieces of any size, against upsampling everything at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from patchword.segment.pixels import assign_pixels
from patchword.segment.scores import GridScores, upsample_rows


def naive(scores: Tensor, *, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
    full = functional.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    confidence, index = (full / temperature).softmax(dim=0).max(dim=0)
    return index, confidence


def random_scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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
    scores = random_scores(classes, *grid, seed=seed)
    found = assign_pixels(GridScores(scores, size), temperature=0.07, most_values=most_values)
    index, confidence = naive(scores, size=size, temperature=0.07)
    assert found.indices.tolist() == index.tolist()
    np.testing.assert_allclose(found.confidence, confidence.numpy(), rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 5), (3, 3)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 30), (30, 1), (7, 5)])
def test_strip_is_a_part_of_the_whole(grid: tuple[int, int], size: tuple[int, int]) -> None:
    scores = random_scores(3, *grid)
    whole = functional.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    for rows in (range(size[0]), range(size[0] // 2, size[0]), range(size[0] - 1, size[0])):
        torch.testing.assert_close(upsample_rows(scores, rows=rows, size=size), whole[:, rows.start : rows.stop])


def test_float32_agrees_in_confidence() -> None:
    scores = random_scores(20, 9, 7)
    found = assign_pixels(GridScores(scores.float(), (50, 41)), temperature=0.05, most_values=97)
    _, confidence = naive(scores, size=(50, 41), temperature=0.05)
    np.testing.assert_allclose(found.confidence, confidence.numpy(), rtol=1e-4)


def test_cold_softmax_neither_overflows_nor_vanishes() -> None:
    scores = torch.tensor([-1.0, 1.0, 0.99]).reshape(3, 1, 1)
    found = assign_pixels(GridScores(scores, (2, 2)), temperature=0.001, most_values=2)
    assert found.indices.tolist() == [[1, 1], [1, 1]]
    assert found.confidence == pytest.approx(np.full((2, 2), 1 / (1 + np.exp(-10))), rel=1e-3)


def test_first_of_equal_classes_wins_across_pieces() -> None:
    scores = torch.zeros(5, 2, 2)
    found = assign_pixels(GridScores(scores, (3, 3)), temperature=1.0, most_values=3)
    assert found.indices.max() == 0
    assert found.confidence == pytest.approx(np.full((3, 3), 0.2))


def test_threshold_ignores_what_is_less_certain() -> None:
    scores = random_scores(4, 5, 5)
    free = assign_pixels(GridScores(scores, (20, 20)), temperature=0.1)
    held = assign_pixels(GridScores(scores, (20, 20)), temperature=0.1, threshold=0.6)
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
    found = assign_pixels(GridScores(scores, (2, 2)), temperature=0.01, threshold=0.5)
    assert found.indices.dtype == kind
    assert found.indices.tolist() == [[classes - 1] * 2, [ignore] * 2]


def test_memory_does_not_grow_with_classes_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = upsample_rows

    def watching(scores: Tensor, *, rows: range, size: tuple[int, int]) -> Tensor:
        nonlocal largest
        part = original(scores, rows=rows, size=size)
        largest = max(largest, part.numel())
        return part

    monkeypatch.setattr("patchword.segment.scores.upsample_rows", watching)
    for classes, size in ((3, (40, 40)), (90, (40, 40)), (90, (200, 90))):
        assign_pixels(GridScores(torch.zeros(classes, 3, 3), size), temperature=1.0, most_values=1000)
    assert largest <= 1000
