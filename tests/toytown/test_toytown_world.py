"""Scenes of Toytown: from the seed alone, exact masks, any size, both styles, and enough variety."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.toytown.classes import CLASSES, COLOURS, KINDS, PATTERNS, SEEN, STYLES, SYNONYMS, UNSEEN
from patchword.toytown.surfaces import STUFF, grain
from patchword.toytown.things import THINGS
from patchword.toytown.world import Scene, draw_scene

MASKS = "c6203ed0aac555a489a46c97819ae1a87da9c6a2688e96c9032cfdf05b833003"
"""SHA-256 of class and instance masks of the seeds 0 to 19 at 96 x 128 pixels."""
PICTURES = {
    "day": [
        [133.66, 169.34, 206.78, 3.81],
        [134.88, 168.71, 200.84, 5.72],
        [136.04, 170.98, 205.42, 3.96],
        [168.79, 164.87, 147.18, 6.56],
        [171.06, 157.49, 137.65, 8.9],
        [170.5, 157.91, 136.58, 8.87],
        [119.6, 157.28, 106.64, 5.78],
        [119.9, 154.19, 109.72, 7.03],
        [124.55, 155.27, 113.09, 7.0],
    ],
    "dusk": [
        [95.2, 87.26, 104.84, 4.5],
        [96.28, 87.07, 101.97, 5.55],
        [96.9, 88.14, 104.29, 4.56],
        [100.39, 79.54, 81.7, 5.44],
        [101.9, 75.69, 76.35, 6.57],
        [100.83, 75.94, 75.25, 6.68],
        [56.13, 69.04, 63.5, 4.76],
        [56.28, 67.58, 65.34, 5.4],
        [58.66, 68.27, 67.39, 5.39],
    ],
}
"""What `coarse` says of the seeds 0 to 7, on average."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, size=96) for seed in range(150)]


def coarse(scene: Scene) -> NDArray[np.float64]:
    """Mean colour and mean difference of neighbours in each ninth of a picture of 96 pixels: (9, 4)."""
    image = scene.image.astype(float)
    grey = image.mean(2)
    rough = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    both = np.concatenate([image, rough[:, :, None]], axis=2)  # (96, 96, 4)
    return both.reshape(3, 32, 3, 32, 4).mean((1, 3)).reshape(9, 4)


def test_a_scene_is_its_seed_alone() -> None:
    first = draw_scene(11, size=80)
    np.random.default_rng(0).random()
    draw_scene(12, size=80)
    again = draw_scene(11, size=80)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.classes, again.classes)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert (first.things, first.stuff) == (again.things, again.stuff)
    assert not np.array_equal(first.classes, draw_scene(13, size=80).classes)


def test_masks_are_the_ones_that_the_miniatures_were_trained_on() -> None:
    digest = hashlib.sha256()
    for seed in range(20):
        scene = draw_scene(seed, size=(96, 128))
        digest.update(scene.classes.tobytes())
        digest.update(scene.instances.tobytes())
    assert digest.hexdigest() == MASKS


@pytest.mark.parametrize("style", STYLES)
def test_pictures_stay_what_they_are(style: str) -> None:
    # Averages, not bytes: the last bit of a sine is the processor's own.
    found = np.mean([coarse(draw_scene(seed, size=96, style=style)) for seed in range(8)], axis=0)
    np.testing.assert_allclose(found, PICTURES[style], atol=0.05)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), height=st.integers(16, 90), width=st.integers(16, 90), style=st.sampled_from(STYLES))
def test_masks_are_exact(seed: int, height: int, width: int, style: str) -> None:
    scene = draw_scene(seed, size=(height, width), style=style)
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    assert scene.classes.shape == scene.instances.shape == (height, width)
    named = {number: CLASSES.index(name) for number, (name, _) in enumerate(scene.stuff, start=1)}
    named |= {thing.instance: CLASSES.index(thing.name) for thing in scene.things}
    assert len(named) == len(scene.stuff) + len(scene.things)
    assert set(np.unique(scene.instances)) <= named.keys()
    expected = np.zeros(256, np.uint8)
    expected[list(named)] = list(named.values())
    np.testing.assert_array_equal(scene.classes, expected[scene.instances])
    assert [named[number] < len(STUFF) for number in sorted(named)] == [True] * len(scene.stuff) + [False] * len(
        scene.things
    )
    assert {thing.colour for thing in scene.things} <= COLOURS.keys()
    for thing in scene.things:
        rows, columns = np.nonzero(scene.instances == thing.instance)
        assert thing.area == len(rows) > 0
        left, top, wide, tall = thing.box
        assert left <= columns.min() <= columns.max() < left + wide
        assert top <= rows.min() <= rows.max() < top + tall


