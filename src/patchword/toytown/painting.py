"""From plans to pixels: things with relief, pattern and shadow on a fine canvas, and the light of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from patchword.toytown.classes import CLASSES, PATTERNS, SAID, SHADES
from patchword.toytown.shapes import DARK, LIGHT, MAIN, Pen
from patchword.toytown.surfaces import STUFF, grain
from patchword.toytown.things import THINGS, Thing

FINE = 2  # canvas pixels a picture pixel and side: edges are averaged
_SHADOW = 0.74


@dataclass(frozen=True)
class Placed:
    """One thing in a scene.

    Attributes:
        name: its class.
        colour: name of the colour of its main part.
        instance: its value in the instance mask.
        area: visible pixels, after occlusion.
        box: left, top, width, height in pixels of what was drawn, before occlusion.
        pattern: one of `PATTERNS`; "" for things that have none.
        on: name of the class that it stands on or is before.
    """

    name: str
    colour: str
    instance: int
    area: int
    box: tuple[int, int, int, int]
    pattern: str = ""
    on: str = ""


class Canvas:
    """What is painted so far, `FINE` times as fine as the picture."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height * FINE, width * FINE
        self.image = np.empty((self.height, self.width, 3), np.float32)
        self.classes = np.zeros((self.height, self.width), np.uint8)
        self.instances = np.zeros((self.height, self.width), np.uint8)
        self.horizon = 0.0


@dataclass(frozen=True)
class Plan:
    """Where a thing will stand, in canvas pixels."""

    thing: Thing
    left: float
    base: float
    wide: float
    tall: float


def pick(generator: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(generator.integers(len(names)))]


def shade(generator: np.random.Generator, colour: str, *, spread: float = 8.0) -> NDArray[np.float32]:
    varied = np.array(SHADES[colour], np.float32) + generator.normal(0, spread, 3).astype(np.float32)
    return np.clip(varied, 8, 252)


