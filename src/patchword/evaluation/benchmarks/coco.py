"""COCO val2017: the pixel maps of COCO-Stuff 164k, and COCO-Object from them or from COCO's own instances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchword.evaluation.benchmarks.coco_instances import InstanceMasks
from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part
from patchword.evaluation.benchmarks.pairing import pairs_of, photographs_in
from patchword.evaluation.benchmarks.truth import BACKGROUND, UNLABELLED, mask_values
from patchword.evaluation.benchmarks.voc import counted_from_one
from patchword.evaluation.masks import IGNORE

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