def test_the_picture_changes_where_the_masks_do(scenes: list[Scene]) -> None:
    def edge_contrast(scene: Scene, shift: int) -> tuple[float, float]:
        change = np.abs(np.diff(scene.image.astype(float), axis=1)).mean(2)
        edge = np.roll(np.diff(scene.instances.astype(int), axis=1) != 0, shift, axis=1)
        return change[edge].mean(), change[~edge].mean()

    here = np.mean([edge_contrast(scene, 0) for scene in scenes[:40]], axis=0)
    beside = np.mean([edge_contrast(scene, 2) for scene in scenes[:40]], axis=0)
    assert here[0] > 2.5 * here[1]
    assert here[0] > 2 * beside[0]


def test_dusk_is_the_same_place_in_another_light() -> None:
    for seed in range(10):
        day, dusk = (draw_scene(seed, size=64, style=style) for style in STYLES)
        np.testing.assert_array_equal(day.classes, dusk.classes)
        np.testing.assert_array_equal(day.instances, dusk.instances)
        assert (day.things, day.stuff) == (dusk.things, dusk.stuff)
        assert dusk.image.mean() < 0.9 * day.image.mean()


@pytest.mark.parametrize("size", [16, (16, 200), (200, 16), (17, 33), 700])
def test_any_size_from_the_minimum_on(size: int | tuple[int, int]) -> None:
    scene = draw_scene(3, size=size)
    assert scene.classes.shape == ((size, size) if isinstance(size, int) else size)
    assert scene.classes.max() < len(CLASSES)
    assert scene.instances.min() >= 1


def test_one_number_is_a_square() -> None:
    np.testing.assert_array_equal(draw_scene(4, size=40).image, draw_scene(4, size=(40, 40)).image)


@pytest.mark.parametrize("size", [15, 0, -20, (15, 40), (40, 15)])
def test_smaller_sizes_are_refused(size: int | tuple[int, int]) -> None:
    shown = f"{size} x {size}" if isinstance(size, int) else f"{size[0]} x {size[1]}"
    with pytest.raises(PatchwordError, match=f"at least 16 pixels high and wide, not {shown}"):
        draw_scene(0, size=size)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(PatchwordError, match=r"'noon' \(choose from day, dusk\)"):
        draw_scene(0, style="noon")


def test_there_are_enough_classes() -> None:
    assert len(STUFF) >= 6
    assert len(THINGS) >= 16
    assert len(set(CLASSES)) == len(CLASSES) == len(STUFF) + len(THINGS)
    assert sorted(SEEN + UNSEEN) == sorted(CLASSES)
    assert set(UNSEEN) < {thing.name for thing in THINGS}


def test_every_class_occurs(scenes: list[Scene]) -> None:
    seen = np.zeros(len(CLASSES), int)
    for scene in scenes:
        seen[np.unique(scene.classes)] += 1
    assert not [name for name, count in zip(CLASSES, seen, strict=True) if count < 5]


def test_the_nearer_thing_stands_in_front(scenes: list[Scene]) -> None:
    grounded = {thing.name for thing in THINGS if thing.place != "sky"}
    pairs = 0
    for scene in scenes:
        standing = [thing for thing in scene.things if thing.name in grounded]
        for far, near in itertools.combinations(standing, 2):
            # Rounding of the top and of the height may each move the base by half a pixel.
            assert near.box[1] + near.box[3] >= far.box[1] + far.box[3] - 1
            pairs += 1
    assert pairs > len(scenes)


