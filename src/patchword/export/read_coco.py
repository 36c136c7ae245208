"""Reads COCO instances, with run lengths or polygons, whoever wrote them."""

from __future__ import annotations

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchword.config.exchange import ImportSettings
from patchword.data.coco_masks import decode_segmentation, id_key, polygon_points
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, UnusableError
from patchword.export.rasterize import Correction, Findings, Painted, Photographs, Region, check_size

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
        raise _told(error, source) from None
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


def read_json(source: Path) -> Any:
    """A JSON file."""
    try:
        if zipfile.is_zipfile(source):
            raise PatchwordError(f"{source} is an archive; unpack it and name the .json file in it")
        return json.loads(source.read_bytes())
    except PatchwordError:
        raise
    except OSError as error:
        raise PatchwordError(f"cannot read {source}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PatchwordError(f"{source} is not JSON: {error}") from None


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


def _told(error: Exception, source: Path) -> PatchwordError:
    if isinstance(error, PatchwordError):
        return PatchwordError(f"{source}: {error}")
    return PatchwordError(f"{source} is not a COCO instances file: {type(error).__name__} {error}")


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
