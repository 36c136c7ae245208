"""Sky, ground and water: quiet surfaces that look like what they are, drawn with depth towards a horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Surface = NDArray[np.float32]
_TILE = 512


@dataclass(frozen=True)
class View:
    """What a surface is drawn for.

    Attributes:
        height, width: of the canvas in pixels.
        top, bottom: rows between which the surface shows, in pixels.
        horizon: row of the horizon, in pixels.
    """

    height: int
    width: int
    top: float
    bottom: float
    horizon: float

    def depth(self) -> Surface:
        """(height, 1): 0 at the horizon and above, 1 at the lower border."""
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        return np.asarray(np.clip((rows - self.horizon) / max(self.height - self.horizon, 1.0), 0, 1), dtype=np.float32)


@dataclass(frozen=True)
class Stuff:
    """A class without countable objects.

    Attributes:
        name: as captions call it.
        colours: names of the colours that it has.
        paint: from its colour (3,) to its picture (height, width, 3).
        synonym: what a person might say for it; "" for nothing.
    """

    name: str
    colours: tuple[str, ...]
    paint: Callable[[View, Surface, np.random.Generator], Surface]
    synonym: str = ""


@cache
def _noise(blur: float, seed: int) -> Surface:
    """(tile, tile) smooth noise of unit deviation, drawn once a process."""
    values = np.random.default_rng(seed).standard_normal((_TILE, _TILE)).astype(np.float32)
    if blur:  # a Gaussian by Fourier, so that the tile repeats without a seam
        along = np.exp(-2 * (np.pi * blur * np.fft.fftfreq(_TILE)) ** 2)
        smooth = np.fft.ifft2(np.fft.fft2(values) * along[:, None] * along[None, :]).real
        values = smooth.astype(np.float32)
    return np.asarray((values - values.mean()) / values.std(), dtype=np.float32)


def grain(view_height: int, width: int, generator: np.random.Generator, *, blur: float = 0.0, seed: int = 1) -> Surface:
    """(view_height, width) noise of unit deviation: a random cut of a tile."""
    top, left = (int(value) for value in generator.integers(0, _TILE, 2))
    rows, columns = np.arange(top, top + view_height) % _TILE, np.arange(left, left + width) % _TILE
    return _noise(blur, seed)[rows][:, columns]


def _plain(view: View, colour: Surface) -> Surface:
    return np.broadcast_to(colour, (view.height, view.width, 3)).astype(np.float32)


def _strokes(view: View, strokes: list[tuple[list[tuple[float, float]], int, int]], *, soft: float = 0.0) -> Surface:
    """(height, width) offsets of brightness: lines of (points, value from -127 to 127, thickness)."""
    layer = Image.new("L", (view.width, view.height), 128)
    draw = ImageDraw.Draw(layer)
    for points, value, thickness in strokes:
        draw.line(points, fill=128 + value, width=max(thickness, 1))
    if soft:
        layer = layer.filter(ImageFilter.GaussianBlur(soft))
    return np.asarray(layer, dtype=np.float32) - 128


def _spread(view: View, generator: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Places on the ground, denser far away as perspective has it: x, y, and nearness from 0 to 1."""
    near = np.sqrt(generator.random(count)) if view.bottom > view.horizon else np.zeros(count)
    low, high = max(view.top, view.horizon), view.bottom
    return [
        (float(generator.uniform(0, view.width)), float(low + share * (high - low)), float(share)) for share in near
    ]


