"""How every thing of Toytown is drawn: parts in a unit square, y downwards, later parts over earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = Sequence[tuple[float, float]]
_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class Pen:
    """Draws numbered parts of one thing into a small canvas, turned, mirrored and stretched.

    Args:
        width, height: canvas in pixels.
        angle: rotation in radians about the middle.
        mirror: whether left and right are swapped.
        generator: source of the variation inside a class.
    """

    def __init__(self, *, width: int, height: int, angle: float, mirror: bool, generator: np.random.Generator) -> None:
        self.generator = generator
        self._canvas = Image.new("L", (width, height), 0)
        self._draw = ImageDraw.Draw(self._canvas)
        # A turned unit square sticks out of the canvas; shrinking it keeps the corners in.
        shrink = 1 / (abs(np.cos(angle)) + abs(np.sin(angle)))
        cosine, sine = np.cos(angle) * shrink, np.sin(angle) * shrink
        self._matrix = np.array([[cosine, -sine], [sine, cosine]]).T
        self._mirror = -1.0 if mirror else 1.0
        self._size = np.array([width - 1, height - 1], dtype=float)

    def vary(self, low: float, high: float) -> float:
        """Draw a number between low and high."""
        return float(low + (high - low) * self.generator.random())

    def choose(self, count: int) -> int:
        """Draw one of 0 .. count - 1."""
        return int(self.generator.integers(count))

    def shape(self, part: int, points: Points | NDArray[np.float64]) -> None:
        """Fill a polygon given in the unit square."""
        centred = (np.asarray(points, dtype=float) - 0.5) * (self._mirror, 1.0)
        placed = (centred @ self._matrix + 0.5) * self._size
        self._draw.polygon(placed.ravel().tolist(), fill=part)

    def box(self, part: int, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a rectangle."""
        self.shape(part, [(left, top), (right, top), (right, bottom), (left, bottom)])

    def disc(self, part: int, x: float, y: float, radius: float, radius_y: float | None = None) -> None:
        """Fill an ellipse."""
        self.shape(part, _CIRCLE * (radius, radius if radius_y is None else radius_y) + (x, y))

    def arc(self, part: int, x: float, y: float, radius: float, start: float, stop: float) -> None:
        """Fill a pie of the circle between two angles in radians, clockwise from the right."""
        angles = np.linspace(start, stop, 14)
        rim = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        self.shape(part, np.concatenate([[(x, y)], rim]))

    def parts(self) -> NDArray[np.uint8]:
        """The canvas so far: (height, width), 0 where nothing was drawn."""
        return np.asarray(self._canvas)


def _house(pen: Pen) -> None:
    eaves = pen.vary(0.35, 0.5)
    pen.box(1, 0.1, eaves, 0.9, 1.0)
    pen.shape(2, [(0.0, eaves), (0.5, 0.0), (1.0, eaves)])
    door = pen.vary(0.2, 0.65)
    pen.box(3, door, 0.7, door + 0.17, 1.0)
    for left in (0.18, 0.62) if door > 0.35 and door < 0.5 else ((0.6,) if door < 0.4 else (0.2,)):
        pen.box(4, left, eaves + 0.1, left + 0.2, eaves + 0.27)


def _tree(pen: Pen) -> None:
    pen.box(3, 0.42, 0.5, 0.58, 1.0)
    for x, y, radius in ((0.3, 0.4, 0.25), (0.7, 0.4, 0.25), (0.5, 0.25, 0.25), (0.5, 0.48, 0.28)):
        pen.disc(1, x + pen.vary(-0.04, 0.04), y, radius * pen.vary(0.9, 1.05))


def _pine(pen: Pen) -> None:
    pen.box(3, 0.44, 0.8, 0.56, 1.0)
    for top, bottom, half in ((0.4, 0.85, 0.42), (0.2, 0.6, 0.33), (0.0, 0.35, 0.23)):
        pen.shape(1, [(0.5, top), (0.5 + half, bottom), (0.5 - half, bottom)])


