"""How every thing of Toytown is drawn: parts in a unit square, y downwards, later parts over earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = Sequence[tuple[float, float]]
MAIN, SECOND, THIRD, FOURTH, DARK, LIGHT = range(1, 7)
"""Parts: the first four have a class's own colours, the last two are near black and near white in all."""
_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
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

    def pie(self, part: int, x: float, y: float, radius: float, start: float, stop: float, flat: float = 1.0) -> None:
        """Fill a pie of the circle between two angles in radians, clockwise from the right; `flat` squeezes it."""
        angles = np.linspace(start, stop, 18)
        rim = np.stack([x + radius * np.cos(angles), y + flat * radius * np.sin(angles)], 1)
        self.shape(part, np.concatenate([[(x, y)], rim]))

    def parts(self) -> NDArray[np.uint8]:
        """The canvas so far: (height, width), 0 where nothing was drawn."""
        return np.asarray(self._canvas)


def draw_house(pen: Pen) -> None:
    eaves = pen.vary(0.4, 0.48)
    chimney = pen.vary(0.66, 0.74)
    pen.box(SECOND, chimney, 0.08, chimney + 0.1, eaves)
    pen.box(MAIN, 0.1, eaves, 0.9, 1.0)
    pen.shape(SECOND, [(0.0, eaves + 0.03), (0.5, 0.0), (1.0, eaves + 0.03)])
    pen.box(THIRD, 0.42, 0.68, 0.58, 1.0)
    for left in (0.18, 0.66):
        pen.box(LIGHT, left - 0.015, eaves + 0.1, left + 0.175, eaves + 0.31)
        pen.box(FOURTH, left, eaves + 0.12, left + 0.16, eaves + 0.29)
        pen.box(LIGHT, left + 0.07, eaves + 0.12, left + 0.09, eaves + 0.29)
        pen.box(LIGHT, left, eaves + 0.195, left + 0.16, eaves + 0.215)


def draw_lighthouse(pen: Pen) -> None:
    pen.shape(MAIN, [(0.34, 0.24), (0.66, 0.24), (0.82, 1.0), (0.18, 1.0)])
    for top, bottom in ((0.38, 0.54), (0.7, 0.86)):
        inset = [0.34 - 0.16 * (y - 0.24) / 0.76 for y in (top, bottom)]
        pen.shape(SECOND, [(inset[0], top), (1 - inset[0], top), (1 - inset[1], bottom), (inset[1], bottom)])
    pen.box(DARK, 0.26, 0.22, 0.74, 0.26)
    pen.box(FOURTH, 0.37, 0.1, 0.63, 0.22)
    pen.box(DARK, 0.48, 0.1, 0.52, 0.22)
    pen.shape(SECOND, [(0.3, 0.11), (0.5, 0.0), (0.7, 0.11)])
    pen.box(DARK, 0.44, 0.88, 0.56, 1.0)


def draw_windmill(pen: Pen) -> None:
    pen.shape(MAIN, [(0.38, 0.34), (0.62, 0.34), (0.74, 1.0), (0.26, 1.0)])
    pen.pie(SECOND, 0.5, 0.36, 0.16, np.pi, 2 * np.pi)
    pen.box(DARK, 0.44, 0.84, 0.56, 1.0)
    turn = pen.vary(0.2, 1.3)
    for quarter in range(4):
        angle = turn + quarter * np.pi / 2
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        hub = np.array([0.5, 0.36])
        blade = [
            hub + along * 0.1,
            hub + along * 0.36,
            hub + along * 0.36 + across * 0.1,
            hub + along * 0.1 + across * 0.1,
        ]
        pen.shape(THIRD, np.array(blade))
        pen.shape(DARK, np.array([hub, hub + along * 0.36, hub + along * 0.36 - across * 0.02, hub - across * 0.02]))
    pen.disc(DARK, 0.5, 0.36, 0.04)