def paint_thing(
    canvas: Canvas,
    generator: np.random.Generator,
    plan: Plan,
    *,
    instance: int,
    shape: np.random.Generator | None = None,
) -> Placed:
    """Draw one thing over the canvas, cut at its borders.

    Args:
        canvas: what is painted so far.
        generator: source of turn, colours and pattern.
        plan: what stands where.
        instance: its number in the instance mask.
        shape: source of the variation inside a class; the generator without it.
    """
    thing = plan.thing
    wide, tall = max(round(plan.wide), 6), max(round(plan.tall), 6)
    left, top = round(plan.left), round(plan.base - plan.tall)
    angle = float(generator.uniform(-thing.turn, thing.turn))
    pen = Pen(width=wide, height=tall, angle=angle, mirror=bool(generator.random() < 0.5), generator=shape or generator)
    thing.draw(pen)
    parts = pen.parts()
    colour, shades = _colours(generator, thing)
    surface = shades[parts]
    pattern = ""
    if thing.patterned:
        pattern = PATTERNS[int(generator.integers(len(PATTERNS)))]
        second = _contrasting(generator, shades[MAIN])
        marks = _pattern(pattern, height=tall, width=wide, generator=generator) & (parts == MAIN)
        surface[marks] = second
    surface *= _relief(parts)[:, :, None]
    column = int(np.clip(left + wide // 2, 0, canvas.width - 1))
    row = int(np.clip(round(plan.base), 0, canvas.height - 1))
    under = CLASSES[canvas.classes[row, column]]
    if thing.place == "ground":
        _cast_shadow(canvas, left=left, base=plan.base, wide=wide, tall=tall)
    rows = slice(max(top, 0), min(top + tall, canvas.height))
    columns = slice(max(left, 0), min(left + wide, canvas.width))
    if rows.start < rows.stop and columns.start < columns.stop:
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        where = parts[inside] > 0
        np.copyto(canvas.image[rows, columns], surface[inside], where=where[:, :, None])
        canvas.classes[rows, columns][where] = len(STUFF) + THINGS.index(thing)
        canvas.instances[rows, columns][where] = instance
    edges = (left // FINE, top // FINE, -(-(left + wide) // FINE), -(-(top + tall) // FINE))
    box = (edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
    return Placed(thing.name, SAID.get(colour, colour), instance, 0, box, pattern, under)


def _colours(generator: np.random.Generator, thing: Thing) -> tuple[str, NDArray[np.float32]]:
    """Name of the main colour, and the colour of every part: (7, 3)."""
    shades = np.zeros((7, 3), np.float32)
    main = ""
    for part, palette in enumerate(thing.colours, start=MAIN):
        if not palette:
            continue
        name = pick(generator, palette)
        main = main or name
        if name in ("lighter", "darker"):
            shades[part] = np.clip(shades[MAIN] * np.float32(1.16 if name == "lighter" else 0.8), 0, 255)
            continue
        shades[part] = shade(generator, name)
        if part > MAIN and np.abs(shades[part] - shades[MAIN]).sum() < 70:  # it would melt into the first
            shades[part] = np.clip(shades[MAIN] * np.float32(0.66 if shades[MAIN].mean() > 120 else 1.6), 0, 255)
    shades[DARK], shades[LIGHT] = np.float32(52), np.float32(244)
    return main, shades


def _contrasting(generator: np.random.Generator, main: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cream on what is dark or strong, else a strong colour."""
    cream = shade(generator, "cream")
    return cream if np.abs(cream - main).sum() > 150 else shade(generator, pick(generator, ("red", "blue", "purple")))


def _pattern(name: str, *, height: int, width: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Where the second colour of a pattern is, scaled with the thing: (height, width)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(height, width))
    phase = np.float32(generator.random())
    if name == "striped":
        return np.asarray(
            np.modf(columns * 4.2 + rows * np.float32(generator.uniform(-0.5, 0.5)) + phase + 8)[0] < 0.48
        )
    if name == "spotted":
        v = rows * 3.4 + phase
        shift = (np.floor(v) % 2) * 0.5
        u = columns * 3.4 + shift + phase
        return np.asarray(np.hypot(np.modf(u)[0] - 0.5, np.modf(v)[0] - 0.5) < 0.27)
    return np.zeros((height, width), bool)


def _relief(parts: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(height, width) factors that make a drawing round, lit from the upper left, with thin lines between parts."""
    height, width = parts.shape
    reach = max(min(height, width) * 0.07, 1.0)
    solid = Image.fromarray(np.where(parts > 0, 255, 0).astype(np.uint8))
    soft = np.asarray(solid.filter(ImageFilter.GaussianBlur(reach)), np.float32) / 255
    step = max(round(reach), 1)
    padded = np.pad(soft, step)
    light = padded[2 * step :, 2 * step :] - padded[: -2 * step, : -2 * step]
    relief = 1 + np.clip(light, -0.8, 0.8) * np.float32(0.26)
    edge = np.zeros(parts.shape, bool)
    edge[1:] |= parts[1:] != parts[:-1]
    edge[:, 1:] |= parts[:, 1:] != parts[:, :-1]
    return np.where(edge, relief * np.float32(0.78), relief).astype(np.float32)


def _cast_shadow(canvas: Canvas, *, left: int, base: float, wide: int, tall: int) -> None:
    """Darken the ground under a thing: an ellipse, longer to the right, away from the light."""
    across, down = wide * 0.56, max(min(wide, tall) * 0.09, 2.0)
    x, y = left + wide * 0.56, base
    top, bottom = max(int(y - down), 0), min(int(y + down) + 1, canvas.height)
    start, stop = max(int(x - across), 0), min(int(x + across) + 1, canvas.width)
    if top >= bottom or start >= stop:
        return
    rows, columns = np.mgrid[top:bottom, start:stop].astype(np.float32)
    distance = ((rows - y) / down) ** 2 + ((columns - x) / across) ** 2
    factor = 1 - (1 - _SHADOW) * np.clip(1.4 * (1 - distance), 0, 1)
    canvas.image[top:bottom, start:stop] *= factor[:, :, None].astype(np.float32)


def light_up(canvas: Canvas, generator: np.random.Generator, *, style: str) -> NDArray[np.uint8]:
    """Turn the canvas into a picture: average it, then light, tint and grain of the scene's own."""
    fine = canvas.image
    height, width = fine.shape[0] // FINE, fine.shape[1] // FINE
    image = fine.reshape(height, FINE, width, FINE, 3).mean((1, 3))
    image *= (generator.uniform(0.92, 1.06) * generator.uniform(0.97, 1.03, 3)).astype(np.float32)
    noise = generator.uniform(1.0, 2.5)
    if style == "dusk":
        fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        warm, cold = np.array([0.96, 0.66, 0.6], np.float32), np.array([0.5, 0.52, 0.76], np.float32)
        image *= (warm * (1 - fall) + cold * fall) * np.float32(generator.uniform(0.72, 0.92))
        noise = generator.uniform(3.0, 5.0)
    image += grain(height, width, generator, blur=0.5, seed=2)[:, :, None] * np.float32(noise)
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)