def _car(pen: Pen) -> None:
    roof = pen.vary(0.15, 0.28)
    pen.shape(1, [(0.2, 0.5), (0.33, roof), (0.68, roof), (0.83, 0.5)])
    pen.shape(4, [(0.27, 0.48), (0.36, roof + 0.07), (0.49, roof + 0.07), (0.49, 0.48)])
    pen.shape(4, [(0.53, 0.48), (0.53, roof + 0.07), (0.66, roof + 0.07), (0.75, 0.48)])
    pen.box(1, 0.02, 0.47, 0.98, 0.8)
    for x in (0.25, 0.75):
        pen.disc(2, x, 0.8, 0.14, 0.19)
        pen.disc(4, x, 0.8, 0.06, 0.08)


def _boat(pen: Pen) -> None:
    pen.box(3, 0.47, 0.05, 0.52, 0.75)
    pen.shape(2, [(0.53, 0.08), (pen.vary(0.85, 0.97), 0.66), (0.53, 0.66)])
    pen.shape(2, [(0.45, 0.2), (0.45, 0.66), (pen.vary(0.08, 0.2), 0.66)])
    pen.shape(1, [(0.0, 0.72), (1.0, 0.72), (0.8, 1.0), (0.2, 1.0)])


def _sun(pen: Pen) -> None:
    rays = 9 + pen.choose(4)
    for angle in np.arange(rays) * 2 * np.pi / rays:
        tip = (0.5 + 0.5 * np.cos(angle), 0.5 + 0.5 * np.sin(angle))
        sides = [(0.5 + 0.3 * np.cos(angle + turn), 0.5 + 0.3 * np.sin(angle + turn)) for turn in (-0.22, 0.22)]
        pen.shape(2, [tip, *sides])
    pen.disc(1, 0.5, 0.5, 0.3)


def _cloud(pen: Pen) -> None:
    for x, y, radius in ((0.22, 0.62, 0.2), (0.42, 0.4, 0.27), (0.65, 0.45, 0.24), (0.8, 0.65, 0.19)):
        pen.disc(1, x, y + pen.vary(-0.04, 0.04), radius, radius * 1.25)
    pen.box(1, 0.2, 0.6, 0.82, 0.86)


def _ball(pen: Pen) -> None:
    pen.disc(1, 0.5, 0.5, 0.49)
    start = pen.vary(0, 1)
    for third in range(3):
        pen.arc(2, 0.5, 0.5, 0.49, start + third * 2.094, start + third * 2.094 + 1.0)
    pen.disc(3, 0.5, 0.5, 0.12)


def _flower(pen: Pen) -> None:
    pen.box(3, 0.46, 0.4, 0.54, 1.0)
    pen.disc(3, 0.66, 0.78, 0.14, 0.06)
    petals = 5 + pen.choose(3)
    for angle in np.arange(petals) * 2 * np.pi / petals:
        pen.disc(1, 0.5 + 0.21 * np.cos(angle), 0.32 + 0.21 * np.sin(angle), 0.13)
    pen.disc(2, 0.5, 0.32, 0.12)


def _fence(pen: Pen) -> None:
    for top in (0.3, 0.65):
        pen.box(2, 0.0, top, 1.0, top + 0.13)
    count = 4 + pen.choose(3)
    for left in np.linspace(0.02, 0.86, count):
        pen.shape(1, [(left, 0.15), (left + 0.06, 0.0), (left + 0.12, 0.15), (left + 0.12, 1.0), (left, 1.0)])


def _fish(pen: Pen) -> None:
    pen.shape(2, [(0.72, 0.5), (1.0, 0.12), (0.93, 0.5), (1.0, 0.88)])
    pen.shape(2, [(0.3, 0.2), (0.5, 0.0), (0.62, 0.25)])
    pen.disc(1, 0.4, 0.5, 0.4, 0.34)
    pen.disc(4, 0.17, 0.42, 0.06, 0.08)


