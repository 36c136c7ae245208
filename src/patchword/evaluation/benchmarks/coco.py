"""COCO val2017: the pixel maps of COCO-Stuff 164k, and COCO-Object from them or from COCO's own instances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.coco_masks import decode_segmentation, id_key
from patchword.errors import PatchwordError, first_line
from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part, pairs_of, photographs_in
from patchword.evaluation.benchmarks.lists import class_list, read_json
from patchword.evaluation.benchmarks.truth import BACKGROUND, UNLABELLED, mask_values
from patchword.evaluation.benchmarks.voc import counted_from_one
from patchword.evaluation.masks import IGNORE, Pair


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
    objects: Mapping[str, Sequence[Mapping[str, Any]]]
    values_of: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> InstanceMasks:
        """Read COCO's `instances_val2017.json`."""
        record = read_json(path, needs=("images", "annotations", "categories"))
        try:
            images = unique(record["images"], lambda image: str(image["file_name"]), what="file_name", path=path)
            by_id = unique(record["images"], lambda image: id_key(image["id"]), what="image id", path=path)
            objects: dict[str, list[Mapping[str, Any]]] = {number: [] for number in by_id}
            for each in record["annotations"]:
                objects.setdefault(id_key(each["image_id"]), []).append(each)
            categories = unique(record["categories"], lambda each: str(each["name"]), what="category", path=path)
            unique(record["categories"], lambda each: id_key(each["id"]), what="category id", path=path)
            names = {name: id_key(category["id"]) for name, category in categories.items()}
        except PatchwordError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{path} is no COCO annotation file: {error!r}") from None
        wanted = class_list("coco_object").names
        if set(names) != set(wanted):
            other = sorted(set(names) ^ set(wanted))[0]
            raise PatchwordError(
                f"{path} has {len(names)} categories; they must be COCO's {len(wanted)} ({other!r} differs)"
            )
        return cls(path, images, objects, {names[name]: value for value, name in enumerate(wanted, start=1)})

    def check_has(self, pairs: Sequence[Pair]) -> None:
        """Refuse photographs that the annotation file does not know, and two files of one name in different folders."""
        unknown = [pair.name for pair in pairs if pair.photo.name not in self.images]
        if unknown:
            raise PatchwordError(
                f"{self.path} does not know {len(unknown)} of {len(pairs)} photographs, such as {unknown[0]}"
            )
        owners: dict[str, str] = {}
        for pair in pairs:
            if owners.setdefault(pair.photo.name, pair.name) != pair.name:
                raise PatchwordError(
                    f"{owners[pair.photo.name]} and {pair.name} have one name in {self.path}; remove one"
                )

    def values(self, pair: Pair) -> NDArray[np.integer]:
        """The map of a photograph, (h, w) uint16: 0 = background, 1 to 80 = the classes."""
        image = self.images[pair.photo.name]
        place = f"{self.path}: the annotation of {pair.name} is damaged"
        objects = self.objects[id_key(image["id"])]
        return painted(
            image,
            objects,
            value_of=lambda each: self.values_of[id_key(each["category_id"])],
            below=_from_below,
            place=place,
        )


