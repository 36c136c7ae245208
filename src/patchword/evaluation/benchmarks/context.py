"""PASCAL Context: 59 classes and what is none of them, from converted masks or from the published annotations."""

from __future__ import annotations

from pathlib import Path

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.context_labels import class_ids, ids_by_name, read_label_file
from patchword.evaluation.benchmarks.context_sources import DetailMasks, label_map_values
from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part
from patchword.evaluation.benchmarks.pairing import listed_pairs, pairs_of, pairs_with_masks, photographs_in
from patchword.evaluation.benchmarks.truth import BACKGROUND, mask_values
from patchword.evaluation.benchmarks.voc import counted_from_one, devkit_content
from patchword.evaluation.masks import IGNORE

_CLASSES = 59
_LABELS = 459  # of the published annotations, counted from 1; 0 is unlabelled
_CONTEXT_LIST = "ImageSets/SegmentationContext/val.txt"
_MAIN_LIST = "ImageSets/Main/val.txt"
_OTHER_LIST = "pascalcontext_val.txt"


def label_meaning(ids: dict[str, int], names: tuple[str, ...]) -> dict[int, int]:
    """What the 459 labels are: the 59 classes by their ids, and background all the others, unlabelled included."""
    return dict.fromkeys(range(_LABELS + 1), BACKGROUND) | {ids[name]: k for k, name in enumerate(names)}


def _converted(found: Found) -> Content:
    return devkit_content(found, list_name=_CONTEXT_LIST, meaning=counted_from_one(_CLASSES))


def _label_maps(found: Found) -> Content:
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.mat"

    names, ids = class_ids(read_label_file(found["labels"]) if "labels" in found else {})
    meaning = label_meaning(ids, names)
    if "list" in found:
        shown = "/".join(found["list"].parts[-3:])
        return Content(listed_pairs(found["list"], photos=photos, mask_of=mask_of), label_map_values, meaning, shown)
    raise PatchwordError(
        f"{masks} holds training and validation photographs together; needed beside {photos} is {_CONTEXT_LIST} or "
        f"{_MAIN_LIST}, which say which are which"
    )


def _detail(found: Found) -> Content:
    photos, annotations = found["photographs"], found["annotations"]
    masks = DetailMasks.read(annotations)
    there = photographs_in(photos)
    absent = [name for name in masks.names if name not in there]
    if absent:
        raise PatchwordError(
            f"{annotations} has {len(masks.names)} photographs for validation, {len(absent)} of them are not in "
            f"{photos}, such as {absent[0]}"
        )
    pairs = pairs_of({name: there[name] for name in masks.names}, photos=photos, mask_of=lambda name: annotations)
    names, ids = class_ids(masks.categories)
    return Content(pairs, masks.values, label_meaning(ids, names), f"phase val of {annotations.name}")


def _fifty_nine(found: Found) -> Content:
    """The archive 59_context_labels, whose order of classes is that of 59_labels.txt."""
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.png"

    names, ids = ids_by_name(read_label_file(found["labels"]), source=found["labels"])
    meaning = {0: BACKGROUND, 255: IGNORE} | {ids[name]: k for k, name in enumerate(names)}
    if "list" in found:
        shown = "/".join(found["list"].parts[-3:])
        return Content(listed_pairs(found["list"], photos=photos, mask_of=mask_of), mask_values, meaning, shown)
    pairs = pairs_with_masks(photos, mask_of=mask_of)
    return Content(pairs, mask_values, meaning, f"no {_CONTEXT_LIST}: all photographs that have a mask")


def _only_classes(found: Found) -> Content:
    """Masks of the validation photographs alone: 0 to 58, and 255 for all that is none of the 59."""
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.png"

    meaning = {255: BACKGROUND} | {position: position for position in range(_CLASSES)}
    pairs = pairs_with_masks(photos, mask_of=mask_of)
    return Content(pairs, mask_values, meaning, "all photographs with a mask in pc59_val")


_PHOTOGRAPHS = Part("photographs", ("JPEGImages",))
_LIST = Part("list", (_CONTEXT_LIST, _MAIN_LIST, _OTHER_LIST), needed=False)
_PLACES = ("", "VOC2010", "VOCdevkit/VOC2010", "VOCtrainval_03-May-2010/VOCdevkit/VOC2010", "pascal_context")

LAYOUTS = (
    Layout(
        "converted masks SegmentationClassContext",
        (
            _PHOTOGRAPHS,
            Part("masks", ("SegmentationClassContext",), holds="*.png"),
            Part("list", (_CONTEXT_LIST,), needed=False),
        ),
        _PLACES,
        _converted,
    ),
    Layout(
        "annotations_detectron2/pc59_val",
        (_PHOTOGRAPHS, Part("masks", ("annotations_detectron2/pc59_val",), holds="*.png")),
        _PLACES,
        _only_classes,
    ),
    Layout(
        "59_context_labels",
        (
            _PHOTOGRAPHS,
            Part("masks", ("59_context_labels",), holds="*.png"),
            Part("labels", ("59_labels.txt", "59_context_labels/59_labels.txt")),
            _LIST,
        ),
        _PLACES,
        _fifty_nine,
    ),
    Layout(
        "trainval_merged.json",
        (_PHOTOGRAPHS, Part("annotations", ("trainval_merged.json", "../trainval_merged.json"))),
        _PLACES,
        _detail,
    ),
    Layout(
        "label maps trainval/*.mat",
        (
            _PHOTOGRAPHS,
            Part("masks", ("trainval", "../trainval", "Context/trainval", "SegmentationContext"), holds="*.mat"),
            Part("labels", ("labels.txt", "../labels.txt", "trainval/labels.txt"), needed=False),
            _LIST,
        ),
        _PLACES,
        _label_maps,
    ),
)
