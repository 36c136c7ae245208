"""The outline of a mask as a closed line along the edges of its pixels.

Coordinates are corners of pixels: pixel (row r, column c) is the square from (x, y) = (c, r) to (c + 1, r + 1), so
that the outline encloses exactly the mask's pixels. Pixels that meet at a corner hang together, as in `components`.
A hole is reached over a bridge: the line leaves the outer outline, runs to the hole, around it, and back the same way.

Some readers do not fill a polygon but draw it: they cut every coordinate to a whole number, take that as a pixel, draw
the line and fill what is inside. For them the line runs a hair inside the mask, so that each of its points lies in the
pixel that it belongs to, and drawing gives exactly the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.data.coco_masks import filled
from patchword.export.instances import Piece
from patchword.runs.records import Record


class PolygonLoss(Record):
    """What polygons lose against the masks that they stand for, measured by filling them again. See docs/on-disk.md."""

    polygons: int
    corners: int
    bridged_holes: int
    mean_iou_loss: float
    worst_iou_loss: float
    worst_image: str | None


_HAIR = 64
"""A line for readers that draw lies 1 / 64 of a pixel inside; single precision keeps that up to 60,000 pixels."""
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # east, south, west, north; the mask lies to the right


@dataclass(frozen=True, eq=False)
class Outline:
    """A polygon around a connected mask, points (n, 2) x, y in pixels, and how many holes the line goes around."""

    points: NDArray[np.float64]
    holes: int


def outline_of(mask: NDArray[np.bool_], *, tolerance: float = 0.0, inside: bool = False) -> Outline:
    """The outline of a mask (h, w), one connected piece of at least one pixel.

    Args:
        tolerance: how far in pixels the line may stray to save corners (Douglas and Peucker, 1973); 0 = exact.
    """
    rings = _rings(mask)
    outer = next(ring for ring in rings if _signed_area(ring) > 0)
    holes = sorted((ring for ring in rings if _signed_area(ring) < 0), key=_leftmost)
    line, bridge_ends, leaves = _bridged(outer, holes)
    scale = _HAIR if inside else 1
    points, fixed = _corners(*(_drawn_in(line, leaves) if inside else (line, bridge_ends)))
    if tolerance > 0:
        simple = _simplified(points, fixed, tolerance * scale)
        points = simple if len(simple) > 2 else points
    return Outline(points / scale, len(holes))


def _rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Every closed line of unit steps between mask and not mask: the outer one clockwise, holes the other way."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    height, width = mask.shape
    leaving = np.zeros((4, height + 1, width + 1), dtype=bool)  # by direction and the corner that the step starts from
    leaving[0, :-1, :-1] = inner & ~padded[:-2, 1:-1]
    leaving[1, :-1, 1:] = inner & ~padded[1:-1, 2:]
    leaving[2, 1:, 1:] = inner & ~padded[2:, 1:-1]
    leaving[3, 1:, :-1] = inner & ~padded[1:-1, :-2]
    direction, y, x = np.nonzero(leaving)
    to_x, to_y = x + _STEPS[direction, 0], y + _STEPS[direction, 1]
    left, right = (direction - 1) % 4, (direction + 1) % 4
    turn = np.where(leaving[left, to_y, to_x], left, np.where(leaving[direction, to_y, to_x], direction, right))
    place = np.zeros(leaving.shape, dtype=np.int64)
    place[direction, y, x] = np.arange(len(x))
    following: list[int] = place[turn, to_y, to_x].tolist()
    corners = np.stack([x, y], axis=1)
    return [corners[cycle] for cycle in _cycles(following)]


def _cycles(following: list[int]) -> list[list[int]]:
    cycles = []
    seen = bytearray(len(following))
    for start in range(len(following)):
        cycle = []
        step = start
        while not seen[step]:
            seen[step] = 1
            cycle.append(step)
            step = following[step]
        if cycle:
            cycles.append(cycle)
    return cycles


def _signed_area(ring: NDArray[np.int64]) -> int:
    """Twice the area, positive when clockwise on the screen."""
    x, y = ring[:, 0], ring[:, 1]
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _leftmost(ring: NDArray[np.int64]) -> tuple[int, int]:
    x, y = min(map(tuple, ring.tolist()))
    return x, y


def _bridged(
    outer: NDArray[np.int64], holes: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Join holes, leftmost first, to the line so far: what lies left of one is already in it.

    Returned are the corners of pixels on the line, unit steps and bridges apart, which of them are ends of bridges, and
    from which of them a bridge leads to the next.
    """
    points = [(x, y) for x, y in outer.tolist()]
    following = [*range(1, len(points)), 0]
    fixed = [False] * len(points)
    leaves = [False] * len(points)
    node_at = {point: node for node, point in enumerate(points)}
    for hole in holes:
        x, y = _leftmost(hole)
        turned = np.roll(hole, -int(np.flatnonzero((hole == (x, y)).all(axis=1))[0]), axis=0)
        landing = x
        while (landing, y) not in node_at:
            landing -= 1
        base = node_at[(landing, y)]
        added = [(a, b) for a, b in turned.tolist()] + [(x, y), (landing, y)]
        first = len(points)
        points += added
        fixed += [True, *([False] * (len(turned) - 1)), True, True]
        leaves += [*([False] * len(turned)), True, leaves[base]]
        fixed[base] = leaves[base] = True
        following += [*range(first + 1, len(points)), following[base]]
        following[base] = first
        for node in range(first, first + len(turned)):
            node_at.setdefault(points[node], node)
    order = _cycles(following)[0]
    return np.array(points)[order], np.array(fixed)[order], np.array(leaves)[order]


