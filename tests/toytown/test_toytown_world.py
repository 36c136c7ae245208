"""Scenes of Toytown: from the seed alone, exact masks, any size, both styles, and enough variety."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from patchword.toytown.textures import NAMES, texture

from patchword.errors import PatchwordError
from patchword.toytown.classes import CLASSES, COLOURS, SEEN, STYLES, UNSEEN
from patchword.toytown.seeds import scene_seed
from patchword.toytown.surfaces import STUFF
from patchword.toytown.things import THINGS
from patchword.toytown.world import Scene, draw_scene
from tools.miniatures.pool import draw_pool, stack_images, style_of

MASKS = "577702340007539d0a4d8d076f7637138db15e950c3fecbed54729290cf8749e"
"""SHA-256 of class and instance masks of the seeds 0 to 19 at 96 x 128 pixels."""
PICTURES = {
    "day": [
        [126.57, 128.5, 167.07, 4.18],
        [144.25, 139.11, 171.82, 5.52],
        [126.03, 139.8, 170.56, 3.68],
        [111.5, 130.76, 131.96, 6.51],
        [133.94, 129.06, 130.27, 12.55],
        [118.9, 135.1, 131.89, 8.6],
        [124.92, 152.12, 152.62, 9.11],
        [122.22, 134.66, 130.75, 11.21],
        [106.96, 133.45, 123.3, 5.53],
    ],
    "dusk": [
        [86.31, 66.91, 74.79, 6.68],
        [98.39, 72.18, 77.08, 7.62],
        [87.14, 72.8, 76.82, 6.25],
        [60.87, 60.2, 68.06, 7.77],
        [71.75, 57.72, 64.99, 13.28],
        [63.54, 60.97, 66.66, 9.88],
        [53.43, 65.08, 92.23, 9.06],
        [51.73, 56.76, 78.02, 11.24],
        [46.55, 58.07, 76.45, 5.54],
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
def test_pictures_are_the_ones_that_the_miniatures_were_trained_on(style: str) -> None:
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
    assert {colour for _, colour in scene.stuff} | {thing.colour for thing in scene.things} <= COLOURS.keys()
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
    with pytest.raises(PatchwordError, match=f"{shown} pixels; each side must be at least 16"):
        draw_scene(0, size=size)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(PatchwordError, match=r"'noon' \(choose from day, dusk"):
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


def test_things_hide_each_other_the_nearer_in_front(scenes: list[Scene]) -> None:
    hidden = 0
    for scene in scenes:
        for far in scene.things:
            for near in scene.things:
                if near.instance <= far.instance:
                    continue
                # Rounding of the top and of the height may each move the base by half a pixel.
                assert near.box[1] + near.box[3] >= far.box[1] + far.box[3] - 1
                left, top, wide, tall = far.box
                inside = scene.instances[max(top, 0) : top + tall, max(left, 0) : left + wide]
                hidden += int((inside == near.instance).sum() > 0.2 * wide * tall)
    assert hidden > 0.3 * len(scenes)


def test_things_come_in_many_sizes(scenes: list[Scene]) -> None:
    heights = {
        name: [thing.box[3] for scene in scenes for thing in scene.things if thing.name == name]
        for name in CLASSES[len(STUFF) :]
    }
    for name, found in heights.items():
        assert max(found) > 1.6 * min(found), name
    every = [height for found in heights.values() for height in found]
    assert np.quantile(every, 0.9) > 1.8 * np.quantile(every, 0.1)


def test_colour_is_a_hint_and_no_proof(scenes: list[Scene]) -> None:
    drawn = [(thing.name, thing.colour) for scene in scenes for thing in scene.things]
    drawn += [pair for scene in scenes for pair in scene.stuff]
    for name in CLASSES:
        found = [colour for drawn_name, colour in drawn if drawn_name == name]
        assert len(set(found)) >= 3, name  # every class comes in colours that are not its usual ones
        assert max(found.count(colour) for colour in found) < 0.95 * len(found), name
    for colour in COLOURS:
        owners = [name for name, drawn_colour in drawn if drawn_colour == colour]
        assert max(owners.count(name) for name in owners) < 0.6 * len(owners), colour  # and no colour is one class's


def test_a_named_colour_is_the_colour_drawn() -> None:
    nearest = []
    table = np.array(list(COLOURS.values()), float)
    for seed in range(60):
        scene = draw_scene(seed, size=96)
        for thing in scene.things:
            if thing.name in ("cloud", "snowman", "cactus", "moon", "star") and thing.area > 200:
                pixels = scene.image[scene.instances == thing.instance].mean(0)
                order = np.linalg.norm(table - pixels, axis=1).argsort()
                nearest.append(list(order).index(list(COLOURS).index(thing.colour)))
    assert len(nearest) > 20
    # The scene's own light moves colours, rarely past more than two of the eleven.
    assert np.mean(np.array(nearest) <= 2) > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_textures_are_bounded_and_differ_from_place_to_place(name: str) -> None:
    generator = np.random.default_rng(1)
    pieces = [texture(name, height=40, width=30, generator=generator) for _ in range(4)]
    for piece in pieces:
        assert piece.shape == (40, 30)
        assert piece.dtype == np.float32
        assert np.abs(piece).max() <= 1
        assert piece.std() > 0.01
    assert not np.array_equal(pieces[0], pieces[1])


def test_a_texture_larger_than_its_tile_repeats_it() -> None:
    piece = texture("dots", height=530, width=1100, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(piece[:18], piece[512:])
    np.testing.assert_array_equal(piece[:, :588], piece[:, 512:])


def test_a_pool_is_the_scenes_of_its_purpose_in_order() -> None:
    pool = draw_pool("probe", count=4, size=32, dusk_every=2, first=5)
    for index, scene in enumerate(pool, start=5):
        alone = draw_scene(scene_seed("probe", index=index), size=32, style="dusk" if index % 2 else "day")
        np.testing.assert_array_equal(scene.image, alone.image)
    np.testing.assert_array_equal(stack_images(pool)[2], pool[2].image)


@pytest.mark.parametrize(("every", "dusk"), [(0, 0), (1, 12), (3, 4), (4, 3)])
def test_every_so_manyth_scene_is_at_dusk(every: int, dusk: int) -> None:
    assert sum(style_of(index, dusk_every=every) == "dusk" for index in range(12)) == dusk