def test_things_are_hardly_hidden_and_large_enough_to_be_recognised(scenes: list[Scene]) -> None:
    drawn = [(thing.area, thing.box) for scene in scenes for thing in scene.things]
    shares = [area / (box[2] * box[3]) for area, box in drawn]
    assert np.mean(np.array(shares) > 0.2) > 0.9
    assert np.median([min(box[2], box[3]) for _, box in drawn]) > 0.1 * 96


def test_what_belongs_on_water_is_on_water(scenes: list[Scene]) -> None:
    places = {thing.name: thing.place for thing in THINGS}
    for scene in scenes:
        for thing in scene.things:
            if places[thing.name] == "water":
                assert thing.on == "water"
            elif places[thing.name] == "ground":
                assert thing.on not in ("water", "sky", "mountain")


def test_patterns_are_of_things_that_have_them_and_as_often(scenes: list[Scene]) -> None:
    patterned = {thing.name for thing in THINGS if thing.patterned}
    found = [thing.pattern for scene in scenes for thing in scene.things if thing.name in patterned]
    assert all(not thing.pattern for scene in scenes for thing in scene.things if thing.name not in patterned)
    for pattern in PATTERNS:
        assert found.count(pattern) > 0.2 * len(found)


def test_a_pattern_is_seen() -> None:
    varied: dict[str, list[float]] = {pattern: [] for pattern in PATTERNS}
    for seed in range(120):
        scene = draw_scene(seed, size=128)
        for thing in scene.things:
            if thing.name in ("ball", "balloon") and thing.area > 200:
                varied[thing.pattern].append(scene.image[scene.instances == thing.instance].std(0).mean())
    assert np.median(varied["plain"]) < 0.75 * min(np.median(varied["striped"]), np.median(varied["spotted"]))


def test_kinds_and_synonyms_are_words_for_several_and_for_one() -> None:
    for kind, members in KINDS.items():
        assert len(members) >= 3
        assert set(members) < set(CLASSES)
        assert kind not in CLASSES
    assert SYNONYMS.keys() < set(CLASSES)
    assert not set(SYNONYMS.values()) & {*CLASSES, *KINDS}
    assert len(set(SYNONYMS.values())) == len(SYNONYMS)


def test_things_come_in_many_sizes(scenes: list[Scene]) -> None:
    for name in CLASSES[len(STUFF) :]:
        found = [thing.box[3] for scene in scenes for thing in scene.things if thing.name == name]
        assert max(found) > 1.25 * min(found), name
    every = [thing.box[3] for scene in scenes for thing in scene.things]
    assert np.quantile(every, 0.9) > 1.8 * np.quantile(every, 0.1)


def test_no_colour_is_one_class_alone(scenes: list[Scene]) -> None:
    drawn = [(thing.name, thing.colour) for scene in scenes for thing in scene.things]
    for colour in COLOURS:
        owners = [name for name, drawn_colour in drawn if drawn_colour == colour]
        assert max(owners.count(name) for name in owners) <= 0.95 * len(owners), colour


def test_a_named_colour_is_the_colour_drawn() -> None:
    nearest = []
    table = np.array(list(COLOURS.values()), float)
    for seed in range(60):
        scene = draw_scene(seed, size=96)
        for thing in scene.things:
            if (
                thing.name in ("cloud", "cactus", "moon", "cow", "ball")
                and thing.pattern in ("", "plain")
                and thing.area > 200
            ):
                pixels = scene.image[scene.instances == thing.instance].mean(0)
                order = np.linalg.norm(table - pixels, axis=1).argsort()
                nearest.append(list(order).index(list(COLOURS).index(thing.colour)))
    assert len(nearest) > 20
    # The scene's own light moves colours, rarely past more than two of the eleven.
    assert np.mean(np.array(nearest) <= 2) > 0.85


def test_grain_has_unit_deviation_and_repeats_beyond_its_tile() -> None:
    piece = grain(530, 1100, np.random.default_rng(0), blur=2.0, seed=3)
    assert abs(float(piece[:512, :512].std()) - 1) < 0.01
    np.testing.assert_array_equal(piece[:18], piece[512:])
    np.testing.assert_array_equal(piece[:, :588], piece[:, 512:])
