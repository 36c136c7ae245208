"""COCO panoptic: one JSON file, and for each photograph a PNG whose colours are object numbers.

Reference: cocodataset.org, "Data format", panoptic segmentation; the rules that panopticapi checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.folders import write_bytes
from patchword.export.coco import coco_categories, coco_images
from patchword.export.files import png, write_json_object
from patchword.export.instances import Piece
from patchword.export.job import Job, Picture


def write_coco_panoptic(job: Job, out: Path) -> None:
    """Write `panoptic.json` and `panoptic/<name>.png`.

    An object's number is red + 256 green + 65536 blue; 0 is a pixel without an object, which panoptic quality leaves
    out. Every class counts as a thing, for labelling does not tell things from stuff.
    """
    job.notes.append("every class is marked as a thing; change `isthing` where a class is stuff")
    write_json_object(
        out / "panoptic.json",
        (
            ("info", {"description": "pseudo labels by patchword", "vocabulary": job.labels.vocabulary.hash}),
            ("licenses", []),
            ("categories", coco_categories(job, isthing=1)),
            ("images", coco_images(job)),
            ("annotations", _annotations(job, out)),
        ),
    )


def _annotations(job: Job, out: Path) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        pieces = job.objects(picture)
        job.segments += len(pieces)
        file_name = f"{picture.name}.png"
        write_bytes(out / "panoptic" / file_name, png(_numbers(picture, pieces)))
        yield {
            "image_id": picture.number,
            "file_name": file_name,
            "segments_info": [_segment(job, number, piece) for number, piece in enumerate(pieces, start=1)],
        }


def _numbers(picture: Picture, pieces: tuple[Piece, ...]) -> NDArray[np.uint8]:
    """(h, w, 3), each object's number as a colour."""
    numbers = object_numbers(picture.size, pieces)
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255], axis=-1).astype(np.uint8)


def object_numbers(size: tuple[int, int], pieces: tuple[Piece, ...]) -> NDArray[np.int32]:
    """(h, w), each object's position from 1, and 0 where there is none."""
    numbers = np.zeros(size, dtype=np.int32)
    for number, piece in enumerate(pieces, start=1):
        x, y, width, height = piece.box
        numbers[y : y + height, x : x + width][piece.inside] = number
    return numbers


def _segment(job: Job, number: int, piece: Piece) -> dict[str, Any]:
    return {
        "id": number,
        "category_id": job.categories[piece.class_index].id,
        "area": piece.area,
        "bbox": list(piece.box),
        "iscrowd": 0,
    }
