"""What an export amounts to, as typed records that JSON can hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolygonLoss(_Record):
    """What polygons lose against the masks that they stand for, measured by filling them again.

    Attributes:
        polygons: how many.
        corners: of all of them together.
        bridged_holes: holes that the line reaches over a bridge; readers that ignore the direction of a line and do
            not count crossings fill them.
        mean_iou_loss, worst_iou_loss: 1 - intersection over union with the mask, in [0, 1].
        worst_image: name of the photograph with the worst; none when nothing was lost.
    """

    polygons: int
    corners: int
    bridged_holes: int
    mean_iou_loss: float
    worst_iou_loss: float
    worst_image: str | None


class Slivers(_Record):
    """Pieces of label maps that are too small to be objects. Masks of classes hold them all the same.

    Attributes:
        pieces: how many.
        pixels: of all of them together.
        share: of the labelled pixels of all photographs, in [0, 1].
    """

    pieces: int
    pixels: int
    share: float


class ExportSummary(_Record):
    """What was written.

    Attributes:
        format: name of the format.
        path: the file or folder.
        vocabulary_hash: of the classes.
        images: photographs in it.
        left_out: photographs that labelling had failed on.
        segments: objects; none for formats that hold classes of pixels alone.
        slivers: what is no object for being too small; none where nothing is.
        polygon_loss: none where the format holds masks.
        notes: what the format could not hold, one sentence each.
    """

    format: str
    path: str
    vocabulary_hash: str
    images: int
    left_out: int
    segments: int | None
    slivers: Slivers | None
    polygon_loss: PolygonLoss | None
    notes: tuple[str, ...]
