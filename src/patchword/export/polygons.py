"""Polygons of objects, what is lost by them, and the way back to masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.coco_masks import filled
from patchword.export.instances import Piece
from patchword.export.outlines import outline_of
from patchword.export.records import PolygonLoss


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
        """The polygon of an object, its loss counted.

        Args:
            name: the photograph's.
            tolerance: in pixels, see `outline_of`.
            drawn: whether the reader draws the polygon instead of filling it.

        Returns:
            (n, 2) x, y in pixels of the photograph.
        """
        outline = outline_of(piece.inside, tolerance=tolerance, inside=drawn)
        points: NDArray[np.float64] = outline.points + np.array(piece.box[:2])
        found = (painted if drawn else filled)(points, size=piece.size)
        loss = 1 - _iou(found, piece.mask())
        self.polygons += 1
        self.holes += outline.holes
        self.corners += len(points)
        self.total += loss
        if loss > self.worst:
            self.worst, self.worst_image = loss, name
        return points

    def summary(self) -> PolygonLoss | None:
        """What has been counted; none without polygons."""
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
    """The pixels (h, w) of a polygon as readers draw it: coordinates cut to whole pixels, the line and what is inside.

    Args:
        points: (n, 2) x, y in pixels, 3 or more.
        size: (height, width).
    """
    image = Image.new("1", size[::-1])
    corners = np.floor(points).astype(int)
    ImageDraw.Draw(image).polygon(corners.ravel().tolist(), fill=1, outline=1)
    return np.array(image)


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))
