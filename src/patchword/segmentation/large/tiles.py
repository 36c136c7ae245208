"""Where the tiles of a large image lie, what each one sees and which part of it is kept, and how parts are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.config.segment import SegmentSettings


@dataclass(frozen=True)
class Box:
    """Rows from `top` to `bottom` and columns from `left` to `right`, in pixels of the image, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that holds `outer`."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


@dataclass(frozen=True)
class Tile:
    """One tile of a large image.

    Attributes:
        row, column: its place among the tiles.
        seen: what the segmenter is shown.
        kept: the part whose classes count; the kept parts of all tiles are a partition of the image.
    """

    row: int
    column: int
    seen: Box
    kept: Box


def plan_tiles(size: tuple[int, int], *, tile: int, overlap: int) -> list[Tile]:
    """Cut an image into tiles that overlap.

    All tiles are `tile` pixels a side, so that all are seen at the same scale; the last of a row or column reaches back
    instead of being smaller. The image is cut through the middle of what two neighbours share, so that around every
    kept pixel at least `overlap // 2` pixels are seen, or all that there are up to the image's edge.

    Args:
        size: (height, width) in pixels of the image.
        tile: side of a tile in pixels; a side of the image that is shorter is seen whole.
        overlap: pixels that neighbours share at least, 0 to tile - 1.

    Returns:
        the tiles, row by row.

    Source: [chosen]; docs/large.md.
    """
    rows = _spans(size[0], tile=tile, overlap=overlap)
    columns = _spans(size[1], tile=tile, overlap=overlap)
    return [
        Tile(
            row,
            column,
            seen=Box(down[0].start, across[0].start, down[0].stop, across[0].stop),
            kept=Box(down[1].start, across[1].start, down[1].stop, across[1].stop),
        )
        for row, down in enumerate(rows)
        for column, across in enumerate(columns)
    ]


def settings_of_tile(settings: SegmentSettings, *, seen: Box, own_size: int | None) -> SegmentSettings:
    """The settings with which a tile is segmented: those given, at the scale of a whole tile.

    `image_size` and `shorter_side` are of a tile of `settings.tile` pixels a side. A tile that is smaller, because the
    image is, is seen that much smaller, so that things of one size in pixels are seen in one size, whatever the image.

    Args:
        settings: of the run.
        seen: what the tile shows.
        own_size: the segmenter's own image size, where the settings have none; None where it is not known.
    """
    if (seen.height, seen.width) == (settings.tile, settings.tile):
        return settings
    if settings.shorter_side is not None:
        side = round(settings.shorter_side * min(seen.height, seen.width) / settings.tile)
        return settings.model_copy(update={"shorter_side": max(1, side), "longest_side": None})
    image_size = settings.image_size or own_size
    if image_size is None:
        return settings
    side = round(image_size * math.sqrt(seen.height * seen.width) / settings.tile)
    return settings.model_copy(update={"image_size": max(1, side)})


def _spans(length: int, *, tile: int, overlap: int) -> list[tuple[range, range]]:
    """Along one axis, what each tile sees and what is kept of it."""
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    starts = [max(0, min(number * (tile - overlap), length - tile)) for number in range(count)]
    ends = [min(start + tile, length) for start in starts]
    cuts = [0, *((end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)), length]
    return [
        (range(start, end), range(first, last))
        for start, end, first, last in zip(starts, ends, cuts, cuts[1:], strict=False)
    ]


class Pixels(NamedTuple):
    """A part of an image.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        valid: (h, w) bool, false where the file says that there is nothing; None where there is something everywhere.
    """

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None


class WindowReader(Protocol):
    """An image of which any part can be had.

    Attributes:
        size: (height, width) in pixels.
    """

    size: tuple[int, int]

    def read(self, box: Box) -> Pixels:
        """A part of the image, which lies inside of it."""

    def preview(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The whole image (height, width, 3) uint8 at a smaller size."""

    def close(self) -> None:
        """Let go of the file."""


class ArrayReader:
    """An image that is in memory as a whole, such as a photograph that its format gives only whole.

    Args:
        image: (h, w, 3) uint8.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self.size = (image.shape[0], image.shape[1])

    def read(self, box: Box) -> Pixels:
        """A part of the image."""
        return Pixels(self.image[box.top : box.bottom, box.left : box.right], None)

    def preview(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Every so many-th pixel of the image."""
        rows, columns = (sample_positions(whole, count=part) for whole, part in zip(self.size, size, strict=True))
        return self.image[rows[:, None], columns]

    def close(self) -> None:
        """Nothing is open."""


def sample_positions(length: int, *, count: int) -> NDArray[np.int64]:
    """The `count` positions of `length` that nearest-neighbour sampling takes: the middles of as many equal parts."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)
