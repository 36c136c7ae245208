"""The colours of classes: a palette of them, and a user's own put in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

IGNORE_COLOUR: Colour = (224, 224, 192)
_ALIKE = 16  # two colours are alike where no channel differs by more than this
_RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def palette(n: int) -> NDArray[np.uint8]:
    """Colours that are easy to tell apart, the same for a position whatever n is.

    Args:
        n: how many, 0 or more.

    Returns:
        (n, 3) uint8 RGB, all different.

    Source: the first 256 by farthest-point choice (Glasbey et al., 2007) in Oklab (Ottosson, 2020); the rest only
    differ.
    """
    chosen = _distinct_colours()
    if n <= len(chosen):
        return chosen[:n].copy()
    return np.concatenate([chosen, _more_colours(n - len(chosen), chosen)])


def alike(one: Colour, other: Colour) -> bool:
    """Whether a person may take one colour for the other: no channel differs by more than 16 of 255."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= _ALIKE


def class_colours(given: Sequence[Colour | None]) -> NDArray[np.uint8]:
    """A colour for every class: the given ones, and the palette's for the others.

    A class keeps the palette's colour of its position unless that is like a given one; it then takes the first colour
    after all positions that is not.

    Args:
        given: one entry a class, all different; None where the palette decides.

    Returns:
        (n, 3) uint8 RGB, all different.
    """
    colours = palette(len(given))
    fixed = np.array([colour for colour in given if colour is not None], dtype=np.uint8).reshape(-1, 3)
    waiting = []
    for position, colour in enumerate(given):
        if colour is not None:
            colours[position] = colour
        elif _any_alike(fixed, colours[position]):
            waiting.append(position)
    settled = np.delete(colours, waiting, axis=0)
    for position in waiting:
        colours[position] = _next_free(settled, start=len(given))
        settled = np.concatenate([settled, colours[position : position + 1]])
    return colours


def with_one_more(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours (n, 3) and one that none of them has; the palette's where that is free."""
    return np.concatenate([colours, _next_free(colours, start=len(colours))[None]])


def _next_free(taken: NDArray[np.uint8], *, start: int) -> NDArray[np.uint8]:
    """The first colour of the palette from a position on that is like no taken one, or at least equal to none."""
    colour: NDArray[np.uint8]
    for colour in _distinct_colours()[start:]:
        if not _any_alike(taken, colour):
            return colour
    candidates = palette(start + len(taken) + 1)[start:]  # more than are taken, and all different
    first: NDArray[np.uint8] = next(colour for colour in candidates if not (taken == colour).all(axis=1).any())
    return first


def _any_alike(taken: NDArray[np.uint8], colour: NDArray[np.uint8]) -> bool:
    apart = np.abs(taken.astype(np.int16) - colour.astype(np.int16)).max(axis=1, initial=0)  # (taken,)
    return bool((apart <= _ALIKE).any())


@cache
def _distinct_colours(count: int = 256) -> NDArray[np.uint8]:
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_oklab(candidates).round(6)  # so that the last digits of another machine's arithmetic choose the same
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    vivid = (lab[:, 0] > 0.45) & (lab[:, 0] < 0.92) & (chroma > 0.1)
    candidates, lab = candidates[vivid], lab[vivid]
    taken = _to_oklab(np.array([(0, 0, 0), (255, 255, 255), IGNORE_COLOUR], dtype=np.uint8))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=2).min(axis=1)
    chosen = []
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return np.stack(chosen)


def _more_colours(count: int, taken: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours that are not in `taken`: an odd factor visits every 24-bit colour once before it repeats."""
    order = np.arange(1, count + len(taken) + 1, dtype=np.uint64) * np.uint64(10368889) % np.uint64(1 << 24)
    packed = taken.astype(np.uint64) @ np.array([65536, 256, 1], dtype=np.uint64)
    free = order[~np.isin(order, packed)][:count]
    return np.stack([free >> np.uint64(shift) & np.uint64(255) for shift in (16, 8, 0)], axis=1).astype(np.uint8)


def _to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Oklab coordinates of sRGB colours (n, 3): lightness in [0, 1], then two of hue and chroma."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    oklab: NDArray[np.float64] = np.cbrt(linear @ _RGB_TO_CONES.T) @ _CONES_TO_OKLAB.T
    return oklab
