"""Tiles of texture, drawn once a process: they tell grass from water where colours do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Tile = NDArray[np.float32]
TILE = 512


def _single(values: ArrayLike) -> Tile:
    """Values in single precision, for numpy's own functions do not say what they return."""
    return np.asarray(values, dtype=np.float32)


def _blur(values: Tile, rows: int, columns: int) -> Tile:
    """Average over a rows x columns window that wraps around."""
    for axis, width in ((0, rows), (1, columns)):
        if width > 1:
            values = np.mean([np.roll(values, shift, axis) for shift in range(width)], axis=0, dtype=np.float32)
    return values


def _unit(values: Tile) -> Tile:
    values = values - values.mean()
    deviation = max(float(values.std()), 1e-6)
    return _single(np.clip(values / (2 * deviation), -1, 1))


def _noise(seed: int) -> Tile:
    return np.random.default_rng(seed).standard_normal((TILE, TILE)).astype(np.float32)


def _grid() -> tuple[Tile, Tile]:
    rows, columns = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    return rows, columns


def _spots(seed: int, *, count: int, radius: float, ring: bool = False) -> Tile:
    """Scatter round spots; `ring` leaves them hollow."""
    generator = np.random.default_rng(seed)
    reach = int(radius) + 2
    offsets = np.arange(-reach, reach + 1)
    distance = np.hypot(offsets[:, None], offsets[None, :])
    stamp = ((distance <= radius) & ((distance > radius - 1.6) | (not ring))).astype(np.float32)
    tile = np.zeros((TILE, TILE), np.float32)
    for row, column in generator.integers(0, TILE, (count, 2)):
        rows, columns = np.ix_((row + offsets) % TILE, (column + offsets) % TILE)
        tile[rows, columns] = np.maximum(tile[rows, columns], stamp)
    return tile * 2 - 1


def _plain(scale: float) -> Tile:
    return _blur(_noise(1), 9, 9) * np.float32(0.3 * scale)


def _blades(scale: float) -> Tile:
    return _unit(_blur(_noise(2), round(7 * scale), 1))


def _waves(scale: float) -> Tile:
    rows, columns = _grid()
    bend = 2.2 * np.sin(columns * 2 * np.pi / 32)
    return _single(np.sin((rows + bend) * 2 * np.pi / (8 * scale)))


def _grains(scale: float) -> Tile:
    return _unit(_blur(_noise(3), max(1, round(2 * scale)), max(1, round(2 * scale))))


def _asphalt(scale: float) -> Tile:
    return _unit(_blur(_noise(4), 1, round(12 * scale))) * np.float32(0.45)


def _flakes(scale: float) -> Tile:
    return np.maximum(_spots(5, count=int(1500 / scale), radius=1.6 * scale), -0.15)


def _facets(scale: float) -> Tile:
    """Flat lozenges of different light, as on a rock face."""
    rows, columns = _grid()
    step = 14 * scale
    left = np.floor((rows + columns * 0.6) / step)
    right = np.floor((rows - columns * 0.6) / step)
    return _unit(_single(np.sin(left * 12.9898 + right * 78.233)))


def _furrows(scale: float) -> Tile:
    rows, columns = _grid()
    return _single(np.sign(np.sin((rows * 0.6 + columns) * 2 * np.pi / (11 * scale)))) * np.float32(0.8)


def _bricks(scale: float) -> Tile:
    rows, columns = _grid()
    height, width = 6 * scale, 12 * scale
    course = np.floor(rows / height)
    joint = (rows % height < 1.5) | ((columns + (course % 2) * width / 2) % width < 1.5)
    return np.where(joint, -1.0, 0.35).astype(np.float32)


def _leaves(scale: float) -> Tile:
    return _unit(_blur(_blur(_noise(6), round(3 * scale), round(3 * scale)), 2, 2))


def _scales(scale: float) -> Tile:
    rows, columns = _grid()
    size = 8 * scale
    course = np.floor(rows / (size / 2))
    across = (columns + (course % 2) * size / 2) % size - size / 2
    arc = np.hypot(across, rows % (size / 2))
    return np.where(np.abs(arc - size / 2.2) < 1.2, -1.0, 0.3).astype(np.float32)


def _bars(scale: float) -> Tile:
    _, columns = _grid()
    return _single(np.sign(np.sin(columns * 2 * np.pi / (9 * scale))))


def _planks(scale: float) -> Tile:
    rows, _ = _grid()
    return np.where(rows % (7 * scale) < 1.6, -1.0, 0.25).astype(np.float32)


def _checks(scale: float) -> Tile:
    rows, columns = _grid()
    return _single(np.sign(np.sin(rows * np.pi / (5 * scale)) * np.sin(columns * np.pi / (5 * scale))))


def _dots(scale: float) -> Tile:
    return _spots(7, count=int(2600 / scale), radius=2.2 * scale)


def _rings(scale: float) -> Tile:
    return _spots(8, count=int(900 / scale), radius=4.5 * scale, ring=True)


def _hatch(scale: float) -> Tile:
    rows, columns = _grid()
    return np.where((rows + columns) % (6 * scale) < 1.6, -1.0, 0.3).astype(np.float32)


def _zigzag(scale: float) -> Tile:
    rows, columns = _grid()
    period = 10 * scale
    tooth = np.abs(columns % period - period / 2)
    return _single(np.sign(np.sin((rows + tooth) * 2 * np.pi / period)))


_DRAW: dict[str, Callable[[float], Tile]] = {
    "plain": _plain,
    "blades": _blades,
    "waves": _waves,
    "grains": _grains,
    "asphalt": _asphalt,
    "flakes": _flakes,
    "facets": _facets,
    "furrows": _furrows,
    "bricks": _bricks,
    "leaves": _leaves,
    "scales": _scales,
    "bars": _bars,
    "planks": _planks,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "hatch": _hatch,
    "zigzag": _zigzag,
}
NAMES = tuple(_DRAW)
SCALES = (0.8, 1.0, 1.25)


@cache
def _tile(name: str, scale: float) -> Tile:
    return np.ascontiguousarray(_DRAW[name](scale))


def texture(name: str, *, height: int, width: int, generator: np.random.Generator, vary_scale: bool = True) -> Tile:
    """Cut a random piece of a texture, flipped left to right half of the time.

    Args:
        name: one of `NAMES`.
        height, width: size of the piece in pixels; pieces larger than the tile repeat it.
        generator: source of the place and the scale.
        vary_scale: draw one of three scales instead of the middle one.

    Returns:
        values in [-1, 1], (height, width).
    """
    scale = SCALES[int(generator.integers(len(SCALES)))] if vary_scale else 1.0
    tile = _tile(name, scale)
    top, left = (int(value) for value in generator.integers(0, TILE, 2))
    if height <= TILE - top and width <= TILE - left:
        piece = tile[top : top + height, left : left + width]
    else:
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        piece = tile.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
    return piece[:, ::-1] if generator.random() < 0.5 else piece
