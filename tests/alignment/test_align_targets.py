"""Patch labels against a loop over pixels."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchword.alignment.data import patch_labels
from patchword.errors import PatchwordError

IGNORE = 255


def naive(indices: Tensor, *, grid: tuple[int, int], majority: float) -> list[list[int]]:
    height, width = indices.shape
    rows, columns = grid
    tall, wide = -(-rows // height), -(-columns // width)  # whole factors of enlargement
    members: dict[tuple[int, int], list[int]] = {}
    for y in range(height * tall):
        for x in range(width * wide):
            row = int((Fraction(2 * y + 1, 2)) * rows / (height * tall))
            column = int((Fraction(2 * x + 1, 2)) * columns / (width * wide))
            members.setdefault((row, column), []).append(int(indices[y // tall, x // wide]))
    labels = []
    for row in range(rows):
        line = []
        for column in range(columns):
            pixels = members[row, column]
            counts = Counter(value for value in pixels if value != IGNORE)
            best = min(counts, key=lambda value: (-counts[value], value)) if counts else -1
            line.append(best if best >= 0 and counts[best] >= majority * len(pixels) else -1)
        labels.append(line)
    return labels


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    majority=st.sampled_from([0.3, 0.5, 0.6, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_size_agrees_with_the_loop(
    height: int, width: int, rows: int, columns: int, majority: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([0, 1, 2, IGNORE])
    indices = values[torch.randint(0, 4, (height, width), generator=generator)]
    found = patch_labels(indices, ignore=IGNORE, classes=3, grid=(rows, columns), majority=majority)
    assert found.tolist() == naive(indices, grid=(rows, columns), majority=majority)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([1, 1, 1, 2, 2], 1),  # exactly 60 %
        ([1, 1, 2, 2, 0], -1),
        ([1, 1, 1, IGNORE, IGNORE], 1),
        ([1, 1, IGNORE, IGNORE, IGNORE], -1),  # ignored pixels count in the whole
        ([IGNORE] * 5, -1),
    ],
)
def test_majority_is_of_all_pixels(pixels: list[int], expected: int) -> None:
    found = patch_labels(torch.tensor([pixels]), ignore=IGNORE, classes=3, grid=(1, 1), majority=0.6)
    assert found.tolist() == [[expected]]


def test_sixteen_bit_maps() -> None:
    indices = torch.full((4, 4), 65535)
    indices[:2, :2] = 300
    found = patch_labels(indices, ignore=65535, classes=400, grid=(2, 2), majority=0.6)
    assert found.tolist() == [[300, -1], [-1, -1]]


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_a_value_that_is_no_class_is_refused(wrong: int) -> None:
    indices = torch.tensor([[0, wrong], [1, IGNORE]])
    with pytest.raises(PatchwordError, match=f"value {wrong}; values must be 0 to 2, or 255"):
        patch_labels(indices, ignore=IGNORE, classes=3, grid=(1, 1), majority=0.6)
