"""Captions name what is there, the large before the small, and not everything."""

from __future__ import annotations

import re

import numpy as np
import pytest

from patchword.toytown.classes import CLASSES, COLOURS, KINDS, PATTERNS, SYNONYMS
from patchword.toytown.painting import Placed
from patchword.toytown.surfaces import STUFF
from patchword.toytown.world import Scene, draw_scene
from tools.miniatures.captions import caption, describe

Window = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, size=96) for seed in range(60)]


def phrases(text: str) -> list[tuple[str, str | None]]:
    """Noun and colour of every phrase of a description."""
    found = []
    for phrase in re.split(r", | and ", text):
        words = re.sub(r" (in|on) the \w+$", "", phrase).split()
        colour = next((word for word in words[:-1] if word in COLOURS), None)
        assert set(words[:-1]) <= {"a", "an", "the", "small", "large", *PATTERNS, colour}, phrase
        assert words[-1] in {*CLASSES, *KINDS, *SYNONYMS.values()}, phrase
        found.append((words[-1], colour))
    return found


def meant(word: str) -> set[str]:
    """The classes that a noun may stand for."""
    return {word, *KINDS.get(word, ()), *(name for name, said in SYNONYMS.items() if said == word)} & set(CLASSES)


def shown(scene: Scene, window: Window) -> dict[tuple[str, str], float]:
    """Share of a window that the largest region or thing of each class and colour fills."""
    left, top, width, height = window
    inside = scene.instances[top : top + height, left : left + width]
    named = [(name, colour, number) for number, (name, colour) in enumerate(scene.stuff, start=1)]
    named += [(thing.name, thing.colour, thing.instance) for thing in scene.things]
    shares: dict[tuple[str, str], float] = {}
    for name, colour, number in named:
        shares[name, colour] = max(shares.get((name, colour), 0), float((inside == number).mean()))
    return shares


def test_only_what_is_visible_in_the_window_is_named(scenes: list[Scene]) -> None:
    generator = np.random.default_rng(0)
    windows: list[Window] = [(0, 0, 96, 96), (0, 48, 96, 48), (30, 40, 40, 30), (5, 5, 24, 24)]
    with_colour = 0
    for scene in scenes:
        for window in windows:
            text = describe(scene, generator=generator, window=window, most=4)
            shares = shown(scene, window)
            for name, colour in phrases(text) if text else []:
                named = meant(name)
                least = 0.05 if named <= {stuff.name for stuff in STUFF} else 0.01
                fits = [share for (other, of), share in shares.items() if other in named and colour in (None, of)]
                assert max(fits) >= least, (text, shares)
                with_colour += colour is not None
    assert with_colour > 50


def test_without_a_window_the_whole_scene_is_described(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        whole = describe(scene, generator=np.random.default_rng(3))
        assert whole == describe(scene, generator=np.random.default_rng(3), window=(0, 0, 96, 96))


def test_not_everything_is_named(scenes: list[Scene]) -> None:
    generator = np.random.default_rng(1)
    named, visible = 0, 0
    counts = []
    for scene in scenes:
        text = describe(scene, generator=generator)
        counts.append(len(phrases(text)))
        named += len({name for name, _ in phrases(text)})
        visible += len(np.unique(scene.classes))
    assert 0.1 < named / visible < 0.6
    assert set(counts) == {1, 2, 3}


@pytest.mark.parametrize("most", [1, 2, 4])
def test_at_most_so_many_phrases(scenes: list[Scene], most: int) -> None:
    generator = np.random.default_rng(2)
    counts = {len(phrases(describe(scene, generator=generator, most=most))) for scene in scenes}
    assert counts == set(range(1, most + 1))


def made_scene() -> Scene:
    """Grass above, sand below; a large red car to the right, a small blue ball to the left."""
    instances = np.ones((40, 60), np.uint8)
    instances[20:] = 2
    instances[10:30, 35:55] = 3
    instances[25:31, 5:11] = 4
    order = np.array([0, *(CLASSES.index(name) for name in ("grass", "sand", "car", "ball"))], np.uint8)
    things = (
        Placed("car", "red", 3, 400, (35, 10, 20, 20)),
        Placed("ball", "blue", 4, 36, (5, 25, 6, 6), "striped", "sand"),
    )
    image = np.zeros((40, 60, 3), np.uint8)
    return Scene(image, order[instances], instances, things, (("grass", "green"), ("sand", "yellow")))


def named_in(window: Window, *, most: int = 4, draws: int = 200) -> dict[str, int]:
    generator = np.random.default_rng(0)
    texts = [describe(made_scene(), generator=generator, window=window, most=most) for _ in range(draws)]
    names = [name for text in texts if text for name, _ in phrases(text)]
    plain = {said: name for name, said in SYNONYMS.items()} | {"vehicle": "car"}
    classes = [plain.get(name, name) for name in names]
    return {name: classes.count(name) for name in sorted(set(classes))}


def test_a_window_sees_its_own_part() -> None:
    assert named_in((0, 0, 30, 20)).keys() == {"grass"}
    assert named_in((0, 20, 30, 20)).keys() == {"ball", "sand"}
    assert named_in((30, 0, 30, 40)).keys() == {"car", "grass", "sand"}
    assert named_in((36, 11, 18, 18)).keys() == {"car"}


def test_a_sliver_of_a_thing_is_not_named() -> None:
    assert named_in((35, 10, 20, 6)) == {}
    assert named_in((35, 10, 20, 8)).keys() == {"car"}


def test_the_large_is_likelier_named_than_the_small() -> None:
    counts = named_in((0, 0, 60, 40), most=1, draws=1500)
    assert counts["car"] > counts["grass"] > counts["ball"] > 0
    # Weights are areas, a fifth of them for stuff: 400, 36, 1000 / 5 and 964 / 5.
    total = 400 + 36 + 200 + 964 / 5
    assert counts["car"] / 1500 == pytest.approx(400 / total, abs=0.05)
    assert counts["ball"] / 1500 == pytest.approx(36 / total, abs=0.02)


def test_sizes_are_told_by_the_share_of_the_window() -> None:
    generator = np.random.default_rng(0)
    texts = " ".join(describe(made_scene(), generator=generator, most=4) for _ in range(300))
    assert "large car" in texts or "large red car" in texts
    assert "small ball" in texts or "small blue ball" in texts
    assert not re.search(r"small (red )?car|large (blue )?(striped )?ball", texts)


def test_a_thing_is_called_by_its_class_its_kind_its_synonym_its_pattern_and_its_place() -> None:
    generator = np.random.default_rng(0)
    texts = " ".join(describe(made_scene(), generator=generator, most=4) for _ in range(600))
    for said in ("a car", "a vehicle", "an automobile", "striped ball", "ball on the sand", "the "):
        assert said in texts
    assert "spotted" not in texts


def test_a_caption_is_a_sentence_about_its_content() -> None:
    generator = np.random.default_rng(0)
    sentences = {caption("the car and grass", generator=generator) for _ in range(200)}
    assert len(sentences) >= 8
    assert "the car and grass." in sentences
    assert all(sentence.endswith("the car and grass.") and sentence == sentence.strip() for sentence in sentences)
