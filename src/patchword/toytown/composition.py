"""What stands where: settings as an illustrator would have them, grounds laid with a horizon, things with depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.toytown.classes import CLASSES
from patchword.toytown.painting import Canvas, Placed, Plan, paint_thing, pick, shade
from patchword.toytown.surfaces import STUFF, View
from patchword.toytown.things import THINGS, Thing


@dataclass(frozen=True)
class Setting:
    """What belongs together in a picture, as an illustrator would have it."""

    grounds: tuple[str, ...]
    things: tuple[str, ...]
    mountains: float = 0.3
    road: float = 0.0


_SKY = ("sun", "cloud", "cloud", "bird", "balloon", "kite", "moon")
SETTINGS: tuple[Setting, ...] = (
    Setting(
        ("grass",),
        (
            *_SKY,
            "house",
            "tree",
            "tree",
            "pine",
            "flower",
            "flower",
            "cow",
            "sheep",
            "butterfly",
            "fence",
            "mushroom",
            "bench",
            "ball",
            "umbrella",
            "windmill",
        ),
        0.4,
        0.25,
    ),
    Setting(
        ("water", "sand"),
        (*_SKY, "boat", "boat", "umbrella", "umbrella", "ball", "ball", "fish", "lighthouse", "duck"),
        0.2,
    ),
    Setting(
        ("grass", "water"),
        (
            *_SKY,
            "duck",
            "duck",
            "fish",
            "fish",
            "boat",
            "tree",
            "pine",
            "house",
            "bench",
            "flower",
            "mushroom",
            "lighthouse",
            "butterfly",
        ),
        0.4,
    ),
    Setting(
        ("grass",),
        (*_SKY, "house", "house", "car", "car", "truck", "truck", "lamp", "lamp", "tree", "bench", "fence", "umbrella"),
        0.1,
        1.0,
    ),
    Setting(
        ("snow",),
        (*_SKY, "snowman", "snowman", "pine", "pine", "house", "lamp", "fence", "bench", "ball", "car", "tree"),
        0.7,
        0.2,
    ),
    Setting(
        ("sand",),
        (*_SKY, "cactus", "cactus", "cactus", "truck", "car", "umbrella", "ball", "butterfly", "fence"),
        0.6,
        0.4,
    ),
    Setting(
        ("field", "grass"),
        (
            *_SKY,
            "windmill",
            "cow",
            "cow",
            "sheep",
            "house",
            "truck",
            "fence",
            "flower",
            "tree",
            "mushroom",
            "butterfly",
        ),
        0.25,
    ),
    Setting(("snow", "water"), (*_SKY, "boat", "duck", "fish", "snowman", "pine", "lighthouse", "house"), 0.6),
)
_STRANGER = 0.15  # share of things that may be in any picture


def draw_stuff(canvas: Canvas, generator: np.random.Generator, *, setting: Setting) -> list[tuple[str, str]]:
    """Lay sky, perhaps mountains, one or two grounds, perhaps a road; returns class and colour of each region."""
    height, width = canvas.height, canvas.width
    horizon = canvas.horizon = float(generator.uniform(0.36, 0.54)) * height
    layers = Image.new("L", (width, height), 1)
    draw = ImageDraw.Draw(layers)
    regions: list[tuple[str, float]] = [("sky", 0.0)]

    def cover(name: str, points: list[tuple[float, float]], top: float) -> None:
        regions.append((name, top))
        draw.polygon(points, fill=len(regions))

    def ridge(level: float, rough: float, count: int = 7) -> list[tuple[float, float]]:
        knots = level + generator.normal(0, rough * height, count)
        xs = np.linspace(0, width, 49)
        ys = np.interp(xs, np.linspace(0, width, count), knots)
        return list(zip(xs.tolist(), ys.tolist(), strict=True))

    floor = [(float(width), float(height)), (0.0, float(height))]
    if generator.random() < setting.mountains:
        peaks = ridge(horizon - 0.17 * height, 0.055, count=int(generator.integers(6, 10)))
        cover("mountain", peaks + floor, min(y for _, y in peaks))
    first, *more = setting.grounds
    bumpy = 0.0 if first == "water" else 0.008
    cover(first, ridge(horizon, bumpy) + floor, horizon)
    for name in more:
        level = horizon + float(generator.uniform(0.3, 0.5)) * (height - horizon)
        cover(name, ridge(level, 0.02, count=5) + floor, level)
    road: tuple[float, ...] | None = None
    if generator.random() < setting.road:
        if generator.random() < 0.65:  # along the picture
            level = horizon + float(generator.uniform(0.3, 0.55)) * (height - horizon)
            wide = float(generator.uniform(0.16, 0.22)) * height
            cover(
                "road", [(0.0, level), (float(width), level), (float(width), level + wide), (0.0, level + wide)], level
            )
            road = (level + wide / 2, wide)
        else:  # towards the horizon
            near, far = (float(generator.uniform(0.25, 0.75)) * width for _ in range(2))
            wide = float(generator.uniform(0.16, 0.22)) * width
            cover(
                "road",
                [
                    (far - wide / 8, horizon),
                    (far + wide / 8, horizon),
                    (near + wide, float(height)),
                    (near - wide, float(height)),
                ],
                horizon,
            )
            road = (near, far, wide)
    instances = np.asarray(layers)
    canvas.instances[:] = instances
    position = {stuff.name: index for index, stuff in enumerate(STUFF)}
    placed = []
    for number, (name, top) in enumerate(regions, start=1):
        kind = STUFF[position[name]]
        colour = pick(generator, kind.colours)
        region = instances == number
        view = View(height, width, top, float(height), horizon)
        surface = kind.paint(view, shade(generator, colour, spread=6.0), generator)
        if name == "road" and road is not None:
            surface = _mark_road(surface, road, horizon=horizon)
        np.copyto(canvas.image, surface, where=region[:, :, None])
        canvas.classes[region] = position[name]
        placed.append((name, colour))
    return placed


def _mark_road(surface: NDArray[np.float32], road: tuple[float, ...], *, horizon: float) -> NDArray[np.float32]:
    height, width, _ = surface.shape
    layer = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(layer)
    if len(road) == 2:
        middle, wide = road
        dash = width / 10
        for left in np.arange(0, width, dash):
            draw.rectangle([left, middle - wide * 0.035, left + dash * 0.5, middle + wide * 0.035], fill=255)
        for edge in (-0.44, 0.44):
            draw.rectangle([0, middle + wide * edge - 1, width, middle + wide * edge + 1], fill=160)
    else:
        near, far, wide = road
        for start in np.linspace(0.0, 0.92, 9) ** 1.6:
            stop = start + 0.05 + 0.05 * start
            across = [
                (far + (near - far) * t, horizon + (height - horizon) * t, wide * (0.12 + 0.88 * t) * 0.05)
                for t in (start, stop)
            ]
            (x0, y0, w0), (x1, y1, w1) = across
            draw.polygon([(x0 - w0, y0), (x0 + w0, y0), (x1 + w1, y1), (x1 - w1, y1)], fill=255)
    marks = np.asarray(layer, np.float32)[:, :, None] / 255
    return np.asarray(surface * (1 - marks) + np.float32(236) * marks, dtype=np.float32)


def draw_things(
    canvas: Canvas, generator: np.random.Generator, *, setting: Setting, first_instance: int
) -> list[Placed]:
    """Choose things that belong in a setting and paint them; returns what was placed, furthest first."""
    plans = lay_out(canvas, generator, things=choose_things(generator, setting=setting))
    return [
        paint_thing(canvas, generator, plan, instance=first_instance + offset) for offset, (_, plan) in enumerate(plans)
    ]


def choose_things(generator: np.random.Generator, *, setting: Setting) -> Iterator[Thing]:
    """Four to eight things, most of them of the setting, each drawn when it is asked for."""
    by_name = {thing.name: thing for thing in THINGS}
    for _ in range(int(generator.integers(4, 9))):
        strange = generator.random() < _STRANGER
        yield THINGS[int(generator.integers(len(THINGS)))] if strange else by_name[pick(generator, setting.things)]


def lay_out(canvas: Canvas, generator: np.random.Generator, *, things: Iterable[Thing]) -> list[tuple[int, Plan]]:
    """Find a place for every thing; returns the number of each that has one, and its plan, furthest first."""
    plans: list[tuple[int, Plan]] = []
    for number, thing in enumerate(things):
        for _ in range(12):
            plan = _plan(canvas, generator, thing)
            if plan is not None and not any(_hides(plan, other) for _, other in plans):
                plans.append((number, plan))
                break
    # What stands lower in the picture is nearer and covers what is behind it; the sky is behind all.
    plans.sort(key=lambda item: (item[1].thing.place != "sky", item[1].thing.name not in ("sun", "moon"), item[1].base))
    return plans


def _plan(canvas: Canvas, generator: np.random.Generator, thing: Thing) -> Plan | None:
    height, width, horizon = canvas.height, canvas.width, canvas.horizon
    unit = 0.46 * height
    if thing.place == "sky":
        tall = thing.height * unit * float(generator.uniform(0.75, 1.25))
        base = float(generator.uniform(min(tall * 1.02, horizon), max(horizon * 1.05, tall * 1.02)))
    else:
        near = float(generator.uniform(0.04, 1.0))
        base = horizon + near * (height - horizon)
        tall = thing.height * unit * (0.62 + 0.6 * near) * float(generator.uniform(0.9, 1.12))
    wide = tall * thing.aspect
    if wide > 0.9 * width:  # of a tall and narrow picture
        tall, wide = tall * 0.9 * width / wide, 0.9 * width
    left = float(generator.uniform(-0.12 * wide, width - 0.88 * wide))
    if thing.place != "sky":
        row, column = min(int(base), height - 1), int(np.clip(left + wide / 2, 0, width - 1))
        under = CLASSES[canvas.classes[row, column]]
        if (under == "water") != (thing.place == "water") or under in ("sky", "mountain"):
            return None
    return Plan(thing, left, base, wide, tall)


def _hides(first: Plan, second: Plan) -> bool:
    """Whether one of two things would cover more than a quarter of the other's box."""
    across = min(first.left + first.wide, second.left + second.wide) - max(first.left, second.left)
    down = min(first.base, second.base) - max(first.base - first.tall, second.base - second.tall)
    smaller = min(first.wide * first.tall, second.wide * second.tall)
    return max(across, 0.0) * max(down, 0.0) > 0.25 * smaller
