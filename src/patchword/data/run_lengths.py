"""COCO's compressed run lengths of masks, made from and brought to the part of an image that a mask lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError


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


def run_ends(mask: RunLengths) -> NDArray[np.int64]:
    """Where each run of a mask ends (n,), counted down the columns of its image, outside first."""
    height, width = mask["size"]
    ends = np.cumsum(run_counts(mask["counts"]))
    if int(ends[-1]) != height * width:
        raise PatchwordError(f"a mask of {height} x {width} pixels has runs of {int(ends[-1])}; it is damaged")
    return ends


@dataclass(frozen=True, eq=False)
class MaskWindow:
    """The part of an image that a mask lies in; nothing is inside anywhere else.

    Attributes:
        inside: (h', w') bool, the mask there.
        top, left: its first row and column in the image.
        size: (height, width) of the image in pixels.
    """

    inside: NDArray[np.bool_]
    top: int
    left: int
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: RunLengths) -> Self:
        """Decode run lengths: the smallest window, of no pixels for an empty mask."""
        size = (mask["size"][0], mask["size"][1])
        height = size[0]
        ends = run_ends(mask)
        count = len(ends) // 2
        begins, stops = ends[: 2 * count : 2], ends[1::2]
        some = stops > begins
        begins, stops = begins[some], stops[some]
        if not len(begins):
            return cls(np.zeros((0, 0), dtype=bool), 0, 0, size)
        (column, row), (last_column, last_row) = np.divmod(begins, height), np.divmod(stops - 1, height)
        left, columns = int(column[0]), int(last_column[-1] - column[0]) + 1
        top, rows = 0, height  # a run that goes on in the next column touches both ends
        if (column == last_column).all():
            top = int(row.min())
            rows = int(last_row.max()) + 1 - top
        edges = np.empty(2 * len(begins) + 2, dtype=np.int64)
        edges[0], edges[-1] = 0, rows * columns
        edges[1:-1:2] = (column - left) * rows + row - top
        edges[2:-1:2] = (last_column - left) * rows + last_row - top + 1
        runs = np.arange(len(edges) - 1) % 2 == 1
        return cls(np.repeat(runs, np.diff(edges)).reshape(columns, rows).T, top, left, size)

    @property
    def rows(self) -> slice:
        """In the image."""
        return slice(self.top, self.top + self.inside.shape[0])

    @property
    def columns(self) -> slice:
        """In the image."""
        return slice(self.left, self.left + self.inside.shape[1])

    def part(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """The mask in rows and columns of the image around the window."""
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
        inside = found[self.top - rows.start :, self.left - columns.start :]
        inside[: self.inside.shape[0], : self.inside.shape[1]] = self.inside
        return found

    def whole(self) -> NDArray[np.bool_]:
        """The mask (h, w)."""
        return self.part(slice(0, self.size[0]), slice(0, self.size[1]))

    def run_lengths(self) -> RunLengths:
        """What `run_lengths` makes of the whole mask, without it."""
        (height, width), (rows, columns), inside = self.size, self.inside.shape, self.inside
        places = np.zeros(0, dtype=np.int64)  # begin, end, begin, end, ...
        if inside.size:
            row, column = np.divmod(np.flatnonzero(inside[1:] != inside[:-1]), columns)
            first, last = np.flatnonzero(inside[0]), np.flatnonzero(inside[-1])
            row = np.concatenate([row + 1, np.zeros_like(first), np.full_like(last, rows)])
            column = np.concatenate([column, first, last])
            places = np.sort((self.left + column) * height + self.top + row)
        joined = np.flatnonzero(places[2::2] == places[1:-1:2])  # one run: from the last row to the first of the next
        places = np.delete(places, np.concatenate([2 * joined + 1, 2 * joined + 2]))
        edges = [0, *places.tolist(), height * width]
        if edges[-1] == edges[-2]:
            edges.pop()
        counts = np.diff(edges).tolist()
        (encoded,) = coco_mask.frPyObjects([{"size": [height, width], "counts": counts}], height, width)
        return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}
