"""ADE20K, SceneParse150: masks of 150 classes, 0 = anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchword.evaluation.benchmarks.layout import Content, Found, Layout, Part, pairs_of, photographs_in
from patchword.evaluation.benchmarks.truth import Meaning, mask_values
from patchword.evaluation.masks import IGNORE

_CLASSES = 150
_FROM_ONE = {0: IGNORE, 255: IGNORE} | {position + 1: position for position in range(_CLASSES)}
_FROM_ZERO = {255: IGNORE} | {position: position for position in range(_CLASSES)}


def _reader(meaning: Meaning) -> Callable[[Found], Content]:
    def read(found: Found) -> Content:
        photos, masks = found["photographs"], found["masks"]

        def mask_of(name: str) -> Path:
            return masks / f"{name}.png"

        pairs = pairs_of(photographs_in(photos), photos=photos, mask_of=mask_of)
        return Content(pairs, mask_values, meaning, "all photographs of images/validation")

    return read


_PHOTOGRAPHS = Part("photographs", ("images/validation",))
_PLACES = ("", "ADEChallengeData2016", "ade/ADEChallengeData2016", "ADE20K/ADEChallengeData2016")

LAYOUTS = (
    Layout(
        "ADEChallengeData2016",
        (_PHOTOGRAPHS, Part("masks", ("annotations/validation",), holds="*.png")),
        _PLACES,
        _reader(_FROM_ONE),
    ),
    Layout(
        "annotations_detectron2 (values from 0)",
        (_PHOTOGRAPHS, Part("masks", ("annotations_detectron2/validation",), holds="*.png")),
        _PLACES,
        _reader(_FROM_ZERO),
    ),
)
