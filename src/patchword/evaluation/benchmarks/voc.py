"""PASCAL VOC 2012: indexed masks of 20 classes, 0 = background, 255 = the line around objects."""

from __future__ import annotations

from pathlib import Path

from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part, listed_pairs, pairs_with_masks
from patchword.evaluation.benchmarks.truth import BACKGROUND, Meaning, Values, mask_values
from patchword.evaluation.masks import IGNORE

_CLASSES = 20


def counted_from_one(count: int) -> dict[int, int]:
    """Mask values where 0 is background, 1 is the first class and 255 is ignored."""
    return {0: BACKGROUND, 255: IGNORE} | {value + 1: value for value in range(count)}


def devkit_content(found: Found, *, list_name: str, meaning: Meaning, values: Values = mask_values) -> Content:
    """Pairs of a VOC devkit: those that the list names, or where there is no list all that have a mask.

    Args:
        found: parts "photographs" and "masks", and perhaps "list".
        list_name: what the list is called in reports.
        meaning, values: of the masks.
    """
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.png"

    if "list" in found:
        return Content(listed_pairs(found["list"], photos=photos, mask_of=mask_of), values, meaning, list_name)
    pairs = pairs_with_masks(photos, mask_of=mask_of)
    return Content(pairs, values, meaning, f"no {list_name}: all photographs that have a mask")


def _read(found: Found) -> Content:
    return devkit_content(found, list_name="ImageSets/Segmentation/val.txt", meaning=counted_from_one(_CLASSES))


LAYOUTS = (
    Layout(
        "VOC 2012 devkit",
        (
            Part("photographs", ("JPEGImages",)),
            Part("masks", ("SegmentationClass", "SegmentationClassAug")),
            Part("list", ("ImageSets/Segmentation/val.txt",), needed=False),
        ),
        ("", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012"),
        _read,
    ),
)
