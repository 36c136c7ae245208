"""Toytown: drawn scenes with exact class and instance masks, each from its seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.errors import PatchwordError
from patchword.toytown.shapes import THINGS, Pen, Thing
from patchword.toytown.textures import texture

STYLES = ("day", "dusk")


@dataclass(frozen=True)
class Stuff:
    """A class without countable objects: its texture, how strong, and the colours it usually has."""

    name: str
    texture: str
    strength: float
    colours: tuple[str, ...]


STUFF: tuple[Stuff, ...] = (
    Stuff("sky", "plain", 10, ("blue", "blue", "white")),
    Stuff("grass", "blades", 26, ("green",)),
    Stuff("water", "waves", 20, ("blue", "blue", "green")),
    Stuff("sand", "grains", 22, ("yellow", "yellow", "orange")),
    Stuff("road", "asphalt", 22, ("grey", "black")),
    Stuff("snow", "flakes", 40, ("white", "white", "blue")),
    Stuff("mountain", "facets", 24, ("grey", "brown", "purple")),
    Stuff("field", "furrows", 20, ("brown", "brown", "yellow")),
)
CLASSES: tuple[str, ...] = tuple(stuff.name for stuff in STUFF) + tuple(thing.name for thing in THINGS)
UNSEEN: tuple[str, ...] = ("pine", "moon", "kite", "cup", "rocket")
"""Thing classes that no vocabulary names before evaluation."""
SEEN: tuple[str, ...] = tuple(name for name in CLASSES if name not in UNSEEN)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 55, 50),
    "orange": (230, 135, 45),
    "yellow": (225, 205, 80),
    "green": (85, 155, 70),
    "blue": (85, 140, 210),
    "purple": (140, 85, 170),
    "pink": (230, 145, 180),
    "brown": (135, 95, 60),
    "white": (235, 235, 235),
    "grey": (145, 145, 150),
    "black": (50, 50, 55),
}
_COLOUR_NAMES = tuple(COLOURS)
# As in life, colour is a hint and no proof: most grass is green, and so are cacti; some of it is any colour.
_USUAL = 0.8
_COLOUR_VALUES = np.array(list(COLOURS.values()), dtype=np.float32)


@dataclass(frozen=True)
class Placed:
    """One thing in a scene.

    Attributes:
        name: its class.
        colour: name of the colour of its main part.
        instance: its value in the instance mask.
        area: visible pixels, after occlusion.
        box: left, top, width, height in pixels of what was drawn, before occlusion.
    """

    name: str
    colour: str
    instance: int
    area: int
    box: tuple[int, int, int, int]


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


class _Canvas:
    def __init__(self, height: int, width: int) -> None:
        self.image = np.empty((height, width, 3), np.float32)
        self.classes = np.zeros((height, width), np.uint8)
        self.instances = np.zeros((height, width), np.uint8)


def draw_scene(seed: int, *, size: int | tuple[int, int] = 192, style: str = "day") -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative number; the same seed, size and style give the same scene.
        size: side in pixels, or (height, width); at least 16.
        style: "day" (flat light, no outlines) or "dusk" (dark, tinted, outlined, grainy).

    Returns:
        the picture and its exact masks.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16:
        raise PatchwordError(f"a Toytown scene of {height} x {width} pixels; each side must be at least 16 pixels")
    if style not in STYLES:
        raise PatchwordError(f"Toytown has no style {style!r} (choose from {', '.join(STYLES)})")
    generator = np.random.default_rng(seed)
    canvas = _Canvas(height, width)
    stuff, horizon = _draw_stuff(canvas, generator)
    things = _draw_things(canvas, generator, first_instance=len(stuff) + 1, horizon=horizon)
    image = _light(canvas, generator, style=style)
    areas = np.bincount(canvas.instances.ravel(), minlength=256)
    visible = tuple(
        Placed(thing.name, thing.colour, thing.instance, int(areas[thing.instance]), thing.box)
        for thing in things
        if areas[thing.instance] > 0
    )
    return Scene(image, canvas.classes, canvas.instances, visible, tuple(stuff))


def _pick_colour(generator: np.random.Generator, usual: tuple[str, ...]) -> str:
    if usual and generator.random() < _USUAL:
        return usual[int(generator.integers(len(usual)))]
    return _COLOUR_NAMES[int(generator.integers(len(_COLOUR_NAMES)))]


def _shade(generator: np.random.Generator, colour: str) -> NDArray[np.float32]:
    return np.clip(np.array(COLOURS[colour], np.float32) + generator.normal(0, 14, 3).astype(np.float32), 8, 247)


def _draw_stuff(canvas: _Canvas, generator: np.random.Generator) -> tuple[list[tuple[str, str]], float]:
    """Lay sky, perhaps mountains, one or two grounds, perhaps a road; returns regions and the horizon in pixels."""
    height, width = canvas.classes.shape
    horizon = float(generator.uniform(0.25, 0.6)) * height
    layers = Image.new("L", (width, height), 1)
    draw = ImageDraw.Draw(layers)
    names = ["sky"]

    def cover(name: str, points: list[tuple[float, float]]) -> None:
        names.append(name)
        draw.polygon(points, fill=len(names))

    def ridge(level: float, rough: float) -> list[tuple[float, float]]:
        xs = np.linspace(0, width, 7)
        ys = level + generator.normal(0, rough * height, 7)
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    floor = [(float(width), float(height)), (0.0, float(height))]
    if generator.random() < 0.5:
        peaks = ridge(horizon - 0.14 * height, 0.06)
        cover("mountain", peaks + floor)
    grounds = ["grass", "sand", "snow", "field", "water"]
    first, second = (grounds[int(index)] for index in generator.choice(len(grounds), 2, replace=False))
    cover(first, ridge(horizon, 0.012) + floor)
    if generator.random() < 0.65:
        level = horizon + float(generator.uniform(0.3, 0.65)) * (height - horizon)
        tilt = float(generator.normal(0, 0.06)) * height
        cover(second, [(0.0, level - tilt), (width / 2, level), (float(width), level + tilt), *floor])
    if generator.random() < 0.4:
        bottom, top = float(generator.uniform(-0.1, 0.9)) * width, float(generator.uniform(0.1, 0.9)) * width
        wide = float(generator.uniform(0.25, 0.5)) * width
        if generator.random() < 0.5:
            cover(
                "road",
                [(top, horizon), (top + wide / 6, horizon), (bottom + wide, float(height)), (bottom, float(height))],
            )
        else:
            level = horizon + float(generator.uniform(0.25, 0.75)) * (height - horizon)
            cover(
                "road",
                [(0.0, level), (float(width), level), (float(width), level + wide / 2.2), (0.0, level + wide / 2.2)],
            )
    regions = np.asarray(layers)
    canvas.instances[:] = regions
    placed = []
    stuff_at = {stuff.name: position for position, stuff in enumerate(STUFF)}
    slope = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    for number, name in enumerate(names, start=1):
        kind = STUFF[stuff_at[name]]
        colour = _pick_colour(generator, kind.colours)
        region = regions == number
        grain = texture(kind.texture, height=height, width=width, generator=generator) * np.float32(kind.strength)
        surface = _shade(generator, colour) + grain[:, :, None] + slope * np.float32(generator.uniform(-14, 14))
        np.copyto(canvas.image, surface, where=region[:, :, None])
        canvas.classes[region] = stuff_at[name]
        placed.append((name, colour))
    return placed, horizon


def _draw_things(
    canvas: _Canvas, generator: np.random.Generator, *, first_instance: int, horizon: float
) -> list[Placed]:
    height, width = canvas.classes.shape
    count = int(generator.integers(2, 7))
    chosen = [THINGS[int(index)] for index in generator.integers(0, len(THINGS), count)]
    side = float(min(height, width))
    plans = []
    for thing in chosen:
        tall = side * float(np.exp(generator.uniform(np.log(0.2), np.log(0.6))))
        wide = tall * thing.aspect
        if wide > 0.6 * width:
            tall, wide = tall * 0.6 * width / wide, 0.6 * width
        place = thing.place if generator.random() < 0.8 else "anywhere"
        if place == "sky":
            base = float(generator.uniform(tall * 0.8, max(horizon * 1.1, tall)))
        elif place == "anywhere":
            base = float(generator.uniform(tall * 0.8, height))
        else:
            base = float(generator.uniform(horizon + 0.1 * (height - horizon), height * 1.02))
        left = float(generator.uniform(-0.15 * wide, width - 0.85 * wide))
        plans.append((base, left, tall, wide, thing))
    # What stands lower in the picture is nearer and covers what is behind it.
    plans.sort(key=lambda plan: plan[0])
    placed = []
    for offset, (base, left, tall, wide, thing) in enumerate(plans):
        box = (round(left), round(base - tall), max(round(wide), 4), max(round(tall), 4))
        colour = _paint_thing(canvas, generator, thing=thing, box=box, instance=first_instance + offset)
        placed.append(Placed(thing.name, colour, first_instance + offset, 0, box))
    return placed


def _paint_thing(
    canvas: _Canvas, generator: np.random.Generator, *, thing: Thing, box: tuple[int, int, int, int], instance: int
) -> str:
    """Draw one thing over the canvas, cut at its borders; returns the colour of its main part."""
    left, top, wide, tall = box
    angle = float(generator.uniform(-thing.turn, thing.turn))
    pen = Pen(width=wide, height=tall, angle=angle, mirror=bool(generator.random() < 0.5), generator=generator)
    thing.draw(pen)
    colours = [_pick_colour(generator, usual) for usual in thing.colours]
    shades = np.zeros((5, 3), np.float32)
    for part, colour in enumerate(colours, start=1):
        shades[part] = _shade(generator, colour)
    # A second part that melts into the first would hide the drawing.
    for part in (2, 3, 4):
        if np.abs(shades[part] - shades[1]).sum() < 90:
            shades[part] = np.clip(shades[1] + (90 if shades[1].mean() < 128 else -90), 8, 247)
    parts = pen.parts()
    surface = shades[parts]
    for part, name in enumerate(thing.textures, start=1):
        if name != "plain":
            grain = texture(name, height=tall, width=wide, generator=generator) * np.float32(30)
            surface += np.where(parts == part, grain, np.float32(0))[:, :, None]
    surface += np.linspace(-1, 1, wide, dtype=np.float32)[None, :, None] * np.float32(generator.uniform(-20, 20))
    height, width = canvas.classes.shape
    rows = slice(max(top, 0), min(top + tall, height))
    columns = slice(max(left, 0), min(left + wide, width))
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    if rows.start < rows.stop and columns.start < columns.stop:
        where = parts[inside] > 0
        np.copyto(canvas.image[rows, columns], surface[inside], where=where[:, :, None])
        canvas.classes[rows, columns][where] = len(STUFF) + THINGS.index(thing)
        canvas.instances[rows, columns][where] = instance
    return colours[0]


def _light(canvas: _Canvas, generator: np.random.Generator, *, style: str) -> NDArray[np.uint8]:
    """Turn painted surfaces into a picture: light, tint and grain of the scene's own."""
    image = canvas.image
    gain = generator.uniform(0.78, 1.12) * generator.uniform(0.9, 1.1, 3)
    image *= gain.astype(np.float32)
    noise = np.float32(generator.uniform(2, 6))
    if style == "dusk":
        _outline(canvas)
        height = image.shape[0]
        glow = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        warm, cold = np.array([1.0, 0.72, 0.55], np.float32), np.array([0.5, 0.55, 0.85], np.float32)
        image *= (warm * (1 - glow) + cold * glow) * np.float32(generator.uniform(0.6, 0.85))
        noise = np.float32(generator.uniform(7, 11))
    height, width, _ = image.shape
    # One cut of a fixed noise tile is many times cheaper than fresh noise, and as irregular to the eye.
    image += texture("grains", height=height, width=width, generator=generator, vary_scale=False)[:, :, None] * noise
    return np.clip(image, 0, 255).astype(np.uint8)


def _outline(canvas: _Canvas) -> None:
    instances = canvas.instances
    edge = np.zeros(instances.shape, bool)
    edge[1:] |= instances[1:] != instances[:-1]
    edge[:, 1:] |= instances[:, 1:] != instances[:, :-1]
    canvas.image[edge] *= np.float32(0.3)
