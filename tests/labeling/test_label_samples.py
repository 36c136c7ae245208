"""Masks at points equal the decoded masks there, whatever the mask and the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.data.run_lengths import Runs, run_counts, run_lengths
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import cell_shares, run_shares
from patchword.labeling.quality.assess import Lattice


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side=st.integers(1, 100),
    share=st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]),
    block=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_masks_at_points_are_the_decoded_masks_there(
    height: int, width: int, side: int, share: float, block: int, seed: int
) -> None:
    rows, columns = -(-height // block), -(-width // block)
    coarse = np.random.default_rng(seed).random((rows, columns)) < share
    mask = coarse.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    lattice = Lattice.over(mask.shape, side=side)
    runs = Runs.of(run_lengths(mask))
    found = runs.at(lattice.rows, lattice.columns)
    np.testing.assert_array_equal(found, mask[np.ix_(lattice.rows, lattice.columns)])
    assert found.shape == lattice.shape == (min(height, side), min(width, side))
    np.testing.assert_array_equal(runs.whole(), mask)
    assert runs.run_lengths() == run_lengths(mask)
    assert runs.area == mask.sum()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows):
        top, left = int(rows[0]), int(columns[0])
        assert runs.box == (left, top, columns[-1] + 1 - left, rows[-1] + 1 - top)
        part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
        assert Runs.within(part, top=top, left=left, size=mask.shape) == runs
    for grid in ((2, 3), (64, 64)):
        expected = cell_shares(torch.from_numpy(mask)[None], grid=grid)[0]
        assert torch.equal(run_shares(runs, grid=grid), expected)


def test_long_runs_of_many_digits() -> None:
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[:, 500:1500] = True
    mask[7, 900] = False
    assert run_counts(run_lengths(mask)["counts"]).tolist() == [1500000, 1200007, 1, 1799992, 1500000]


def test_a_lattice_is_every_pixel_or_evenly_spread() -> None:
    assert Lattice.over((3, 5), side=8).columns.tolist() == [0, 1, 2, 3, 4]
    assert Lattice.over((12, 9), side=3).rows.tolist() == [2, 6, 10]
    assert Lattice.inside((10, 20, 4, 2), side=2).columns.tolist() == [11, 13]
    assert Lattice.inside((10, 20, 4, 2), side=2).rows.tolist() == [20, 21]


def test_the_window_of_a_box_holds_the_points_inside_it() -> None:
    lattice = Lattice.over((100, 100), side=10)  # 5, 15, 25, ...
    rows, columns = lattice.window((15, 24, 11, 2))
    assert lattice.columns[columns].tolist() == [15, 25]
    assert lattice.rows[rows].tolist() == [25]
    empty = lattice.window((6, 6, 3, 3))
    assert lattice.rows[empty[0]].size == 0


@pytest.mark.parametrize("counts", ["", "\x01", "~~", "T", "1", "é1"])
def test_damaged_run_lengths(counts: str) -> None:
    with pytest.raises(PatchwordError, match="damaged"):
        Runs.of({"size": [4, 4], "counts": counts})
