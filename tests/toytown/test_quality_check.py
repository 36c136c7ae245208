"""The rank correlation equals a slow reference, and the check reads scores and exact masks as it says."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.labeling.quality.records import QualityParts, QualityRecord
from patchword.toytown.quality_check import bootstrap, check_quality, fifths, ranks, spearman, true_scores

NAMES = ("cat", "dog")


def reference(first: list[float], second: list[float]) -> float | None:
    """Every rank by counting; Pearson's correlation of them by its definition."""

    def rank(values: list[float]) -> list[float]:
        return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]

    one, other = rank(first), rank(second)
    mean = (len(one) - 1) / 2
    above = sum((x - mean) * (y - mean) for x, y in zip(one, other, strict=True))
    below = sum((x - mean) ** 2 for x in one) * sum((y - mean) ** 2 for y in other)
    return above / math.sqrt(below) if below else None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
@settings(deadline=None)
def test_spearman_is_that_of_the_slow_reference(pairs: list[tuple[int, int]]) -> None:
    first, second = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    expected = reference(first, second)
    found = spearman(np.array(first), np.array(second))
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found == pytest.approx(expected, abs=1e-12)


def test_ranks_fifths_and_the_interval() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [1.5, 0, 1.5, 3]
    values = np.arange(10.0)
    assert fifths(values, values * 10) == (5, 85)
    assert spearman(values, -(values**3)) == -1
    assert bootstrap(values, values, resamples=50, seed=0) == pytest.approx((1, 1))
    noisy = values + np.array([3, -2, 0, 4, -4, 1, -1, 2, -3, 0])
    low, high = bootstrap(values, noisy, resamples=300, seed=0)
    found = spearman(values, noisy)
    assert found is not None
    assert low < found < high


def record(name: str, score: float) -> QualityRecord:
    return QualityRecord(
        name=name,
        score=score,
        parts=QualityParts(class_agreement=None, pixel_agreement=None, coverage=score, detection=1.0),
        contested=1 - score,
        margin=None,
        stability=0.5,
        entropy=0.5,
        detection_entropy=0.5,
        size=(1, 10),
        pixels={},
        masks=(),
    )


def scenes(folder: Path, right: list[int]) -> Any:
    """Images of ten pixels, of which the first so many are labelled rightly; exact masks beside them."""
    items, records = [], []
    for number, count in enumerate(right):
        name = f"{number}.png"
        for place in ("labels", "exact"):
            (folder / place).mkdir(exist_ok=True)
        LabelMap(np.array([[0] * 10], dtype=np.uint8), NAMES).save(folder / "exact" / f"{name}.png")
        LabelMap(np.array([[0] * count + [255] * (10 - count)]), NAMES).save(folder / "labels" / f"{name}.png")
        items.append(SimpleNamespace(label_map=folder / "labels" / f"{name}.png"))
        records.append(record(name, count / 20))
    vocabulary = SimpleNamespace(names=NAMES)
    return SimpleNamespace(items=items, quality=lambda: iter(records), vocabulary=vocabulary)


def test_a_score_that_knows_is_told(tmp_path: Path) -> None:
    found = check_quality(scenes(tmp_path, [1, 5, 3, 9, 7]), masks=tmp_path / "exact", resamples=20)
    assert found.images == 5
    assert found.miou == pytest.approx(0.5)
    assert found.score.spearman == pytest.approx(1)
    assert (found.score.worst_fifth, found.score.best_fifth) == pytest.approx((0.1, 0.9))
    assert found.parts["contested"].spearman == pytest.approx(1)
    assert found.parts["stability"].spearman is None
    assert "class_agreement" not in found.parts
    assert "margin" not in found.parts


def test_images_without_truth_are_left_out(tmp_path: Path) -> None:
    labels = scenes(tmp_path, [1, 5, 3, 9, 7])
    LabelMap(np.full((1, 10), 255), NAMES).save(tmp_path / "exact" / "2.png.png")
    assert true_scores(labels.items[2].label_map, tmp_path / "exact" / "2.png.png", names=NAMES) is None
    with pytest.raises(PatchwordError, match="4 images have exact masks"):
        check_quality(labels, masks=tmp_path / "exact")