def draw_tree(pen: Pen) -> None:
    pen.shape(THIRD, [(0.44, 0.5), (0.56, 0.5), (0.6, 1.0), (0.4, 1.0)])
    for x, y, radius in ((0.27, 0.45, 0.24), (0.73, 0.45, 0.24), (0.5, 0.24, 0.24), (0.5, 0.46, 0.27)):
        pen.disc(MAIN, x + pen.vary(-0.03, 0.03), y, radius * pen.vary(0.94, 1.04))
    for x, y in ((0.3, 0.36), (0.5, 0.17), (0.62, 0.4), (0.4, 0.54)):
        pen.disc(SECOND, x + pen.vary(-0.04, 0.04), y + pen.vary(-0.03, 0.03), 0.07, 0.045)


def draw_pine(pen: Pen) -> None:
    pen.box(THIRD, 0.44, 0.8, 0.56, 1.0)
    for top, bottom, half in ((0.42, 0.86, 0.42), (0.22, 0.62, 0.33), (0.0, 0.38, 0.24)):
        pen.shape(MAIN, [(0.5, top), (0.5 + half, bottom), (0.5 - half, bottom)])
        pen.shape(
            SECOND,
            [
                (0.5 + half, bottom),
                (0.5 - half, bottom),
                (0.5 - half * 0.86, bottom - 0.06),
                (0.5 + half * 0.86, bottom - 0.06),
            ],
        )


def draw_cactus(pen: Pen) -> None:
    left, right = pen.vary(0.4, 0.55), pen.vary(0.35, 0.5)
    for x, inner, y in ((0.14, 0.4, left), (0.86, 0.6, right)):
        pen.box(MAIN, min(x - 0.08, inner), y, max(x + 0.08, inner), y + 0.12)
        pen.box(MAIN, x - 0.08, y - 0.2, x + 0.08, y + 0.08)
        pen.disc(MAIN, x, y - 0.2, 0.08, 0.06)
    pen.box(MAIN, 0.37, 0.12, 0.63, 1.0)
    pen.disc(MAIN, 0.5, 0.13, 0.13, 0.12)
    for x in (0.44, 0.5, 0.56):
        pen.box(SECOND, x - 0.012, 0.12, x + 0.012, 1.0)


def draw_flower(pen: Pen) -> None:
    pen.box(THIRD, 0.46, 0.4, 0.54, 1.0)
    pen.disc(THIRD, 0.7, 0.76, 0.18, 0.07)
    pen.disc(THIRD, 0.3, 0.86, 0.18, 0.07)
    petals = 5 + pen.choose(3)
    for angle in np.arange(petals) * 2 * np.pi / petals + pen.vary(0, 1):
        pen.disc(MAIN, 0.5 + 0.25 * np.cos(angle), 0.29 + 0.18 * np.sin(angle), 0.18, 0.13)
    pen.disc(SECOND, 0.5, 0.29, 0.14, 0.1)


def draw_mushroom(pen: Pen) -> None:
    pen.shape(SECOND, [(0.38, 0.5), (0.62, 0.5), (0.68, 1.0), (0.32, 1.0)])
    pen.pie(MAIN, 0.5, 0.56, 0.5, np.pi, 2 * np.pi, flat=1.1)
    pen.disc(MAIN, 0.5, 0.56, 0.5, 0.06)


def draw_car(pen: Pen) -> None:
    roof = pen.vary(0.08, 0.18)
    pen.shape(MAIN, [(0.18, 0.48), (0.32, roof), (0.68, roof), (0.84, 0.48)])
    pen.shape(FOURTH, [(0.26, 0.46), (0.35, roof + 0.08), (0.48, roof + 0.08), (0.48, 0.46)])
    pen.shape(FOURTH, [(0.53, 0.46), (0.53, roof + 0.08), (0.66, roof + 0.08), (0.76, 0.46)])
    pen.shape(MAIN, [(0.03, 0.5), (0.12, 0.43), (0.9, 0.43), (0.98, 0.55), (0.98, 0.8), (0.02, 0.8)])
    pen.box(LIGHT, 0.93, 0.55, 0.98, 0.64)
    for x in (0.25, 0.75):
        pen.disc(DARK, x, 0.79, 0.13, 0.2)
        pen.disc(LIGHT, x, 0.79, 0.055, 0.085)


