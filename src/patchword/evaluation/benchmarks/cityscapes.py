"""Cityscapes: the 19 classes that are scored, from the official label ids or from train ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part, pairs_of, photographs_in
from patchword.evaluation.benchmarks.truth import Meaning, mask_values
from patchword.evaluation.masks import IGNORE

_PHOTO = "_leftImg8bit.png"
# The ids of road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
# rider, car, truck, bus, train, motorcycle and bicycle; every other id up to 33 is not scored.
# Source: cityscapesScripts, helpers/labels.py (Cordts et al., arXiv 1604.01685).
_SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LABEL_IDS = dict.fromkeys((*range(34), 255), IGNORE) | {value: k for k, value in enumerate(_SCORED)}
_TRAIN_IDS = {255: IGNORE} | {position: position for position in range(len(_SCORED))}


def _reader(suffix: str, meaning: Meaning) -> Callable[[Found], Content]:
    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]

        def mask_of(name: str) -> Path:
            return masks / f"{name}{suffix}.png"

        pairs = pairs_of(photographs_in(photos, ending=_PHOTO), photos=photos, mask_of=mask_of)
        return Content(pairs, mask_values, meaning, "all photographs of leftImg8bit/val")

    return read


def _layout(name: str, suffix: str, meaning: Meaning) -> Layout:
    return Layout(
        name,
        (
            Part("photographs", ("leftImg8bit/val", "leftImg8bit_trainvaltest/leftImg8bit/val"), holds=f"*/*{_PHOTO}"),
            Part("masks", ("gtFine/val", "gtFine_trainvaltest/gtFine/val"), holds=f"*/*{suffix}.png"),
        ),
        ("", "cityscapes", "Cityscapes", "cityscape"),
        _reader(suffix, meaning),
    )


LAYOUTS = (
    _layout("gtFine with labelTrainIds", "_gtFine_labelTrainIds", _TRAIN_IDS),
    _layout("gtFine with labelIds", "_gtFine_labelIds", _LABEL_IDS),
)
