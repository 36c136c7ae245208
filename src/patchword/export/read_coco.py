"""Reads COCO instances, with run lengths or polygons, whoever wrote them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError
from patchword.export.painting import Correction, Painted, Photographs, Region, check_size
from patchword.export.polygons import filled
from patchword.vocabulary import Vocabulary


def read_coco(source: Path, *, photographs: Photographs, vocabulary: Vocabulary) -> list[Correction]:
    """The photographs of a COCO file. Classes are matched by name; where objects overlap, the later is on top.

    Raises:
        PatchwordError: when the file is not COCO, names a class that the vocabulary does not have or a photograph that
            is not there.
    """
    data = read_json(source)
    try:
        names = {int(category["id"]): str(category["name"]) for category in data["categories"]}
        by_image: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            by_image[int(annotation["image_id"])].append(annotation)
        used = {int(annotation["category_id"]) for annotation in data["annotations"]}
        classes = {number: vocabulary.index(names[number]) for number in sorted(used)}
        images = [(int(image["id"]), str(image["file_name"])) for image in data["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _told(error, source) from None
    return [
        Correction(
            photographs.named(file_name, place=str(source)),
            partial(_painted, by_image[number], classes, f"{source}: {file_name}"),
        )
        for number, file_name in images
    ]


def read_json(source: Path) -> Any:
    """A JSON file.

    Raises:
        PatchwordError: when it cannot be read.
    """
    try:
        return json.loads(source.read_bytes())
    except OSError as error:
        raise PatchwordError(f"cannot read {source}: {error.strerror}") from None
    except ValueError as error:
        raise PatchwordError(f"{source} is not JSON: {error}") from None


def _told(error: Exception, source: Path) -> PatchwordError:
    if isinstance(error, PatchwordError):
        return PatchwordError(f"{source}: {error}")
    return PatchwordError(f"{source} is not a COCO instances file: {type(error).__name__} {error}")


def _painted(
    annotations: Sequence[Mapping[str, Any]], classes: Mapping[int, int], place: str, size: tuple[int, int]
) -> Painted:
    try:
        regions = [
            Region(classes[int(each["category_id"])], _mask(each["segmentation"], size, place)) for each in annotations
        ]
    except PatchwordError:
        raise
    except Exception as error:  # pycocotools raises bare exceptions
        raise PatchwordError(f"{place}: an object's mask is damaged: {error}") from None
    return Painted.of(regions, size=size)


def _mask(segmentation: Any, size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        mask = np.zeros(size, dtype=bool)
        for ring in segmentation:
            points = np.array(ring, dtype=np.float64).reshape(-1, 2)
            if len(points) < 3:
                raise PatchwordError(f"{place}: a polygon has {len(points)} points; allowed are 3 or more")
            mask |= filled(points, size=size)
        return mask
    height, width = (int(side) for side in segmentation["size"])
    check_size((height, width), needed=size, place=place)
    counts = segmentation["counts"]
    runs = _runs(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise PatchwordError(f"{place}: an object's runs do not fill its {height} x {width} pixels")
    decoded = coco_mask.decode(coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))
    inside: NDArray[np.bool_] = decoded.astype(bool)
    return inside


def _runs(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a character, each but the first three the step from two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