def draw_truck(pen: Pen) -> None:
    pen.box(SECOND, 0.02, 0.05, 0.64, 0.78)
    pen.shape(MAIN, [(0.66, 0.24), (0.84, 0.24), (0.98, 0.5), (0.98, 0.8), (0.66, 0.8)])
    pen.shape(FOURTH, [(0.72, 0.3), (0.82, 0.3), (0.92, 0.5), (0.72, 0.5)])
    pen.box(DARK, 0.02, 0.76, 0.98, 0.83)
    for x in (0.17, 0.37, 0.81):
        pen.disc(DARK, x, 0.86, 0.095, 0.14)
        pen.disc(LIGHT, x, 0.86, 0.04, 0.06)


def draw_boat(pen: Pen) -> None:
    pen.box(DARK, 0.475, 0.02, 0.515, 0.75)
    pen.shape(SECOND, [(0.54, 0.06), (pen.vary(0.88, 0.97), 0.66), (0.54, 0.66)])
    pen.shape(SECOND, [(0.45, 0.16), (0.45, 0.66), (pen.vary(0.1, 0.2), 0.66)])
    pen.shape(MAIN, [(0.0, 0.72), (1.0, 0.72), (0.82, 1.0), (0.18, 1.0)])
    pen.shape(LIGHT, [(0.0, 0.72), (1.0, 0.72), (0.97, 0.77), (0.03, 0.77)])


def draw_cow(pen: Pen) -> None:
    for x in (0.2, 0.3, 0.6, 0.7):
        pen.box(MAIN, x, 0.6, x + 0.07, 0.97)
        pen.box(DARK, x, 0.92, x + 0.07, 1.0)
    pen.shape(DARK, [(0.08, 0.3), (0.11, 0.3), (0.1, 0.7), (0.06, 0.72)])
    pen.shape(
        MAIN, [(0.1, 0.28), (0.16, 0.22), (0.7, 0.22), (0.76, 0.3), (0.76, 0.66), (0.66, 0.72), (0.16, 0.7), (0.1, 0.6)]
    )
    pen.disc(SECOND, 0.3, 0.36, 0.12, 0.13)
    pen.disc(SECOND, 0.57, 0.52, 0.1, 0.12)
    pen.shape(MAIN, [(0.68, 0.14), (0.9, 0.14), (0.96, 0.42), (0.88, 0.5), (0.74, 0.44)])
    pen.disc(THIRD, 0.9, 0.42, 0.09, 0.1)
    pen.shape(LIGHT, [(0.7, 0.14), (0.68, 0.02), (0.75, 0.13)])
    pen.shape(LIGHT, [(0.85, 0.13), (0.91, 0.02), (0.91, 0.15)])
    pen.disc(DARK, 0.8, 0.25, 0.025, 0.035)


def draw_sheep(pen: Pen) -> None:
    for x in (0.26, 0.38, 0.58, 0.68):
        pen.box(DARK, x, 0.65, x + 0.06, 1.0)
    for x, y, radius in (
        (0.25, 0.45, 0.2),
        (0.42, 0.34, 0.22),
        (0.6, 0.36, 0.2),
        (0.7, 0.5, 0.19),
        (0.5, 0.58, 0.24),
        (0.3, 0.58, 0.2),
    ):
        pen.disc(MAIN, x, y, radius * 0.95, radius * 1.1)
    pen.disc(SECOND, 0.86, 0.36, 0.12, 0.18)
    pen.disc(SECOND, 0.75, 0.26, 0.07, 0.05)
    pen.disc(MAIN, 0.84, 0.18, 0.09, 0.09)
    pen.disc(LIGHT, 0.88, 0.33, 0.025, 0.035)


