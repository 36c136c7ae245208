"""Where the tiles of a large image lie: what each one sees, and which part of it is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
            seen=Box(down.seen[0], across.seen[0], down.seen[1], across.seen[1]),
            kept=Box(down.kept[0], across.kept[0], down.kept[1], across.kept[1]),
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


@dataclass(frozen=True)
class _Span:
    """Start and end along one axis of what a tile sees and of what is kept of it."""

    seen: tuple[int, int]
    kept: tuple[int, int]


def _spans(length: int, *, tile: int, overlap: int) -> list[_Span]:
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    starts = [max(0, min(number * (tile - overlap), length - tile)) for number in range(count)]
    ends = [min(start + tile, length) for start in starts]
    cuts = [0, *((end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)), length]
    return [
        _Span(seen=(start, end), kept=(first, last))
        for start, end, first, last in zip(starts, ends, cuts, cuts[1:], strict=False)
    ]