def paint_sky(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Deep above, pale towards the horizon."""
    fall = np.clip(np.arange(view.height, dtype=np.float32) / max(view.horizon, 1.0), 0, 1)[:, None, None]
    pale = colour + (np.float32(250) - colour) * np.float32(0.6)
    return np.asarray(_plain(view, colour) * (1 - fall) + pale * fall, dtype=np.float32)


def paint_mountain(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Slopes lit from the left, and snow where it is high."""
    surface = _plain(view, colour)
    layer = Image.new("L", (view.width, view.height), 128)
    draw = ImageDraw.Draw(layer)
    step = view.width / float(generator.integers(4, 7))
    for left in np.arange(-step, view.width + step, step):
        peak = float(left + step * generator.uniform(0.3, 0.7))
        draw.polygon(
            [(peak, view.top - 2), (peak + step * 0.75, view.horizon + 4), (peak - step * 0.1, view.horizon + 4)],
            fill=96,
        )
    surface = surface + (np.asarray(layer, np.float32) - 128)[:, :, None] * np.float32(0.9)
    rows = np.arange(view.height, dtype=np.float32)[:, None]
    ragged = 5 * grain(view.height, view.width, generator, blur=3.0, seed=5)
    snow = rows + ragged < view.top + 0.3 * (view.horizon - view.top)
    shade = np.asarray(layer, np.float32)[:, :, None] / 128
    return np.where(snow[:, :, None], np.float32(242) * (0.3 + 0.7 * shade), surface).astype(np.float32)


def paint_grass(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Tufts, larger when near."""
    scale = view.height / 384
    strokes: list[tuple[list[tuple[float, float]], int, int]] = []
    for x, y, near in _spread(view, generator, 170):
        tall = (3 + 8 * near) * scale
        value = int(generator.choice((-26, -18, 20)))
        thick = round((1 + 1.4 * near) * scale)
        strokes += [([(x, y), (x + lean * tall, y - tall)], value, thick) for lean in (-0.5, 0.0, 0.5)]
    light = 8 - 16 * view.depth()
    return _plain(view, colour) + (_strokes(view, strokes) + light)[:, :, None]


def paint_field(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Furrows that meet at the horizon."""
    middle = float(generator.uniform(0.2, 0.8)) * view.width
    layer = Image.new("L", (view.width, view.height), 128)
    draw = ImageDraw.Draw(layer)
    width = view.width * float(generator.uniform(0.16, 0.22))
    for number in range(-16, 17):
        left = middle + number * width
        draw.polygon(
            [
                (middle + number * width * 0.12, view.horizon - 1),
                (left, view.height),
                (left + width * 0.45, view.height),
                (middle + (number + 0.45) * width * 0.12, view.horizon - 1),
            ],
            fill=98,
        )
    furrows = np.asarray(layer.filter(ImageFilter.GaussianBlur(0.8)), np.float32) - 128
    clods = 3 * grain(view.height, view.width, generator, blur=1.0, seed=6)
    return _plain(view, colour) + (furrows + clods)[:, :, None]


def paint_sand(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Fine grain, low ripples, a few pebbles."""
    scale = view.height / 384
    strokes: list[tuple[list[tuple[float, float]], int, int]] = []
    for x, y, near in _spread(view, generator, 26):
        wide = (14 + 26 * near) * scale
        arc = [(x + wide * t, y + 2.2 * scale * np.cos(t * 3.0)) for t in np.linspace(-1, 1, 7)]
        strokes.append((arc, -20, round((1 + near) * scale)))
    fine = 6 * grain(view.height, view.width, generator, blur=0.6, seed=7)
    return _plain(view, colour) + (_strokes(view, strokes, soft=0.6) + fine)[:, :, None]


def paint_water(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Short crests, longer when near, and a light band far away."""
    scale = view.height / 384
    strokes: list[tuple[list[tuple[float, float]], int, int]] = []
    for x, y, near in _spread(view, generator, 85):
        wide = (6 + 20 * near) * scale
        crest = [(x + wide * t, y - 3 * scale * (0.4 + near) * np.cos(t * 4.4)) for t in np.linspace(-1, 1, 9)]
        strokes.append((crest, 46, round((1 + 1.2 * near) * scale)))
    light = 22 - 40 * view.depth()
    return _plain(view, colour) + (_strokes(view, strokes, soft=0.4) + light)[:, :, None]


def paint_snow(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Soft drifts with blue in their hollows."""
    drifts = grain(view.height, view.width, generator, blur=14.0, seed=8)
    hollow = np.clip(drifts, 0, 2)[:, :, None] * np.array([14, 9, 3], np.float32)
    return _plain(view, colour) - hollow


def paint_road(view: View, colour: Surface, generator: np.random.Generator) -> Surface:
    """Asphalt; its markings are added where its course is known."""
    fine = 3.5 * grain(view.height, view.width, generator, blur=0.7, seed=9)
    return _plain(view, colour) + fine[:, :, None]


STUFF: tuple[Stuff, ...] = (
    Stuff("sky", ("blue", "blue", "blue", "pale"), paint_sky),
    Stuff("grass", ("green",), paint_grass, "meadow"),
    Stuff("water", ("water",), paint_water, "sea"),
    Stuff("sand", ("sand",), paint_sand, "beach"),
    Stuff("road", ("road",), paint_road, "street"),
    Stuff("snow", ("snow white",), paint_snow),
    Stuff("mountain", ("rock", "brown rock", "purple rock"), paint_mountain, "hill"),
    Stuff("field", ("earth", "light earth"), paint_field),
)
