"""Fusion against a reference that goes pixel by pixel."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import pytest

from patchword.data.masks import Segment
from patchword.errors import PatchwordError
from patchword.labeling.image import fuse

NAMES = ("cat", "dog", "sofa")


def claim(mask: np.ndarray, index: int, score: float, generator: str = "clip-prompts-sam") -> Segment:
    return Segment.from_mask(
        mask,
        class_index=index,
        class_name=NAMES[index] if index < len(NAMES) else str(index),
        score=score,
        predicted_iou=1.0,
        similarity=score,
        generator=generator,
    )


def naive_fuse(segments: list[Segment], size: tuple[int, int], margin: float, rule: str = "highest") -> np.ndarray:
    result = np.full(size, 255)
    masks = [segment.mask() for segment in segments]
    for pixel in np.ndindex(size):
        highest: dict[tuple[int, str], float] = {}
        for segment, mask in zip(segments, masks, strict=True):
            if mask[pixel]:
                key = (segment.class_index, segment.generator)
                highest[key] = max(highest.get(key, 0.0), segment.score)
        best: dict[int, float] = {}
        for (index, _), score in highest.items():
            known = best.get(index, 0.0)
            best[index] = known + score if rule == "sum" else max(known, score)
        ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))
        if len(ranked) == 1 or (len(ranked) > 1 and ranked[0][1] - ranked[1][1] >= margin):
            result[pixel] = ranked[0][0]
    return result


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_naive_way_in_any_order(seed: int, margin: float) -> None:
    generator = np.random.default_rng(seed)
    size = (6, 9)
    segments = [
        claim(generator.random(size) < 0.4, int(generator.integers(3)), float(generator.integers(8)) / 8)
        for _ in range(int(generator.integers(1, 9)))
    ]
    expected = naive_fuse(segments, size, margin)
    for _ in range(3):
        fused = fuse(segments, size=size, names=NAMES, margin=margin)
        np.testing.assert_array_equal(fused.indices, expected)
        random.Random(seed).shuffle(segments)
    assert len(np.unique(expected)) > 1  # the case says something


@pytest.mark.parametrize("rule", ["highest", "sum"])
@pytest.mark.parametrize("margin", [0.0, 0.125, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_rules_of_several_generators_agree_with_the_naive_way(
    seed: int, margin: float, rule: Literal["highest", "sum"]
) -> None:
    generator = np.random.default_rng(seed)
    size = (6, 9)
    segments = [
        claim(
            generator.random(size) < 0.4,
            int(generator.integers(3)),
            float(generator.integers(8)) / 8,  # a score of 0 is a claim too
            generator=str(generator.choice(["one", "two"])),
        )
        for _ in range(9)
    ]
    expected = naive_fuse(segments, size, margin, rule)
    for _ in range(3):
        fused = fuse(segments, size=size, names=NAMES, margin=margin, rule=rule)
        np.testing.assert_array_equal(fused.indices, expected)
        random.Random(seed).shuffle(segments)


def test_by_the_sum_two_that_agree_outweigh_one_that_is_surer() -> None:
    whole = np.ones((1, 1), dtype=bool)
    claims = [claim(whole, 0, 0.6, generator="one"), claim(whole, 1, 0.4, generator="one")]
    claims.append(claim(whole, 1, 0.4, generator="two"))
    assert fuse(claims, size=(1, 1), names=NAMES, margin=0.02).indices.tolist() == [[0]]
    assert fuse(claims, size=(1, 1), names=NAMES, margin=0.02, rule="sum").indices.tolist() == [[1]]


def test_pixels_nobody_claims_are_ignored() -> None:
    fused = fuse([], size=(2, 3), names=NAMES, margin=0.02)
    assert (fused.indices == fused.ignore).all()
    assert fused.indices.shape == (2, 3)


def test_a_close_call_is_ignored_and_a_clear_one_is_not() -> None:
    whole = np.ones((1, 2), dtype=bool)
    left = np.array([[True, False]])
    close = fuse([claim(whole, 0, 0.50), claim(left, 1, 0.49)], size=(1, 2), names=NAMES, margin=0.02)
    assert close.indices.tolist() == [[255, 0]]
    clear = fuse([claim(whole, 0, 0.50), claim(left, 1, 0.47)], size=(1, 2), names=NAMES, margin=0.02)
    assert clear.indices.tolist() == [[0, 0]]


def test_generators_compete_on_score_alone() -> None:
    whole = np.ones((1, 1), dtype=bool)
    claims = [claim(whole, 0, 0.5), claim(whole, 2, 0.9, generator="another")]
    assert fuse(claims, size=(1, 1), names=NAMES, margin=0.02).indices.tolist() == [[2]]


def test_many_classes_are_kept_in_16_bits() -> None:
    names = tuple(f"class {index}" for index in range(500))
    left = np.array([[True, False]])
    fused = fuse([claim(left, 499, 0.9)], size=(1, 2), names=names, margin=0.02)
    assert fused.indices.dtype == np.uint16
    assert fused.indices.tolist() == [[499, 65535]]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(PatchwordError, match=r"cat.*\(2, 2\).*\(3, 3\)"):
        fuse([claim(np.ones((2, 2), dtype=bool), 0, 0.9)], size=(3, 3), names=NAMES, margin=0.02)