def draw_duck(pen: Pen) -> None:
    pen.shape(MAIN, [(0.02, 0.42), (0.3, 0.62), (0.2, 0.8)])
    pen.disc(MAIN, 0.46, 0.74, 0.38, 0.25)
    pen.shape(MAIN, [(0.6, 0.3), (0.78, 0.3), (0.8, 0.7), (0.56, 0.7)])
    pen.disc(MAIN, 0.7, 0.24, 0.17, 0.2)
    pen.shape(SECOND, [(0.84, 0.2), (1.0, 0.27), (0.84, 0.34)])
    pen.disc(THIRD, 0.42, 0.72, 0.2, 0.12)
    pen.disc(DARK, 0.75, 0.19, 0.03, 0.035)


def draw_bird(pen: Pen) -> None:
    pen.shape(SECOND, [(0.25, 0.5), (0.0, 0.4), (0.04, 0.62)])
    pen.disc(MAIN, 0.46, 0.55, 0.3, 0.22)
    pen.disc(MAIN, 0.76, 0.4, 0.16, 0.18)
    pen.shape(THIRD, [(0.9, 0.36), (1.0, 0.42), (0.9, 0.47)])
    lift = pen.vary(0.02, 0.2)
    pen.shape(SECOND, [(0.34, 0.52), (0.2, lift), (0.6, 0.46)])
    pen.disc(DARK, 0.8, 0.36, 0.03, 0.035)
    for x in (0.42, 0.52):
        pen.box(THIRD, x, 0.74, x + 0.04, 1.0)


def draw_fish(pen: Pen) -> None:
    pen.shape(SECOND, [(0.28, 0.5), (0.0, 0.12), (0.07, 0.5), (0.0, 0.88)])
    pen.shape(SECOND, [(0.4, 0.22), (0.52, 0.0), (0.72, 0.24)])
    pen.shape(SECOND, [(0.46, 0.78), (0.5, 0.98), (0.66, 0.78)])
    pen.disc(MAIN, 0.6, 0.5, 0.39, 0.36)
    pen.disc(LIGHT, 0.83, 0.4, 0.06, 0.085)
    pen.disc(DARK, 0.84, 0.4, 0.03, 0.045)


def draw_butterfly(pen: Pen) -> None:
    for x, inward in ((0.25, 0.06), (0.75, -0.06)):
        pen.disc(MAIN, x, 0.32, 0.25, 0.3)
        pen.disc(MAIN, x + inward, 0.74, 0.18, 0.24)
        pen.disc(SECOND, x, 0.32, 0.11, 0.13)
        pen.disc(SECOND, x + inward, 0.74, 0.08, 0.1)
    pen.disc(DARK, 0.5, 0.5, 0.055, 0.4)


def draw_sun(pen: Pen) -> None:
    rays = 10 + pen.choose(3)
    for angle in np.arange(rays) * 2 * np.pi / rays:
        tip = (0.5 + 0.5 * np.cos(angle), 0.5 + 0.5 * np.sin(angle))
        sides = [(0.5 + 0.3 * np.cos(angle + turn), 0.5 + 0.3 * np.sin(angle + turn)) for turn in (-0.2, 0.2)]
        pen.shape(SECOND, [tip, *sides])
    pen.disc(MAIN, 0.5, 0.5, 0.31)


def draw_moon(pen: Pen) -> None:
    angles = np.linspace(-1.9, 1.9, 20)
    outer = np.stack([0.6 - 0.5 * np.cos(angles), 0.5 + 0.5 * np.sin(angles)], 1)
    inner = np.stack([0.75 - 0.4 * np.cos(angles[::-1]), 0.5 + 0.42 * np.sin(angles[::-1])], 1)
    pen.shape(MAIN, np.concatenate([outer, inner]))


def draw_cloud(pen: Pen) -> None:
    for x, y, radius in ((0.2, 0.64, 0.19), (0.42, 0.42, 0.26), (0.65, 0.48, 0.23), (0.81, 0.66, 0.18)):
        pen.disc(MAIN, x, y + pen.vary(-0.04, 0.04), radius, radius * 1.25)
    pen.box(MAIN, 0.2, 0.62, 0.82, 0.88)


