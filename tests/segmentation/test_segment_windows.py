"""Windows: where they lie, at which size images are seen, and how windows become one, against naive code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError
from patchword.segmentation.scores import PixelScores, WindowScores
from patchword.segmentation.sliding_window import (
    FeatureMerge,
    WindowMerge,
    WindowPlan,
    check_window,
    inference_windows,
    plan_windows,
    with_class_prior,
)

SIDE = st.integers(1, 60)


def starts_of_mmseg(size: tuple[int, int], *, window: int, stride: int) -> list[tuple[int, int, int, int]]:
    """The loops of `slide_inference`, as they are written there."""
    height, width = size
    rows = max(height - window + stride - 1, 0) // stride + 1
    columns = max(width - window + stride - 1, 0) // stride + 1
    found = []
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            found.append((max(bottom - window, 0), max(right - window, 0), bottom, right))
    return found


def naive_logits(windows: Tensor, *, plan: WindowPlan, size: tuple[int, int]) -> Tensor:
    """Every window (windows, n, h, w) upsampled, summed, divided by the count, and that to the image, all in full."""
    total = torch.zeros(windows.shape[1], *plan.size, dtype=torch.float64)
    count = torch.zeros(plan.size, dtype=torch.float64)
    for place, one in enumerate(windows.double()):
        top, left = plan.start(place)
        inside = (..., slice(top, top + plan.window[0]), slice(left, left + plan.window[1]))
        total[inside] += functional.interpolate(one[None], size=plan.window, mode="bilinear", align_corners=False)[0]
        count[inside] += 1
    return functional.interpolate((total / count)[None], size=size, mode="bilinear", align_corners=False)[0]


def everything(scores: PixelScores, *, rows_at_once: int = 7) -> Tensor:
    strips = [
        scores.rows(range(top, min(top + rows_at_once, scores.size[0])), maps=range(scores.count))
        for top in range(0, scores.size[0], rows_at_once)
    ]
    return torch.cat(strips, dim=1)


class TestPlan:
    @given(height=SIDE, width=SIDE, window=SIDE, stride=SIDE)
    def test_windows_are_those_of_sliding_evaluation(self, height: int, width: int, window: int, stride: int) -> None:
        stride = min(stride, window)
        plan = plan_windows((height, width), window=window, stride=stride)
        corners = [(*plan.start(place),) for place in range(len(plan))]
        expected = starts_of_mmseg((height, width), window=window, stride=stride)
        assert [(top, left, top + plan.window[0], left + plan.window[1]) for top, left in corners] == expected
        covered = np.zeros((height, width), dtype=bool)
        for top, left, bottom, right in expected:
            covered[top:bottom, left:right] = True
        assert covered.all()

    def test_window_larger_than_the_image_is_the_image(self) -> None:
        assert plan_windows((5, 9), window=12, stride=3) == WindowPlan((5, 9), (5, 9), (0,), (0,))
        assert plan_windows((5, 30), window=12, stride=9) == WindowPlan((5, 30), (5, 12), (0,), (0, 9, 18))

    def test_crop_is_the_window(self) -> None:
        plan = plan_windows((5, 7), window=3, stride=2)
        image = torch.arange(35).reshape(1, 1, 5, 7)
        assert plan.start(4) == (2, 2)
        assert plan.crop(image, 4).tolist() == [[[[16, 17, 18], [23, 24, 25], [30, 31, 32]]]]

    @pytest.mark.parametrize("stride", [0, 5])
    def test_stride_beyond_the_window_is_refused(self, stride: int) -> None:
        with pytest.raises(PatchwordError, match=f"stride is {stride}; it must be 1 to the window.s side"):
            plan_windows((9, 9), window=4, stride=stride)


class TestSeeing:
    @pytest.mark.parametrize(
        ("size", "options", "seen", "window", "count"),
        [
            ((480, 640), {}, (448, 602), (448, 602), 1),
            ((480, 640), {"image_size": 224}, (196, 252), (196, 252), 1),
            ((480, 640), {"shorter_side": 448}, (448, 602), (448, 602), 1),  # 597.3 pixels, 42.7 patches
            ((640, 480), {"shorter_side": 448, "longest_side": 448}, (448, 336), (448, 336), 1),
            # mmsegmentation: 336 x 448; windows of whole patches keep both sides
            ((480, 640), {"shorter_side": 336, "window": 224, "stride": 112, "join": "logits"}, (336, 448),
             (224,) * 2, 6),
            # 333 x 500 pixels of VOC -> 336 x 504.5 -> half up
            ((333, 500), {"shorter_side": 336, "window": 224, "stride": 112, "join": "logits"}, (336, 505),
             (224,) * 2, 8),
            ((333, 500), {"shorter_side": 336, "window": 224, "stride": 115}, (336, 504), (224,) * 2, 8),  # stride 112
            # a side shorter than the window becomes whole patches
            ((100, 2000), {"shorter_side": 448, "longest_side": 2048, "window": 448, "join": "logits"}, (98, 2048),
             (98, 448), 9),
            ((3, 3), {"shorter_side": 5}, (14, 14), (14, 14), 1),
        ],
    )  # fmt: skip
    def test_sizes(
        self, size: tuple[int, int], options: dict[str, Any], seen: tuple[int, int], window: tuple[int, int], count: int
    ) -> None:
        plan = inference_windows(size, settings=SegmentSettings(**options), image_size=518, patch_size=14)
        assert (plan.size, plan.window, len(plan)) == (seen, window, count)

    @given(
        size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
        shorter=st.one_of(st.none(), st.integers(1, 300)),
        window=st.one_of(st.none(), st.integers(1, 9).map(lambda patches: 14 * patches)),
        stride=st.integers(1, 126),
        join=st.sampled_from(["features", "logits"]),
    )
    @settings(deadline=None)
    def test_models_see_whole_patches(
        self, size: tuple[int, int], shorter: int | None, window: int | None, stride: int, join: str
    ) -> None:
        steps = None if window is None else min(stride, window)
        chosen = SegmentSettings(shorter_side=shorter, window=window, stride=steps, join=join)
        plan = inference_windows(size, settings=chosen, image_size=56, patch_size=14)
        assert all(side % 14 == 0 for side in plan.window)
        if join == "features":
            assert all(side % 14 == 0 for side in (*plan.size, *plan.rows, *plan.columns))

    @pytest.mark.parametrize(("window", "near"), [(100, "98 and 112"), (5, "14")])
    def test_window_of_broken_patches_is_refused(self, window: int, near: str) -> None:
        with pytest.raises(PatchwordError, match=f"window is {window}; .* patch size .14., such as {near}$"):
            check_window(SegmentSettings(window=window), patch_size=14)
        check_window(SegmentSettings(window=112), patch_size=14)


class TestJoin:
    @settings(deadline=None, max_examples=80)
    @given(
        seen=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        window=st.integers(1, 6).map(lambda patches: 4 * patches),
        stride=st.integers(1, 24),
        size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
        seed=st.integers(0, 1000),
    )
    def test_logits_are_averaged_as_in_full(
        self, seen: tuple[int, int], window: int, stride: int, size: tuple[int, int], seed: int
    ) -> None:
        plan = plan_windows(seen, window=window, stride=min(stride, window))
        cells = [max(1, side // 4) for side in plan.window]
        windows = torch.randn(len(plan), 3, *cells, generator=torch.Generator().manual_seed(seed))
        join = WindowMerge(plan)
        for place in torch.randperm(len(plan)).tolist():  # in any order
            join.add(place, windows[place])
        scores = WindowScores(torch.stack(join.kept()), plan=plan, size=size)
        assert scores.size == size
        expected = naive_logits(windows, plan=plan, size=size).float()
        torch.testing.assert_close(everything(scores), expected, rtol=1e-5, atol=1e-5)

    @settings(deadline=None, max_examples=60)
    @given(
        grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
        window=st.integers(1, 8),
        stride=st.integers(1, 8),
        seed=st.integers(0, 1000),
    )
    def test_features_are_averaged_patch_by_patch(
        self, grid: tuple[int, int], window: int, stride: int, seed: int
    ) -> None:
        plan = plan_windows((4 * grid[0], 4 * grid[1]), window=4 * window, stride=4 * min(stride, window))
        cells = [side // 4 for side in plan.window]
        random = torch.Generator().manual_seed(seed)
        windows = functional.normalize(torch.randn(len(plan), 5, *cells, generator=random), dim=1)
        total, count = torch.zeros(5, *grid), torch.zeros(grid)
        for place, one in enumerate(windows):
            top, left = (start // 4 for start in plan.start(place))
            total[:, top : top + cells[0], left : left + cells[1]] += one
            count[top : top + cells[0], left : left + cells[1]] += 1
        expected = functional.normalize(total / count, dim=0)
        join = FeatureMerge(plan, patch_size=4)
        for place, one in enumerate(windows):
            join.add(place, one.clone())
        (whole,) = join.kept()
        torch.testing.assert_close(whole, expected)

    @pytest.mark.parametrize("seen", [(16, 16), (20, 41), (63, 17), (8, 8)])
    def test_constant_windows_give_a_constant(self, seen: tuple[int, int]) -> None:
        plan = plan_windows(seen, window=16, stride=6)
        join = WindowMerge(plan)
        for place in range(len(plan)):
            join.add(place, torch.tensor([0.25, -3.0])[:, None, None].expand(2, 4, 4))
        values = everything(WindowScores(torch.stack(join.kept()), plan=plan, size=(37, 29)))
        torch.testing.assert_close(values, torch.tensor([0.25, -3.0])[:, None, None].expand(2, 37, 29))


class TestClassPrior:
    def test_the_share_of_the_whole_image_is_added_to_every_window(self) -> None:
        random = torch.Generator().manual_seed(0)
        windows = [torch.rand(3, 4, 5, generator=random), torch.rand(3, 2, 5, generator=random)]
        found = with_class_prior(windows, weight=-0.5, temperature=0.2)
        shares = [0.0, 0.0, 0.0]
        for window in windows:
            for patch in window.flatten(1).T.tolist():
                odds = [math.exp(score / 0.2) for score in patch]
                shares = [share + one / sum(odds) / 30 for share, one in zip(shares, odds, strict=True)]
        for before, after in zip(windows, found, strict=True):
            for index, share in enumerate(shares):
                torch.testing.assert_close(after[index], before[index] - 0.5 * 0.2 * math.log(share))

    def test_the_sign_says_who_is_favoured_and_a_class_that_is_nowhere_stays_finite(self) -> None:
        scores = torch.tensor([0.5, 0.5, -1e4]).reshape(3, 1, 1).repeat(1, 4, 4)
        scores[0, :3] = 0.6  # the first class seems to fill most of the image
        for weight, first in ((1.0, True), (-1.0, False)):
            (found,) = with_class_prior([scores], weight=weight, temperature=0.1)
            assert bool(found[0, 3, 3] > found[1, 3, 3]) is first
            assert torch.isfinite(found).all()