def _mushroom(pen: Pen) -> None:
    pen.shape(2, [(0.38, 0.45), (0.62, 0.45), (0.7, 1.0), (0.3, 1.0)])
    pen.arc(1, 0.5, 0.53, 0.5, np.pi, 2 * np.pi)
    for x, y in ((0.25, 0.38), (0.5, 0.2), (0.74, 0.38), (0.5, 0.43)):
        pen.disc(4, x + pen.vary(-0.03, 0.03), y, 0.07)


def _star(pen: Pen) -> None:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 0.5, pen.vary(0.2, 0.25))
    pen.shape(1, np.stack([0.5 + radii * np.cos(angles), 0.52 + radii * np.sin(angles)], 1))


def _moon(pen: Pen) -> None:
    angles = np.linspace(-1.9, 1.9, 16)
    outer = np.stack([0.6 - 0.5 * np.cos(angles), 0.5 + 0.5 * np.sin(angles)], 1)
    inner = np.stack([0.75 - 0.4 * np.cos(angles[::-1]), 0.5 + 0.42 * np.sin(angles[::-1])], 1)
    pen.shape(1, np.concatenate([outer, inner]))


def _balloon(pen: Pen) -> None:
    for left, right in ((0.25, 0.4), (0.75, 0.6)):
        pen.shape(3, [(left - 0.02, 0.55), (left + 0.02, 0.55), (right + 0.02, 0.85), (right - 0.02, 0.85)])
    pen.disc(1, 0.5, 0.36, 0.42, 0.36)
    pen.disc(2, 0.5, 0.36, 0.14, 0.36)
    pen.box(3, 0.38, 0.82, 0.62, 1.0)


def _kite(pen: Pen) -> None:
    pen.shape(1, [(0.5, 0.0), (0.88, 0.3), (0.5, 0.75), (0.12, 0.3)])
    pen.shape(2, [(0.5, 0.0), (0.88, 0.3), (0.5, 0.3)])
    pen.shape(2, [(0.12, 0.3), (0.5, 0.3), (0.5, 0.75)])
    for y in (0.8, 0.92):
        pen.shape(3, [(0.36, y - 0.05), (0.64, y + 0.07), (0.64, y - 0.05), (0.36, y + 0.07)])
    pen.box(3, 0.48, 0.7, 0.52, 1.0)


def _umbrella(pen: Pen) -> None:
    pen.box(3, 0.47, 0.45, 0.53, 0.95)
    pen.box(3, 0.34, 0.9, 0.53, 0.97)
    pen.arc(1, 0.5, 0.5, 0.5, np.pi, 2 * np.pi)
    for x in (0.17, 0.5, 0.83):
        pen.arc(2, x, 0.51, 0.17, np.pi, 2 * np.pi)


def _butterfly(pen: Pen) -> None:
    for x in (0.25, 0.75):
        pen.disc(1, x, 0.3, 0.25, 0.28)
        pen.disc(1, x + (0.05 if x < 0.5 else -0.05), 0.74, 0.18, 0.23)
        pen.disc(2, x, 0.3, 0.1, 0.11)
    pen.disc(3, 0.5, 0.5, 0.06, 0.42)


def _bird(pen: Pen) -> None:
    pen.shape(2, [(0.72, 0.5), (1.0, 0.35), (0.98, 0.62)])
    pen.disc(1, 0.5, 0.55, 0.33, 0.25)
    pen.disc(1, 0.22, 0.36, 0.16, 0.19)
    pen.shape(3, [(0.08, 0.3), (-0.02, 0.4), (0.09, 0.43)])
    lift = pen.vary(0.0, 0.25)
    pen.shape(2, [(0.4, 0.5), (0.62, lift), (0.75, 0.5)])
    pen.disc(4, 0.19, 0.32, 0.04)
    for x in (0.45, 0.58):
        pen.box(3, x, 0.77, x + 0.05, 1.0)


