"""COCO instances: one JSON file with an entry for each object, as run lengths or as polygons.

Reference: cocodataset.org, "Data format", object detection.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchword.export.files import write_json_object
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
