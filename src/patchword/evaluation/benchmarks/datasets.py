"""How each standard data set lies on disk and what the values of its masks mean, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.annotations import (
    label_map_values,
    read_detail,
    read_instances,
    read_label_file,
)
from patchword.evaluation.benchmarks.layout import (
    BACKGROUND,
    JPEG,
    UNLABELLED,
    Content,
    Found,
    Layout,
    Meaning,
    Part,
    listed_pairs,
    mask_values,
    pairs_of,
    pairs_with_masks,
    photographs_in,
)
from patchword.evaluation.benchmarks.lists import class_list
from patchword.evaluation.masks import IGNORE

Read = Callable[[Found], Content]


def counted_from_one(count: int, *, zero: int = BACKGROUND) -> dict[int, int]:
    """Mask values where 1 is the first class and 255 is ignored; with `zero` ignored, what `reduce_zero_label` does."""
    return {0: zero, 255: IGNORE} | {value + 1: value for value in range(count)}


def unchanged(count: int) -> dict[int, int]:
    """Mask values that are positions among the classes already; 255 is ignored."""
    return {255: IGNORE} | {value: value for value in range(count)}


def _beside(meaning: Meaning, *, split: str, suffix: str = "", ending: str = JPEG) -> Read:
    """All photographs, each with a mask of its name and a suffix."""

    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]
        there = photographs_in(photos, ending=ending)
        pairs = pairs_of(there, photos=photos, mask_of=lambda name: masks / f"{name}{suffix}.png")
        return Content(pairs, mask_values, meaning, split)

    return read


def _with_masks(meaning: Meaning, *, split: str) -> Read:
    """The photographs that have a mask."""

    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]
        pairs = pairs_with_masks(photos, mask_of=lambda name: masks / f"{name}.png")
        return Content(pairs, mask_values, meaning, split)

    return read


def _devkit(meaning: Meaning, *, split: str) -> Read:
    """The photographs that the part "list" names, or where there is no list all that have a mask."""

    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]
        if "list" not in found:
            return _with_masks(meaning, split=f"no {split}: all photographs that have a mask")(found)
        pairs = listed_pairs(found["list"], photos=photos, mask_of=lambda name: masks / f"{name}.png")
        return Content(pairs, mask_values, meaning, split)

    return read


_JPEG_IMAGES = Part("photographs", ("JPEGImages",))
_VOC_LIST = "ImageSets/Segmentation/val.txt"
VOC = (
    Layout(
        "VOC 2012 devkit",
        (
            _JPEG_IMAGES,
            Part("masks", ("SegmentationClass", "SegmentationClassAug")),
            Part("list", (_VOC_LIST,), needed=False),
        ),
        ("", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012"),
        _devkit(counted_from_one(20), split=_VOC_LIST),
    ),
)


def _ade20k(name: str, folder: str, meaning: Meaning) -> Layout:
    return Layout(
        name,
        (Part("photographs", ("images/validation",)), Part("masks", (f"{folder}/validation",), holds="*.png")),
        ("", "ADEChallengeData2016", "ade/ADEChallengeData2016", "ADE20K/ADEChallengeData2016"),
        _beside(meaning, split="all photographs of images/validation"),
    )


ADE20K = (
    _ade20k("ADEChallengeData2016", "annotations", counted_from_one(150, zero=IGNORE)),
    _ade20k("annotations_detectron2 (values from 0)", "annotations_detectron2", unchanged(150)),
)

_PHOTO = "_leftImg8bit.png"
# The ids of road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
# rider, car, truck, bus, train, motorcycle and bicycle; every other id up to 33 is not scored.
# Source: cityscapesScripts, helpers/labels.py (Cordts et al., arXiv 1604.01685).
_SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def _cityscapes(name: str, suffix: str, meaning: Meaning) -> Layout:
    return Layout(
        name,
        (
            Part("photographs", ("leftImg8bit/val", "leftImg8bit_trainvaltest/leftImg8bit/val"), holds=f"*/*{_PHOTO}"),
            Part("masks", ("gtFine/val", "gtFine_trainvaltest/gtFine/val"), holds=f"*/*{suffix}.png"),
        ),
        ("", "cityscapes", "Cityscapes", "cityscape"),
        _beside(meaning, split="all photographs of leftImg8bit/val", suffix=suffix, ending=_PHOTO),
    )


CITYSCAPES = (
    _cityscapes("gtFine with labelTrainIds", "_gtFine_labelTrainIds", unchanged(len(_SCORED))),
    _cityscapes(
        "gtFine with labelIds",
        "_gtFine_labelIds",
        dict.fromkeys((*range(34), 255), IGNORE) | {value: k for k, value in enumerate(_SCORED)},
    ),
)

THINGS = 80  # classes 0 to 79 of COCO-Stuff are COCO's objects, the other 91 are stuff
_STUFF = 171
# Values of the official pixel maps (category id - 1, 0 to 181) that no class has: 11 categories of things that COCO
# announced and never annotated. Source: COCO-Stuff's labels.txt (Caesar et al., arXiv 1612.03716).
_NEVER_USED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
_SPLIT = "all photographs of val2017"
_maps = partial(_beside, split=_SPLIT)
_COCO = ("", "coco_stuff164k", "coco", "coco2017", "COCO", "COCO2017", "coco_object", "mscoco", "coco-stuff")
_VAL2017 = Part("photographs", ("images/val2017", "val2017"), holds="*.jpg")
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


def only_things(meaning: dict[int, int]) -> dict[int, int]:
    """The same values where stuff is background.

    Unlabelled pixels are a choice. GroupViT's converter, whose masks the published numbers come from, makes background
    of them as of stuff: its 8-bit masks have no other number for them.
    """
    of_objects = {value: BACKGROUND if position >= THINGS else position for value, position in meaning.items()}
    return of_objects | {255: UNLABELLED}


def _instances(found: Found) -> Content:
    photos, annotations = found["photographs"], found["instances"]
    masks = read_instances(annotations)
    pairs = pairs_of(photographs_in(photos), photos=photos, mask_of=lambda name: annotations)
    unknown = [pair.name for pair in pairs if pair.photo.name not in masks.images]
    if unknown:
        raise PatchwordError(
            f"{annotations} does not know {len(unknown)} of {len(pairs)} photographs, such as {unknown[0]}"
        )
    owners: dict[str, str] = {}
    for pair in pairs:
        if owners.setdefault(pair.photo.name, pair.name) != pair.name:
            raise PatchwordError(
                f"{owners[pair.photo.name]} and {pair.name} have one name in {annotations}; remove one"
            )
    return Content(pairs, masks.values, counted_from_one(THINGS), _SPLIT)


def _coco(name: str, masks: Part, read: Callable[[Found], Content]) -> Layout:
    return Layout(name, (_VAL2017, masks), _COCO, read)


_TRAIN_IDS = Part("masks", ("annotations/val2017", "val2017"), holds="*_labelTrainIds.png")
_PIXEL_MAPS = Part("masks", _MAPS, holds="*[0-9].png")
_CONTIGUOUS = Part("masks", ("stuffthingmaps_detectron2/val2017", "annotations_detectron2/val2017"), holds="*[0-9].png")

_INSTANCE_IDS = Part("masks", ("annotations/val2017", "val2017"), holds="*_instanceTrainIds.png")

COCO_STUFF = (
    _coco("converted masks _labelTrainIds.png", _TRAIN_IDS, _maps(unchanged(_STUFF), suffix="_labelTrainIds")),
    _coco("stuffthingmaps_trainval2017", _PIXEL_MAPS, _maps(pixel_map_meaning())),
    _coco("stuffthingmaps_detectron2", _CONTIGUOUS, _maps(unchanged(_STUFF))),
)
COCO_OBJECT = (
    _coco(
        "converted masks _instanceTrainIds.png",
        _INSTANCE_IDS,
        _maps(counted_from_one(THINGS), suffix="_instanceTrainIds"),
    ),
    _coco("stuffthingmaps_trainval2017", _PIXEL_MAPS, _maps(only_things(pixel_map_meaning()))),
    _coco(
        "COCO-Stuff masks _labelTrainIds.png",
        _TRAIN_IDS,
        _maps(only_things(unchanged(_STUFF)), suffix="_labelTrainIds"),
    ),
    _coco("instances_val2017.json", Part("instances", _INSTANCES), _instances),
)

# Ids of the 59 classes among the 459 labels, in the order of the class list, which is alphabetical in both.
# Source: PASCAL Context (Mottaghi et al., CVPR 2014), as the Detail API and mmsegmentation's converter have them.
_PUBLISHED = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
_OTHER_NAMES = {"diningtable": "table", "tv/monitor": "tvmonitor"}
_LABELS = 459  # of the published annotations, counted from 1; 0 is unlabelled
_CONTEXT_LIST = "ImageSets/SegmentationContext/val.txt"
_MAIN_LIST = "ImageSets/Main/val.txt"
_LISTS = Part("list", (_CONTEXT_LIST, _MAIN_LIST, "pascalcontext_val.txt"), needed=False)
_VOC2010 = ("", "VOC2010", "VOCdevkit/VOC2010", "VOCtrainval_03-May-2010/VOCdevkit/VOC2010", "pascal_context")


def class_ids(labels: Mapping[str, int], *, needed_in: Path | None = None) -> dict[str, int]:
    """Ids of the 59 classes in the benchmark's order: as the annotations' own list has them, else as published.

    Names are compared without spaces, in small letters; `needed_in` is a list that must have them all.
    """
    plain = {name.replace(" ", "").casefold(): value for name, value in labels.items()}
    said = {_OTHER_NAMES.get(name, name): value for name, value in plain.items()}
    names = class_list("context").names
    missing = [name for name in names if name not in said]
    if needed_in is not None and missing:
        raise PatchwordError(f"{needed_in} lacks {len(missing)} of the {len(names)} classes, such as {missing[0]!r}")
    return {name: said.get(name, published) for name, published in zip(names, _PUBLISHED, strict=True)}


def label_meaning(ids: dict[str, int]) -> dict[int, int]:
    """What the 459 labels are: the 59 classes by their ids, and background all the others, unlabelled included."""
    return dict.fromkeys(range(_LABELS + 1), BACKGROUND) | {value: k for k, value in enumerate(ids.values())}


def _label_maps(found: Found) -> Content:
    photos, masks = found["photographs"], found["masks"]
    meaning = label_meaning(class_ids(read_label_file(found["labels"]) if "labels" in found else {}))
    if "list" not in found:
        raise PatchwordError(
            f"{masks} holds training and validation photographs together; needed beside {photos} is {_CONTEXT_LIST} or "
            f"{_MAIN_LIST}, which say which are which"
        )
    pairs = listed_pairs(found["list"], photos=photos, mask_of=lambda name: masks / f"{name}.mat")
    return Content(pairs, label_map_values, meaning, "/".join(found["list"].parts[-3:]))


def _detail(found: Found) -> Content:
    photos, annotations = found["photographs"], found["annotations"]
    masks, categories = read_detail(annotations)
    there = photographs_in(photos)
    absent = [name for name in masks.images if name not in there]
    if absent:
        raise PatchwordError(
            f"{annotations} has {len(masks.images)} photographs for validation, {len(absent)} of them are not in "
            f"{photos}, such as {absent[0]}"
        )
    pairs = pairs_of({name: there[name] for name in masks.images}, photos=photos, mask_of=lambda name: annotations)
    return Content(pairs, masks.values, label_meaning(class_ids(categories)), f"phase val of {annotations.name}")


def _fifty_nine(found: Found) -> Content:
    """The archive 59_context_labels, whose order of classes is that of 59_labels.txt."""
    ids = class_ids(read_label_file(found["labels"]), needed_in=found["labels"])
    meaning = {0: BACKGROUND, 255: IGNORE} | {value: k for k, value in enumerate(ids.values())}
    shown = "/".join(found["list"].parts[-3:]) if "list" in found else _CONTEXT_LIST
    return _devkit(meaning, split=shown)(found)


CONTEXT = (
    Layout(
        "converted masks SegmentationClassContext",
        (
            _JPEG_IMAGES,
            Part("masks", ("SegmentationClassContext",), holds="*.png"),
            Part("list", (_CONTEXT_LIST,), needed=False),
        ),
        _VOC2010,
        _devkit(counted_from_one(59), split=_CONTEXT_LIST),
    ),
    Layout(
        "annotations_detectron2/pc59_val",
        (_JPEG_IMAGES, Part("masks", ("annotations_detectron2/pc59_val",), holds="*.png")),
        _VOC2010,
        _with_masks(unchanged(59) | {255: BACKGROUND}, split="all photographs with a mask in pc59_val"),
    ),
    Layout(
        "59_context_labels",
        (
            _JPEG_IMAGES,
            Part("masks", ("59_context_labels",), holds="*.png"),
            Part("labels", ("59_labels.txt", "59_context_labels/59_labels.txt")),
            _LISTS,
        ),
        _VOC2010,
        _fifty_nine,
    ),
    Layout(
        "trainval_merged.json",
        (_JPEG_IMAGES, Part("annotations", ("trainval_merged.json", "../trainval_merged.json"))),
        _VOC2010,
        _detail,
    ),
    Layout(
        "label maps trainval/*.mat",
        (
            _JPEG_IMAGES,
            Part("masks", ("trainval", "../trainval", "Context/trainval", "SegmentationContext"), holds="*.mat"),
            Part("labels", ("labels.txt", "../labels.txt", "trainval/labels.txt"), needed=False),
            _LISTS,
        ),
        _VOC2010,
        _label_maps,
    ),
)
