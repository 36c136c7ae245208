"""Masks seen at a lattice of points: what a mask says there is read off its run lengths, however large the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import RunLengths
from patchword.errors import PatchwordError

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Lattice:
    """Evenly spread pixels of an image.

    Attributes:
        rows, columns: positions along each side, rising; every pixel of an image that is small enough.
    """

    rows: Positions
    columns: Positions

    @classmethod
    def over(cls, size: tuple[int, int], *, side: int) -> Lattice:
        """Spread at most `side` rows and columns over an image of (height, width) pixels.

        The points stand in the middle of equal intervals, so that no border counts more than the rest.
        """
        return cls(_spread(size[0], side), _spread(size[1], side))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.columns)

    @classmethod
    def inside(cls, box: tuple[int, int, int, int], *, side: int) -> Lattice:
        """Spread at most `side` rows and columns over a box (x, y, width, height) in pixels."""
        x, y, width, height = box
        return cls(y + _spread(height, side), x + _spread(width, side))

    def window(self, box: tuple[int, int, int, int]) -> tuple[slice, slice]:
        """The part of the lattice within a box (x, y, width, height) in pixels."""
        x, y, width, height = box
        top, bottom = np.searchsorted(self.rows, (y, y + height)).tolist()
        left, right = np.searchsorted(self.columns, (x, x + width)).tolist()
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Runs:
    """A mask as the places where it begins and ends, counted down the columns of its image.

    Attributes:
        ends: (n,) where each run ends; the first is outside, the second inside, and so on.
        height: of the image in pixels.
    """

    ends: Positions
    height: int

    @classmethod
    def of(cls, mask: RunLengths) -> Runs:
        """Read run lengths."""
        height, width = mask["size"]
        ends = np.cumsum(run_counts(mask["counts"]))
        if int(ends[-1]) != height * width:
            raise PatchwordError(f"a mask of {height} x {width} pixels has runs of {int(ends[-1])}; it is damaged")
        return cls(ends, height)

    def at(self, rows: Positions, columns: Positions) -> NDArray[np.bool_]:
        """What the mask says at the crossings of rows and columns: (rows, columns).

        Takes time by the number of runs and crossings, and not by that of pixels.
        """
        places = columns[:, None] * self.height + rows  # (columns, rows)
        inside: NDArray[np.bool_] = np.searchsorted(self.ends, places, side="right").T % 2 == 1
        return inside


def run_counts(compressed: str) -> Positions:
    """Undo COCO's compression of run lengths.

    Six bits a character, of which the highest says that the number goes on and, in the last character, the one below
    is its sign; from the fourth run on a run is told by its difference from the one before last.

    Returns:
        (n,) lengths of the runs, outside first.
    """
    digits = np.frombuffer(compressed.encode("utf-8", errors="surrogatepass"), dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise PatchwordError("run lengths of a mask are damaged")
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])  # the first run is told as it is, and so are the second and the third
    counts[2::2] = np.cumsum(values[2::2])
    if counts.min() < 0:
        raise PatchwordError("run lengths of a mask are damaged")
    return counts


def _spread(length: int, side: int) -> Positions:
    count = min(length, side)
    return ((2 * np.arange(count, dtype=np.int64) + 1) * length) // (2 * count)
