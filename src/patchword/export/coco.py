"""COCO: instances with run lengths or polygons, and panoptic images of object numbers.

Reference: cocodataset.org, "Data format".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.folders import write_bytes
from patchword.export.files import png, write_json_object
from patchword.export.instances import Piece
from patchword.export.job import Job, Picture


def write_coco(job: Job, out: Path) -> None:
    """Write the file.

    Image ids count from 1 in the order of names; `file_name` is relative to the photographs' folder. Objects do not
    overlap; `score` is the labelling's and left out where no segment has the object's pixels.
    """
    if job.settings.shapes == "polygons":
        job.notes.append("holes are reached over bridges of no width, which pycocotools leaves empty")
    job.notes.append("pixels without a class cannot be told from pixels of no object")
    write_json_object(
        out,
        (
            ("info", {"description": "pseudo labels by patchword", "vocabulary": job.labels.vocabulary.hash}),
            ("licenses", []),
            ("categories", coco_categories(job)),
            ("images", coco_images(job)),
            ("annotations", _annotations(job)),
        ),
    )


def coco_categories(job: Job, **more: int) -> list[dict[str, Any]]:
    """The table of classes, with `more` fields for each."""
    return [category.to_json() | {"supercategory": category.name} | more for category in job.categories]


def coco_images(job: Job) -> Iterator[dict[str, Any]]:
    """One record a photograph."""
    for number, name, height, width in job.sizes():
        yield {"id": number, "file_name": name, "height": height, "width": width}


def _annotations(job: Job) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        for piece in job.objects(picture):
            job.segments += 1
            yield _annotation(job, picture, piece)


def _annotation(job: Job, picture: Picture, piece: Piece) -> dict[str, Any]:
    annotation = {
        "id": job.segments,
        "image_id": picture.number,
        "category_id": job.categories[piece.class_index].id,
        "segmentation": _segmentation(job, picture, piece),
        "area": piece.area,
        "bbox": list(piece.box),
        "iscrowd": 0,
    }
    return annotation if piece.score is None else annotation | {"score": piece.score}


def _segmentation(job: Job, picture: Picture, piece: Piece) -> Any:
    if job.settings.shapes == "masks":
        return piece.run_lengths()
    points = job.loss.polygon(piece, name=picture.name, tolerance=job.settings.tolerance)
    return [points.ravel().tolist()]


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
            ("annotations", _panoptic_annotations(job, out)),
        ),
    )


def _panoptic_annotations(job: Job, out: Path) -> Iterator[dict[str, Any]]:
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
