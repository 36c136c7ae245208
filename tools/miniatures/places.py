"""Places of Toytown that are visited twice: the same things, moved, painted anew and under another light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.toytown.composition import SETTINGS, choose_things, draw_stuff, lay_out
from patchword.toytown.painting import FINE, Canvas, light_up, paint_thing
from patchword.toytown.surfaces import STUFF
from patchword.toytown.world import scene_seed

FIRST_THING = 100
"""Number of the first thing in the regions; what is lower is ground or sky."""
_DUSK = 0.3  # share of the visits


@dataclass(frozen=True)
class Visit:
    """One picture of a place.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        regions: (h, w) uint8; a thing or a ground has the same number at both visits.
        style: "day" or "dusk".
    """

    image: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    style: str


def draw_visits(seed: int, *, size: int = 192, style: str | None = None) -> tuple[Visit, Visit]:
    """Draw a place twice.

    A thing keeps its class and its shape. Its place, size, turn, mirroring, colours and pattern are drawn for each
    visit alone, as are the ground, the sky and whether it is day or dusk. What finds no room is left out.

    Args:
        seed: of the place.
        size: side in pixels.
        style: of both pictures, which shows the same things in another light; else each has its own.

    Returns:
        the two visits.
    """
    place = np.random.default_rng(seed)
    setting = SETTINGS[int(place.integers(len(SETTINGS)))]
    things = list(choose_things(place, setting=setting))

    def visit(number: int) -> Visit:
        generator = np.random.default_rng([seed, number])
        canvas = Canvas(size, size)
        draw_stuff(canvas, generator, setting=setting)
        for index, plan in lay_out(canvas, generator, things=things):
            shape = np.random.default_rng([seed, FIRST_THING + index])
            paint_thing(canvas, generator, plan, instance=FIRST_THING + index, shape=shape)
        own = "dusk" if generator.random() < _DUSK else "day"
        image = light_up(canvas, generator, style=style or own)
        ground = canvas.classes < len(STUFF)
        regions = np.where(ground, canvas.classes + np.uint8(1), canvas.instances)[::FINE, ::FINE]
        return Visit(image, np.ascontiguousarray(regions), style or own)

    return visit(0), visit(1)


def draw_visit_pool(purpose: str, *, count: int, size: int = 192) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw places of one purpose, each twice.

    Args:
        purpose: whose seeds; see `world.PURPOSES`.
        count: number of places; at 192 pixels each takes about 300 KB.
        size: side in pixels.

    Returns:
        pictures (count, 2, size, size, 3) and regions (count, 2, size, size), uint8.
    """
    pictures = np.empty((count, 2, size, size, 3), np.uint8)
    regions = np.empty((count, 2, size, size), np.uint8)
    for index in range(count):
        for number, visit in enumerate(draw_visits(scene_seed(purpose, index=index), size=size)):
            pictures[index, number], regions[index, number] = visit.image, visit.regions
    return pictures, regions


def draw_day_and_dusk(purpose: str, *, count: int, size: int = 192) -> NDArray[np.uint8]:
    """Draw the visits by day of places of one purpose, each at dusk as well.

    Args:
        purpose: whose seeds; see `world.PURPOSES`.
        count: number of places, each of which has two visits by day or one, or none.
        size: side in pixels.

    Returns:
        (pictures, 2, size, size, 3) uint8: the same things by day, and at dusk.

    Raises:
        PatchwordError: if no visit is by day.
    """
    pairs = []
    for index in range(count):
        own = draw_visits(scene_seed(purpose, index=index), size=size)
        dark = draw_visits(scene_seed(purpose, index=index), size=size, style="dusk")
        pairs += [
            np.stack([one.image, other.image]) for one, other in zip(own, dark, strict=True) if one.style == "day"
        ]
    if not pairs:
        raise PatchwordError(f"all visits to {count} places are at dusk; draw more places")
    return np.stack(pairs)
