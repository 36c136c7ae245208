"""The tests of open vocabulary: what is true of a scene under other words."""

from __future__ import annotations

import numpy as np
import pytest

from patchword.toytown.classes import CLASSES, KINDS, SEEN, SYNONYMS, UNSEEN
from patchword.toytown.world import draw_scene
from tools.open_vocabulary import Words, _chance, word_tests

TESTS = {test.title: test for test in word_tests()}


def expected_name(title: str, name: str, pattern: str) -> str | None:
    """What a pixel of a class, on a thing with a pattern, is called in a test; None where it does not count."""
    if title != "new things" and name in UNSEEN:
        return None
    if title == "synonyms":
        return SYNONYMS.get(name, name)
    if title == "kinds":
        return next((kind for kind, members in KINDS.items() if name in members), name)
    if title == "new combinations" and pattern in ("striped", "spotted"):
        return f"{pattern} {name}"
    return name


@pytest.mark.parametrize("title", TESTS)
def test_truth_agrees_with_every_pixel_named_one_by_one(title: str) -> None:
    test = TESTS[title]
    for seed in range(3):
        scene = draw_scene(seed, size=48)
        patterns = {thing.instance: thing.pattern for thing in scene.things}
        found = test.truth(scene)
        for row, column in np.ndindex(found.shape):
            pattern = patterns.get(int(scene.instances[row, column]), "")
            name = expected_name(title, CLASSES[scene.classes[row, column]], pattern)
            assert found[row, column] == (255 if name is None else test.names.index(name))


@pytest.mark.parametrize("title", TESTS)
def test_no_new_word_is_a_class_that_labelling_knew(title: str) -> None:
    assert not set(TESTS[title].new) & set(SEEN)
    assert set(TESTS[title].new) <= set(TESTS[title].names)


def test_chance_agrees_with_drawing_names() -> None:
    words = Words("drawn", ("a", "b", "c", "d"), ("c", "d"), lambda scene: scene.classes)
    counts = np.array([600_000.0, 250_000.0, 100_000.0, 50_000.0])
    truth = np.repeat(np.arange(4), counts.astype(int))
    guess = np.random.default_rng(0).integers(4, size=len(truth))
    ious = [100 * np.mean((truth == k) & (guess == k)) / np.mean((truth == k) | (guess == k)) for k in (2, 3)]
    assert _chance(counts, words) == pytest.approx(np.mean(ious), abs=0.2)