def _drawn_in(start: NDArray[np.int64], bridge: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Both ends of every step, drawn into the pixel of the mask that it runs along; in hairs."""
    step = np.roll(start, -1, axis=0) - start
    ahead = np.sign(step)
    right = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    first = start + np.minimum(ahead, 0) + np.minimum(right, 0)  # the pixel right of where the step starts
    first[bridge, 1] = start[bridge, 1]
    last = first + step - ahead
    low, high = np.stack([first, last], axis=1) * _HAIR + 1, (np.stack([first, last], axis=1) + 1) * _HAIR - 1
    ends = np.stack([start, start + step], axis=1) * _HAIR  # (n, 2 ends, 2)
    moving = (step != 0).any(axis=1)  # a bridge of no length is no step
    return np.clip(ends, low, high)[moving].reshape(-1, 2), np.repeat(bridge[moving], 2)


def _corners(points: NDArray[np.int64], fixed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Leave out points that repeat the one before, then those where the line goes straight on."""
    moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
    fixed = fixed | np.roll(fixed & ~moved, -1)
    points, fixed = points[moved], fixed[moved]
    before = np.sign(points - np.roll(points, 1, axis=0))
    turning = (before != np.roll(before, -1, axis=0)).any(axis=1)
    return points[turning], fixed[turning]


def _simplified(points: NDArray[np.int64], fixed: NDArray[np.bool_], tolerance: float) -> NDArray[np.int64]:
    """Drop points whose absence moves the line by no more than the tolerance; ends of bridges stay."""
    anchors = np.flatnonzero(fixed)
    if len(anchors) < 2:
        start = int(anchors[0]) if len(anchors) else 0
        far = int(np.square(points - points[start]).sum(axis=1).argmax())
        anchors = np.array(sorted({start, far}))
    points = np.roll(points, -int(anchors[0]), axis=0)
    anchors = np.append(anchors - anchors[0], len(points))
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[anchors] = True
    stretches = list(zip(anchors[:-1].tolist(), anchors[1:].tolist(), strict=True))
    while stretches:
        first, last = stretches.pop()
        distance = _distance(closed[first + 1 : last], closed[first], closed[last])
        if len(distance) and distance.max() > tolerance:
            middle = first + 1 + int(distance.argmax())
            keep[middle] = True
            stretches += [(first, middle), (middle, last)]
    return points[keep[:-1]]


def _distance(points: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of points (n, 2) from the stretch between two others, (n,)."""
    along = (end - start).astype(np.float64)
    offset = (points - start).astype(np.float64)
    length = float(along @ along)
    share = np.clip(offset @ along / length, 0, 1) if length else np.zeros(len(points))
    nearest: NDArray[np.float64] = np.linalg.norm(offset - share[:, None] * along, axis=1)
    return nearest


@dataclass
class LossCounter:
    """Adds up what polygons lose."""

    polygons: int = 0
    holes: int = 0
    total: float = 0.0
    worst: float = 0.0
    worst_image: str | None = None
    corners: int = 0

    def polygon(self, piece: Piece, *, name: str, tolerance: float, drawn: bool = False) -> NDArray[np.float64]:
        """The polygon of an object, (n, 2) x, y in pixels of the photograph, its loss counted."""
        outline = outline_of(piece.inside, tolerance=tolerance, inside=drawn)
        points: NDArray[np.float64] = outline.points + np.array(piece.box[:2])
        found = (painted if drawn else filled)(points, size=piece.size)
        mask = piece.mask()
        loss = 1 - float(np.count_nonzero(found & mask) / np.count_nonzero(found | mask))
        self.polygons += 1
        self.holes += outline.holes
        self.corners += len(points)
        self.total += loss
        if loss > self.worst:
            self.worst, self.worst_image = loss, name
        return points

    def summary(self) -> PolygonLoss | None:
        if not self.polygons:
            return None
        return PolygonLoss(
            polygons=self.polygons,
            corners=self.corners,
            bridged_holes=self.holes,
            mean_iou_loss=round(self.total / self.polygons, 6),
            worst_iou_loss=round(self.worst, 6),
            worst_image=self.worst_image,
        )


def painted(points: NDArray[np.float64], *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (h, w) of a polygon for readers that draw it: corners cut to whole pixels, the line and the inside."""
    image = Image.new("1", size[::-1])
    corners = np.floor(points).astype(int)
    ImageDraw.Draw(image).polygon(corners.ravel().tolist(), fill=1, outline=1)
    return np.array(image)
