"""Toytown: drawn scenes with exact class and instance masks, each from its seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.toytown.classes import STYLES
from patchword.toytown.composition import SETTINGS, draw_stuff, draw_things
from patchword.toytown.painting import FINE, Canvas, Placed, light_up


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is true of it.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        classes: (h, w) uint8, positions in `CLASSES`.
        instances: (h, w) uint8; every thing and every region of stuff has its own number from 1 on.
        things: what was placed and is still visible, furthest first.
        stuff: class name and colour of every region of stuff, by instance number from 1 on.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    things: tuple[Placed, ...]
    stuff: tuple[tuple[str, str], ...]


def draw_scene(seed: int, *, size: int | tuple[int, int] = 192, style: str = "day") -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative number; the same seed, size and style give the same scene.
        size: side in pixels, or (height, width); at least 16.
        style: "day" or "dusk" (dim, tinted, grainy, with a low light).

    Returns:
        the picture and its exact masks.

    Raises:
        PatchwordError: on a size under 16 pixels or an unknown style.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16:
        raise PatchwordError(f"a Toytown scene must be at least 16 pixels high and wide, not {height} x {width}")
    if style not in STYLES:
        raise PatchwordError(f"Toytown has no style {style!r} (choose from {', '.join(STYLES)})")
    generator = np.random.default_rng(seed)
    canvas = Canvas(height, width)
    setting = SETTINGS[int(generator.integers(len(SETTINGS)))]
    stuff = draw_stuff(canvas, generator, setting=setting)
    things = draw_things(canvas, generator, setting=setting, first_instance=len(stuff) + 1)
    image = light_up(canvas, generator, style=style)
    classes, instances = (np.ascontiguousarray(values[::FINE, ::FINE]) for values in (canvas.classes, canvas.instances))
    areas = np.bincount(instances.ravel(), minlength=256)
    visible = tuple(
        Placed(each.name, each.colour, each.instance, int(areas[each.instance]), each.box, each.pattern, each.on)
        for each in things
        if areas[each.instance] > 0
    )
    return Scene(image, classes, instances, visible, tuple(stuff))


RANGE = 10_000_000
PURPOSES = (
    "train-clip",
    "train-dino",
    "train-sam",
    "validate",
    "probe",
    "label",
    "evaluate-seen",
    "evaluate-style",
    "test",
)


def scene_seed(purpose: str, *, index: int) -> int:
    """Give the seed of the index-th scene of a purpose.

    Args:
        purpose: one of `PURPOSES`.
        index: 0 <= index < `RANGE`; beyond that the ranges would overlap.

    Returns:
        the seed; two purposes never share one.
    """
    if purpose not in PURPOSES:
        raise PatchwordError(f"Toytown has no scenes for {purpose!r} (choose from {', '.join(PURPOSES)})")
    if not 0 <= index < RANGE:
        raise PatchwordError(f"scene index {index} of {purpose!r}; choose 0 to {RANGE - 1}")
    return PURPOSES.index(purpose) * RANGE + index