def _lamp(pen: Pen) -> None:
    pen.box(2, 0.43, 0.3, 0.57, 1.0)
    pen.box(2, 0.25, 0.92, 0.75, 1.0)
    pen.shape(1, [(0.1, 0.07), (0.9, 0.07), (0.7, 0.36), (0.3, 0.36)])
    pen.box(2, 0.2, 0.0, 0.8, 0.08)


def _cactus(pen: Pen) -> None:
    pen.box(1, 0.38, 0.08, 0.62, 1.0)
    pen.disc(1, 0.5, 0.1, 0.12, 0.1)
    left, right = pen.vary(0.35, 0.55), pen.vary(0.3, 0.5)
    pen.box(1, 0.08, left, 0.4, left + 0.14)
    pen.box(1, 0.08, left - 0.22, 0.24, left + 0.14)
    pen.box(1, 0.6, right, 0.92, right + 0.14)
    pen.box(1, 0.76, right - 0.22, 0.92, right + 0.14)


def _snowman(pen: Pen) -> None:
    pen.disc(1, 0.5, 0.76, 0.34, 0.24)
    pen.disc(1, 0.5, 0.42, 0.25, 0.19)
    pen.disc(1, 0.5, 0.2, 0.17, 0.14)
    pen.box(2, 0.26, 0.08, 0.74, 0.13)
    pen.box(2, 0.36, 0.0, 0.64, 0.1)
    for y in (0.38, 0.48):
        pen.disc(2, 0.5, y, 0.045, 0.03)


def _rocket(pen: Pen) -> None:
    pen.shape(2, [(0.3, 0.6), (0.05, 0.98), (0.35, 0.85)])
    pen.shape(2, [(0.7, 0.6), (0.95, 0.98), (0.65, 0.85)])
    pen.shape(1, [(0.5, 0.0), (0.7, 0.28), (0.7, 0.86), (0.3, 0.86), (0.3, 0.28)])
    pen.disc(4, 0.5, 0.38, 0.11)
    pen.shape(3, [(0.38, 0.87), (0.62, 0.87), (0.5, 1.0)])


def _cup(pen: Pen) -> None:
    pen.disc(2, 0.75, 0.5, 0.23, 0.26)
    pen.shape(1, [(0.05, 0.08), (0.75, 0.08), (0.66, 1.0), (0.14, 1.0)])
    pen.box(3, 0.05, 0.02, 0.75, 0.14)


def _bench(pen: Pen) -> None:
    for left in (0.1, 0.8):
        pen.box(2, left, 0.1, left + 0.1, 1.0)
    for top in (0.0, 0.24):
        pen.box(1, 0.0, top, 1.0, top + 0.17)
    pen.box(1, 0.0, 0.55, 1.0, 0.72)


@dataclass(frozen=True)
class Thing:
    """A class of objects.

    Attributes:
        name: as captions call it.
        draw: fills the parts 1..4 of a unit square.
        aspect: width over height.
        place: "sky", "ground" or "water", where most of them stand.
        textures: what part 1 and part 2 are covered with.
        colours: of each of the parts 1..4, those it usually has; none where any will do.
        turn: largest rotation in radians.
    """

    name: str
    draw: Callable[[Pen], None]
    aspect: float
    place: str
    textures: tuple[str, str]
    colours: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    turn: float = 0.15