def unique(
    records: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str], *, what: str, path: Path
) -> dict[str, Mapping[str, Any]]:
    """Records by a key."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if found.setdefault(key(record), record) is not record:
            raise PatchwordError(f"{path} has the {what} {key(record)!r} twice; nothing says which of the two is meant")
    return found


def painted(
    image: Mapping[str, Any],
    objects: Iterable[Mapping[str, Any]],
    *,
    value_of: Callable[[Mapping[str, Any]], int],
    place: str,
    below: Callable[[Mapping[str, Any]], Any] | None = None,
) -> NDArray[np.uint16]:
    """Objects painted over each other, (h, w), 0 where there is none.

    Args:
        image: record of the photograph, with `height` and `width`.
        objects: its annotations, each with a `segmentation`.
        value_of: an annotation's value.
        place: what errors call the photograph.
        below: sorts annotations from below to above; None for the order in which they are.
    """
    try:
        size = int(image["height"]), int(image["width"])
        values = np.zeros(size, dtype=np.uint16)
        for each in objects if below is None else sorted(objects, key=below):
            try:
                mask, _ = decode_segmentation(
                    each.get("segmentation"), size=size
                )  # parts of 1 or 2 points enclose nothing
            except PatchwordError as error:
                raise PatchwordError(f"annotation {each.get('id', 'without an id')}: {error}") from None
            values[mask] = value_of(each)
    except PatchwordError as error:
        raise PatchwordError(f"{place}: {error}") from None
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise PatchwordError(f"{place}: {type(error).__name__} {first_line(error)}") from None
    return values


def _from_below(annotation: Mapping[str, Any]) -> tuple[bool, float]:
    """Sorts crowds before single objects, and the large before the small."""
    area = float(annotation["area"])
    if not math.isfinite(area):
        raise ValueError(f"area {area} is not a number of pixels")
    return not annotation.get("iscrowd", 0), -area


THINGS = 80  # classes 0 to 79 of COCO-Stuff are COCO's objects, the other 91 are stuff
_ALL = 171
# Values of the official pixel maps (category id - 1, 0 to 181) that no class has: 11 categories of things that COCO
# announced and never annotated. Source: COCO-Stuff's labels.txt (Caesar et al., arXiv 1612.03716).
_NEVER_USED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
_SPLIT = "all photographs of val2017"

_PLACES = ("", "coco_stuff164k", "coco", "coco2017", "COCO", "COCO2017", "coco_object", "mscoco", "coco-stuff")
_PHOTOGRAPHS = Part("photographs", ("images/val2017", "val2017"), holds="*.jpg")
_MAPS = (
    "annotations/val2017",
    "stuffthingmaps_trainval2017/val2017",
    "stuffthingmaps/val2017",
    "annotations/stuffthingmaps_trainval2017/val2017",
    "val2017",
)
_INSTANCES = (
    "annotations/instances_val2017.json",
    "annotations_trainval2017/annotations/instances_val2017.json",
    "instances_val2017.json",
)


def pixel_map_meaning() -> dict[int, int]:
    """The 182 values of the official pixel maps as positions among the 171 classes; 255 is unlabelled."""
    used = [value for value in range(182) if value not in _NEVER_USED]
    return {255: IGNORE} | {value: position for position, value in enumerate(used)}


def train_id_meaning() -> dict[int, int]:
    """Values that are positions among the 171 classes already; 255 is unlabelled."""
    return {255: IGNORE} | {position: position for position in range(_ALL)}


def only_things(meaning: dict[int, int]) -> dict[int, int]:
    """The same values where stuff is background.

    Unlabelled pixels are a choice. GroupViT's converter, whose masks the published numbers come from, makes background
    of them as of stuff: its 8-bit masks have no other number for them.
    """
    of_objects = {value: BACKGROUND if position >= THINGS else position for value, position in meaning.items()}
    return of_objects | {255: UNLABELLED}


def _maps(suffix: str, meaning: dict[int, int]) -> Callable[[Found], Content]:
    """How masks beside the photographs' names are read."""

    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]

        def mask_of(name: str) -> Path:
            return masks / f"{name}{suffix}.png"

        pairs = pairs_of(photographs_in(photos), photos=photos, mask_of=mask_of)
        return Content(pairs, mask_values, meaning, _SPLIT)

    return read


def _instances(found: Found) -> Content:
    photos, annotations = found["photographs"], found["instances"]
    masks = InstanceMasks.read(annotations)
    pairs = pairs_of(photographs_in(photos), photos=photos, mask_of=lambda name: annotations)
    masks.check_has(pairs)
    return Content(pairs, masks.values, counted_from_one(THINGS), _SPLIT)


def _layout(name: str, masks: Part, read: Callable[[Found], Content]) -> Layout:
    return Layout(name, (_PHOTOGRAPHS, masks), _PLACES, read)


_TRAIN_IDS = Part("masks", ("annotations/val2017", "val2017"), holds="*_labelTrainIds.png")
_PIXEL_MAPS = Part("masks", _MAPS, holds="*[0-9].png")
_CONTIGUOUS = Part("masks", ("stuffthingmaps_detectron2/val2017", "annotations_detectron2/val2017"), holds="*[0-9].png")

STUFF_LAYOUTS = (
    _layout("converted masks _labelTrainIds.png", _TRAIN_IDS, _maps("_labelTrainIds", train_id_meaning())),
    _layout("stuffthingmaps_trainval2017", _PIXEL_MAPS, _maps("", pixel_map_meaning())),
    _layout("stuffthingmaps_detectron2", _CONTIGUOUS, _maps("", train_id_meaning())),
)
OBJECT_LAYOUTS = (
    _layout(
        "converted masks _instanceTrainIds.png",
        Part("masks", ("annotations/val2017", "val2017"), holds="*_instanceTrainIds.png"),
        _maps("_instanceTrainIds", counted_from_one(THINGS)),
    ),
    _layout("stuffthingmaps_trainval2017", _PIXEL_MAPS, _maps("", only_things(pixel_map_meaning()))),
    _layout(
        "COCO-Stuff masks _labelTrainIds.png", _TRAIN_IDS, _maps("_labelTrainIds", only_things(train_id_meaning()))
    ),
    _layout("instances_val2017.json", Part("instances", _INSTANCES), _instances),
)
