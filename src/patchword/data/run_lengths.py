"""Masks as runs of pixels, and COCO's compressed form of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError

Places = NDArray[np.int64]


class RunLengths(TypedDict):
    """A mask in COCO's compressed run-length form."""

    size: list[int]
    counts: str


def run_lengths(mask: NDArray[np.bool_]) -> RunLengths:
    """Encode a boolean mask (h, w)."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": encoded["counts"].decode("ascii")}


def run_counts(compressed: str) -> NDArray[np.int64]:
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


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask as the places where it begins and ends, counted down the columns of its image.

    Attributes:
        ends: (n,) where each run ends; the first is outside, the second inside, and so on.
        size: (height, width) of the image in pixels.
    """

    ends: Places
    size: tuple[int, int]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self.size == other.size and np.array_equal(self.ends, other.ends)

    @classmethod
    def of(cls, mask: RunLengths) -> Self:
        """Decode run lengths."""
        height, width = mask["size"]
        ends = np.cumsum(run_counts(mask["counts"]))
        if int(ends[-1]) != height * width:
            raise PatchwordError(f"a mask of {height} x {width} pixels has runs of {int(ends[-1])}; it is damaged")
        return cls(ends, (height, width))

    @classmethod
    def between(cls, places: Places, *, size: tuple[int, int]) -> Self:
        """Of where each stretch within a column begins and where it ends, by turns, rising."""
        places, last = _joined(places), size[0] * size[1]
        return cls(places if len(places) and int(places[-1]) == last else np.append(places, last), size)

    @classmethod
    def within(cls, inside: NDArray[np.bool_], *, top: int, left: int, size: tuple[int, int]) -> Self:
        """Of a mask's part (h', w') of an image that begins at a row and a column; nothing else is inside."""
        columns, places = inside.shape[1], np.zeros(0, dtype=np.int64)
        if inside.size:
            row, column = np.divmod(np.flatnonzero(inside[1:] != inside[:-1]), columns)
            first, last = np.flatnonzero(inside[0]), np.flatnonzero(inside[-1])
            row = np.concatenate([row + 1, np.zeros_like(first), np.full_like(last, len(inside))])
            column = np.concatenate([column, first, last])
            places = np.sort((left + column) * size[0] + top + row)
        return cls.between(places, size=size)

    def run_lengths(self) -> RunLengths:
        """In COCO's compressed form."""
        height, width = self.size
        counts = np.diff(self.ends, prepend=0).tolist()
        (encoded,) = coco_mask.frPyObjects([{"size": [height, width], "counts": counts}], height, width)
        return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}

    @property
    def area(self) -> int:
        """Pixels inside."""
        begins, stops = self._inner()
        return int((stops - begins).sum())

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) in pixels; all 0 for an empty mask."""
        columns, tops, bottoms = self.strokes
        if not len(columns):
            return 0, 0, 0, 0
        left, top = int(columns[0]), int(tops.min())
        return left, top, int(columns[-1]) + 1 - left, int(bottoms.max()) - top

    @cached_property
    def strokes(self) -> tuple[Places, Places, Places]:
        """The column of each stretch within one column, rising, its first row and the row after its last."""
        begins, stops = self._inner()
        height = self.size[0]
        first, last = begins // height, (stops - 1) // height
        many = last - first + 1
        columns = np.repeat(first, many)
        starts = np.cumsum(many) - many
        columns += np.arange(len(columns)) - np.repeat(starts, many)
        tops, bottoms = np.zeros_like(columns), np.full_like(columns, height)
        tops[starts] = begins - first * height
        bottoms[starts + many - 1] = stops - last * height
        return columns, tops, bottoms

    def edges(self, rows: slice, columns: slice) -> Places:
        """Where each stretch begins and ends, by turns, counted down the columns of a part that the mask lies in."""
        column, top, bottom = self.strokes
        first = (column - columns.start) * (rows.stop - rows.start) - rows.start
        return _joined(np.stack([first + top, first + bottom], axis=1).ravel())

    def part(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """The mask in rows and columns of the image around it."""
        left, top, wide, high = self.box
        own = slice(top, top + high), slice(left, left + wide)
        lengths = np.diff(self.edges(*own), prepend=0, append=high * wide)
        pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(wide, high).T
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
        found[top - rows.start :, left - columns.start :][:high, :wide] = pixels
        return found

    def whole(self) -> NDArray[np.bool_]:
        """The mask (h, w)."""
        return self.part(slice(0, self.size[0]), slice(0, self.size[1]))

    def at(self, rows: Places, columns: Places) -> NDArray[np.bool_]:
        """What the mask says at the crossings of rows and columns: (rows, columns).

        Takes time by the number of runs and crossings, and not by that of pixels.
        """
        places = columns[:, None] * self.size[0] + rows  # (columns, rows)
        inside: NDArray[np.bool_] = np.searchsorted(self.ends, places, side="right").T % 2 == 1
        return inside

    def _inner(self) -> tuple[Places, Places]:
        """Where the runs inside begin and end, without those of no pixels."""
        count = len(self.ends) // 2
        begins, stops = self.ends[: 2 * count : 2], self.ends[1::2]
        some = stops > begins
        return begins[some], stops[some]


def _joined(places: Places) -> Places:
    """Begins and ends by turns, without those at which a stretch ends and the next begins, a column's last row."""
    joints = np.flatnonzero(places[2::2] == places[1:-1:2])
    return np.delete(places, np.concatenate([2 * joints + 1, 2 * joints + 2]))