THINGS: tuple[Thing, ...] = (
    Thing(
        "house",
        _house,
        1.1,
        "ground",
        ("bricks", "scales"),
        (("red", "brown", "white"), ("red", "black", "brown"), ("brown", "blue", "green"), ("blue", "yellow")),
        0.06,
    ),
    Thing("tree", _tree, 0.85, "ground", ("leaves", "leaves"), (("green", "green", "orange"), (), ("brown",), ())),
    Thing("pine", _pine, 0.7, "ground", ("zigzag", "zigzag"), (("green", "green", "blue"), (), ("brown",), ())),
    Thing(
        "car",
        _car,
        1.8,
        "ground",
        ("plain", "plain"),
        (("red", "blue", "white", "black", "yellow"), ("black",), (), ("white", "blue")),
    ),
    Thing(
        "boat",
        _boat,
        1.1,
        "water",
        ("planks", "bars"),
        (("brown", "red", "white"), ("white", "red", "yellow"), ("brown",), ()),
    ),
    Thing("sun", _sun, 1.0, "sky", ("plain", "plain"), (("yellow", "orange"), ("orange", "yellow"), (), ()), 0.5),
    Thing("cloud", _cloud, 1.7, "sky", ("grains", "plain"), (("white", "white", "grey"), (), (), ())),
    Thing(
        "ball",
        _ball,
        1.0,
        "ground",
        ("plain", "plain"),
        (("red", "blue", "orange", "pink"), ("white", "yellow"), ("white",), ()),
        3.0,
    ),
    Thing(
        "flower",
        _flower,
        0.7,
        "ground",
        ("dots", "grains"),
        (("pink", "red", "purple", "white"), ("yellow", "orange"), ("green",), ()),
    ),
    Thing("fence", _fence, 1.6, "ground", ("plain", "plain"), (("brown", "white"), ("brown", "white"), (), ()), 0.08),
    Thing(
        "fish",
        _fish,
        1.6,
        "water",
        ("scales", "bars"),
        (("orange", "blue", "grey"), ("orange", "red", "blue"), (), ("black",)),
        0.4,
    ),
    Thing(
        "mushroom", _mushroom, 1.0, "ground", ("plain", "grains"), (("red", "red", "brown"), ("white",), (), ("white",))
    ),
    Thing("star", _star, 1.0, "sky", ("checks", "plain"), (("yellow", "yellow", "white"), (), (), ()), 0.6),
    Thing("moon", _moon, 0.85, "sky", ("rings", "plain"), (("white", "grey", "yellow"), (), (), ()), 0.4),
    Thing(
        "balloon",
        _balloon,
        0.75,
        "sky",
        ("zigzag", "dots"),
        (("red", "purple", "orange", "blue"), ("yellow", "white"), ("brown",), ()),
    ),
    Thing(
        "kite",
        _kite,
        0.7,
        "sky",
        ("checks", "hatch"),
        (("red", "green", "blue", "pink"), ("yellow", "orange"), ("white",), ()),
        0.5,
    ),
    Thing(
        "umbrella",
        _umbrella,
        1.0,
        "ground",
        ("bars", "dots"),
        (("purple", "blue", "red", "black"), ("pink", "white", "yellow"), ("black", "brown"), ()),
        0.3,
    ),
    Thing(
        "butterfly",
        _butterfly,
        1.2,
        "sky",
        ("rings", "grains"),
        (("orange", "blue", "purple", "pink"), ("yellow", "black"), ("black",), ()),
        0.5,
    ),
    Thing(
        "bird",
        _bird,
        1.3,
        "sky",
        ("blades", "hatch"),
        (("brown", "black", "blue", "red"), ("grey", "black", "brown"), ("orange", "yellow"), ("black",)),
    ),
    Thing("lamp", _lamp, 0.5, "ground", ("checks", "plain"), (("yellow", "white"), ("black", "grey"), (), ()), 0.06),
    Thing("cactus", _cactus, 0.8, "ground", ("bars", "plain"), (("green",), (), (), ())),
    Thing("snowman", _snowman, 0.7, "ground", ("flakes", "plain"), (("white",), ("black",), (), ())),
    Thing(
        "rocket",
        _rocket,
        0.7,
        "sky",
        ("planks", "hatch"),
        (("white", "grey", "red"), ("red", "blue"), ("orange", "yellow"), ("blue",)),
        0.5,
    ),
    Thing(
        "cup",
        _cup,
        1.1,
        "ground",
        ("hatch", "hatch"),
        (("white", "blue", "red"), ("white", "blue", "red"), ("brown", "white"), ()),
        0.3,
    ),
    Thing(
        "bench",
        _bench,
        1.5,
        "ground",
        ("furrows", "plain"),
        (("brown", "red", "green"), ("black", "grey"), (), ()),
        0.08,
    ),
)
