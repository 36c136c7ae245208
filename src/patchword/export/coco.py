"""COCO: instances with run lengths or polygons, and panoptic images of object numbers.

Reference: cocodataset.org, "Data format".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchword.config.exchange import ImportSettings
from patchword.data.coco_masks import decode_segmentation, id_key, polygon_points
from patchword.data.folders import write_bytes
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, UnusableError
from patchword.export.files import png, write_json_object
from patchword.export.instances import object_numbers
from patchword.export.job import Job
from patchword.export.rasterize import Correction, Findings, Painted, Photographs, Region, check_size, read_json


def write_coco(job: Job, out: Path) -> None:
    """Write the file.

    Image ids count from 1 in the order of names; `file_name` is relative to the photographs' folder. Objects do not
    overlap; `score` is the labelling's and left out where no segment has the object's pixels.
    """
    if job.settings.shapes == "polygons":
        job.notes.append("holes are reached over bridges of no width, which pycocotools leaves empty")
    job.notes.append("pixels without a class cannot be told from pixels of no object")
    _write(job, out, _annotations(job))


def _write(job: Job, out: Path, annotations: Iterator[dict[str, Any]], **more: int) -> None:
    """The file, with `more` fields for each category."""
    categories = [category.to_json() | {"supercategory": category.name} | more for category in job.categories]
    write_json_object(
        out,
        (
            ("info", {"description": "pseudo labels by patchword", "vocabulary": job.labels.vocabulary.hash}),
            ("licenses", []),
            ("categories", categories),
            ("images", _images(job)),
            ("annotations", annotations),
        ),
    )


def _images(job: Job) -> Iterator[dict[str, Any]]:
    """One record a photograph, without reading its label map."""
    for number, item in enumerate(job.labels.items, start=1):
        height, width = item.record.size or (0, 0)
        yield {"id": number, "file_name": item.record.name, "height": height, "width": width}


def _annotations(job: Job) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        for piece in job.objects(picture):
            job.segments += 1
            segmentation: Any = piece.run_lengths() if job.settings.shapes == "masks" else None
            if segmentation is None:
                points = job.loss.polygon(piece, name=picture.name, tolerance=job.settings.tolerance)
                segmentation = [points.ravel().tolist()]
            annotation = {
                "id": job.segments,
                "image_id": picture.number,
                "category_id": job.categories[piece.class_index].id,
                "segmentation": segmentation,
                "area": piece.area,
                "bbox": list(piece.box),
                "iscrowd": 0,
            }
            yield annotation if piece.score is None else annotation | {"score": piece.score}


def write_coco_panoptic(job: Job, out: Path) -> None:
    """Write `panoptic.json` and `panoptic/<name>.png`.

    An object's number is red + 256 green + 65536 blue; 0 is a pixel without an object, which panoptic quality leaves
    out. Every class counts as a thing, for labelling does not tell things from stuff.
    """
    job.notes.append("every class is marked as a thing; change `isthing` where a class is stuff")
    _write(job, out / "panoptic.json", _panoptic_annotations(job, out), isthing=1)


def _panoptic_annotations(job: Job, out: Path) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        pieces = job.objects(picture)
        job.segments += len(pieces)
        file_name = f"{picture.name}.png"
        numbers = object_numbers(picture.size, pieces)
        colours = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255], axis=-1)
        write_bytes(out / "panoptic" / file_name, png(colours.astype(np.uint8)))
        segments = [
            {
                "id": number,
                "category_id": job.categories[piece.class_index].id,
                "area": piece.area,
                "bbox": list(piece.box),
                "iscrowd": 0,
            }
            for number, piece in enumerate(pieces, start=1)
        ]
        yield {"image_id": picture.number, "file_name": file_name, "segments_info": segments}


_ORPHAN = "object of a photograph that the file does not list"
_NO_CATEGORY = "object of a category that the file does not list"
_NO_RECORD = "object that is no record"
_PART = "part of an object that has fewer than 3 points"
_SLACK = 1  # pixels that a polygon may reach beyond a photograph whose size the file does not say


def read_coco(source: Path, *, photographs: Photographs, vocabulary: Vocabulary, settings: ImportSettings) -> Findings:
    """The photographs of a COCO file. Classes are matched by name.

    Where objects overlap the smaller lies on top, crowds ("iscrowd") below all others, and objects of one area in the
    file's order.
    """
    data = read_json(source)
    try:
        names = _by_id(data["categories"], called="name", what="categories", source=source)
        images = _by_id(data["images"], called="file_name", what="images", source=source)
        declared = {id_key(image["id"]): (image.get("height"), image.get("width")) for image in data["images"]}
        objects, left_out = _by_image(data["annotations"], known=images, categories=names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, PatchwordError):
            raise PatchwordError(f"{source}: {error}") from None
        raise PatchwordError(f"{source} is not a COCO instances file: {type(error).__name__} {error}") from None
    used = {id_key(each["category_id"]) for some in objects.values() for each in some}
    try:
        classes = {number: vocabulary.index(name) for number, name in names.items() if number in used}
    except PatchwordError as error:
        raise PatchwordError(f"{source}: {error}") from None
    findings = Findings(left_out=left_out)
    for number, file_name in images.items():
        try:
            name = photographs.named(file_name, place=str(source))
        except PatchwordError as error:
            findings.failed[file_name] = str(error)
            continue
        paint = partial(_painted, objects[number], classes, f"{source}: {file_name}", declared[number])
        findings.corrections.append(Correction(name, paint))
    return findings


def _by_id(records: Sequence[Mapping[str, Any]], *, called: str, what: str, source: Path) -> dict[str, str]:
    """Names by id; an id of two names is refused."""
    names: dict[str, str] = {}
    for record in records:
        number, name = id_key(record["id"]), str(record[called])
        if names.setdefault(number, name) != name:
            raise PatchwordError(
                f"id {number} of {what} is both {names[number]!r} and {name!r}; give each an id of its own"
            )
    return names


def _by_image(
    annotations: Sequence[Any], *, known: Mapping[str, str], categories: Mapping[str, str]
) -> tuple[defaultdict[str, list[Mapping[str, Any]]], Counter[str]]:
    """Objects by the id of their photograph, and what has none."""
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for each in annotations:
        if not isinstance(each, Mapping):
            left_out[_NO_RECORD] += 1
        elif not _knows(known, each.get("image_id")):
            left_out[_ORPHAN] += 1
        elif not _knows(categories, each.get("category_id")):
            left_out[_NO_CATEGORY] += 1
        else:
            found[id_key(each["image_id"])].append(each)
    return found, left_out


def _knows(known: Mapping[str, str], value: Any) -> bool:
    try:
        return id_key(value) in known
    except TypeError:
        return False


def _painted(
    annotations: Sequence[Mapping[str, Any]],
    classes: Mapping[str, int],
    place: str,
    declared: tuple[Any, Any],
    size: tuple[int, int],
) -> Painted:
    if all(declared):
        check_size(_size(declared, place), needed=size, place=place)
    else:
        for each in annotations:
            _check_reach(each.get("segmentation"), size=size, place=place)
    left_out: Counter[str] = Counter()
    regions = []
    for each in annotations:
        try:
            mask, parts = decode_segmentation(each.get("segmentation"), size=size)
        except UnusableError as error:
            left_out[str(error)] += 1
            continue
        left_out[_PART] += parts
        regions.append((each.get("iscrowd") in (1, "1"), Region(classes[id_key(each["category_id"])], mask)))
    regions.sort(key=lambda each: (not each[0], -np.count_nonzero(each[1].mask)))
    return Painted.of((region for _, region in regions), size=size, left_out=+left_out)


def _size(declared: tuple[Any, Any], place: str) -> tuple[int, int]:
    try:
        return int(declared[0]), int(declared[1])
    except (OverflowError, TypeError, ValueError):
        raise PatchwordError(f"{place}: its height and width are {declared[0]!r} and {declared[1]!r}") from None


def _check_reach(segmentation: Any, *, size: tuple[int, int], place: str) -> None:
    """Refuse polygons of a photograph of unknown size that cannot have been drawn on this one."""
    for ring in segmentation if isinstance(segmentation, list) else ():
        try:
            points = polygon_points(ring)
        except (OverflowError, TypeError, ValueError):  # told when it is painted
            continue
        if len(points) > 2 and (points > np.array(size[::-1]) + _SLACK).any():
            right, bottom = points.max(axis=0)
            raise PatchwordError(
                f"{place}: an object reaches to x {right:g} and y {bottom:g}, the photograph is {size[1]} x {size[0]} "
                "pixels, and the file does not say the size that it was drawn on"
            )
