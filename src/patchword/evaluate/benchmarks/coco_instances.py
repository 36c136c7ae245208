"""COCO's instance annotations painted into one map of 80 classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError
from patchword.evaluate.benchmarks.json_file import read_json
from patchword.evaluate.benchmarks.lists import class_list
from patchword.evaluate.pairs import Pair


@dataclass(frozen=True)
class InstanceMasks:
    """The objects of COCO's photographs.

    Where objects overlap the smaller lies on top; crowds ("iscrowd") are painted as their class, below all single
    objects; objects of one area lie in the file's order. What no object covers is background. [chosen: COCO's instances
    have no order of their own]

    Attributes:
        path: the annotation file.
        images: the record of every photograph by file name.
        objects: the annotations of every photograph by its id.
        values_of: category id -> mask value, 1 to 80.
    """

    path: Path
    images: Mapping[str, Mapping[str, Any]]
    objects: Mapping[int, Sequence[Mapping[str, Any]]]
    values_of: Mapping[int, int]

    @classmethod
    def read(cls, path: Path) -> InstanceMasks:
        """Read COCO's `instances_val2017.json`.

        Raises:
            PatchwordError: when it cannot be read, or its categories are not COCO's 80 by name.
        """
        record = read_json(path, needs=("images", "annotations", "categories"))
        try:
            images = {str(image["file_name"]): image for image in record["images"]}
            objects: dict[int, list[Mapping[str, Any]]] = {int(image["id"]): [] for image in record["images"]}
            for each in record["annotations"]:
                objects.setdefault(int(each["image_id"]), []).append(each)
            names = {str(category["name"]): int(category["id"]) for category in record["categories"]}
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{path} is no COCO annotation file: {error!r}") from None
        wanted = class_list("coco_object").names
        if set(names) != set(wanted):
            other = sorted(set(names) ^ set(wanted))[0]
            raise PatchwordError(
                f"{path} has {len(names)} categories; allowed are COCO's {len(wanted)}, and {other!r} is not in both"
            )
        return cls(path, images, objects, {names[name]: value for value, name in enumerate(wanted, start=1)})

    def check_has(self, pairs: Sequence[Pair]) -> None:
        """Refuse photographs that the annotation file does not know.

        Raises:
            PatchwordError: saying how many, and which is the first.
        """
        unknown = [pair.name for pair in pairs if pair.photo.name not in self.images]
        if unknown:
            raise PatchwordError(
                f"{self.path} does not know {len(unknown)} of {len(pairs)} photographs, such as {unknown[0]}"
            )

    def values(self, pair: Pair) -> NDArray[np.integer]:
        """The map of a photograph, (h, w) uint8: 0 = background, 1 to 80 = the classes.

        Raises:
            PatchwordError: when an annotation is damaged.
        """
        image = self.images[pair.photo.name]
        try:
            height, width = int(image["height"]), int(image["width"])
            painted = np.zeros((height, width), dtype=np.uint8)
            for each in sorted(self.objects[int(image["id"])], key=_from_below):
                painted[decode_mask(each["segmentation"], height, width)] = self.values_of[int(each["category_id"])]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PatchwordError(f"{self.path}: the annotation of {pair.name} is damaged: {error!r}") from None
        return painted


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """A mask (h, w) from polygons, run lengths or compressed run lengths, as COCO has them."""
    if isinstance(segmentation, list):
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)) if segmentation else None
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    if encoded is None:
        return np.zeros((height, width), dtype=bool)
    mask: NDArray[np.bool_] = coco_mask.decode(encoded).astype(bool)
    return mask


def _from_below(annotation: Mapping[str, Any]) -> tuple[bool, float]:
    """Sorts crowds before single objects, and the large before the small."""
    return not annotation.get("iscrowd", 0), -float(annotation["area"])