def draw_balloon(pen: Pen) -> None:
    for left, right in ((0.3, 0.41), (0.7, 0.59)):
        pen.shape(DARK, [(left - 0.01, 0.58), (left + 0.01, 0.58), (right + 0.01, 0.85), (right - 0.01, 0.85)])
    pen.shape(MAIN, [(0.12, 0.46), (0.88, 0.46), (0.6, 0.74), (0.4, 0.74)])
    pen.disc(MAIN, 0.5, 0.36, 0.44, 0.36)
    pen.box(THIRD, 0.39, 0.84, 0.61, 1.0)


def draw_kite(pen: Pen) -> None:
    pen.shape(DARK, [(0.49, 0.6), (0.51, 0.6), (0.61, 0.84), (0.5, 1.0), (0.48, 0.99), (0.58, 0.84)])
    pen.shape(MAIN, [(0.5, 0.0), (0.9, 0.3), (0.5, 0.72), (0.1, 0.3)])
    pen.shape(SECOND, [(0.5, 0.0), (0.9, 0.3), (0.5, 0.3)])
    pen.shape(SECOND, [(0.1, 0.3), (0.5, 0.3), (0.5, 0.72)])
    for x, y in ((0.58, 0.84), (0.51, 0.97)):
        pen.shape(THIRD, [(x - 0.12, y - 0.05), (x + 0.12, y + 0.05), (x + 0.12, y - 0.05), (x - 0.12, y + 0.05)])


def draw_ball(pen: Pen) -> None:
    pen.disc(MAIN, 0.5, 0.5, 0.49)


def draw_umbrella(pen: Pen) -> None:
    pen.box(DARK, 0.48, 0.4, 0.52, 0.96)
    pen.box(DARK, 0.38, 0.92, 0.52, 0.97)
    pen.pie(MAIN, 0.5, 0.5, 0.5, np.pi, 2 * np.pi)
    for x in (0.1, 0.3, 0.5, 0.7, 0.9):
        pen.disc(0, x, 0.52, 0.1, 0.05)
    pen.box(DARK, 0.48, 0.5, 0.52, 0.96)


def draw_snowman(pen: Pen) -> None:
    pen.disc(MAIN, 0.5, 0.77, 0.36, 0.23)
    pen.disc(MAIN, 0.5, 0.46, 0.26, 0.18)
    pen.disc(MAIN, 0.5, 0.23, 0.18, 0.14)
    pen.box(SECOND, 0.3, 0.33, 0.7, 0.39)
    pen.box(DARK, 0.26, 0.1, 0.74, 0.14)
    pen.box(DARK, 0.35, 0.0, 0.65, 0.12)
    for y in (0.46, 0.54):
        pen.disc(DARK, 0.5, y, 0.035, 0.022)
    for x in (0.43, 0.57):
        pen.disc(DARK, x, 0.2, 0.025, 0.017)
    pen.shape(THIRD, [(0.5, 0.23), (0.5, 0.27), (0.72, 0.26)])


def draw_fence(pen: Pen) -> None:
    for top in (0.34, 0.66):
        pen.box(SECOND, 0.0, top, 1.0, top + 0.11)
    count = 5 + pen.choose(2)
    for left in np.linspace(0.02, 0.87, count):
        pen.shape(MAIN, [(left, 0.14), (left + 0.055, 0.0), (left + 0.11, 0.14), (left + 0.11, 1.0), (left, 1.0)])


def draw_bench(pen: Pen) -> None:
    for left in (0.08, 0.84):
        pen.box(DARK, left, 0.06, left + 0.08, 1.0)
    for top in (0.0, 0.22):
        pen.box(MAIN, 0.0, top, 1.0, top + 0.16)
    pen.box(MAIN, 0.0, 0.52, 1.0, 0.68)


def draw_lamp(pen: Pen) -> None:
    pen.box(DARK, 0.44, 0.24, 0.56, 1.0)
    pen.box(DARK, 0.26, 0.95, 0.74, 1.0)
    pen.shape(MAIN, [(0.12, 0.06), (0.88, 0.06), (0.7, 0.27), (0.3, 0.27)])
    pen.shape(DARK, [(0.05, 0.07), (0.5, 0.0), (0.95, 0.07)])
