"""Photographs and class names in; pseudo labels and an open-vocabulary segmenter out.

>>> import patchword as pw
>>> labels = pw.label("photos/", classes=["cat", "dog", "sofa; couch"], out="labels/")
>>> model = pw.align(labels, encoder="facebook/dinov2-base", out="model/")
>>> result = model.segment("living_room.jpg", classes=["cat", "lamp"])

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from patchword._rooms import ROOMS, RootPackage

if TYPE_CHECKING:
    from patchword.align.settings import AlignSettings as AlignSettings
    from patchword.api import align as align
    from patchword.api import evaluate as evaluate
    from patchword.api import label as label
    from patchword.api import segment as segment
    from patchword.api import suggest as suggest
    from patchword.errors import PatchwordError as PatchwordError
    from patchword.evaluate.confusion import ConfusionMatrix as ConfusionMatrix
    from patchword.export.bring_back import import_labels as import_labels
    from patchword.export.run import export_labels as export_labels
    from patchword.label.dataset import LabelledDataset as LabelledDataset
    from patchword.label.merge import merge_labels as merge_labels
    from patchword.label.settings import LabelSettings as LabelSettings
    from patchword.maps import LabelMap as LabelMap
    from patchword.maps import Segment as Segment
    from patchword.models import load_image_text as load_image_text
    from patchword.models import load_mask_proposer as load_mask_proposer
    from patchword.models import load_patch_encoder as load_patch_encoder
    from patchword.segment.baseline import DenseSegmenter as DenseSegmenter
    from patchword.segment.public import load as load
    from patchword.segment.segmenter import Segmenter as Segmenter
    from patchword.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

_HOMES = {
    "load": "patchword.segment.public",
    "AlignSettings": "patchword.align.settings",
    "ConfusionMatrix": "patchword.evaluate.confusion",
    "DenseSegmenter": "patchword.segment.baseline",
    "LabelMap": "patchword.maps",
    "LabelSettings": "patchword.label.settings",
    "LabelledDataset": "patchword.label.dataset",
    "PatchwordError": "patchword.errors",
    "Segment": "patchword.maps",
    "Segmenter": "patchword.segment.segmenter",
    "Vocabulary": "patchword.vocabulary",
    "export_labels": "patchword.export.run",
    "import_labels": "patchword.export.bring_back",
    "merge_labels": "patchword.label.merge",
    "load_image_text": "patchword.models",
    "load_mask_proposer": "patchword.models",
    "load_patch_encoder": "patchword.models",
}

__all__ = ["__version__", *_HOMES, *ROOMS]

sys.modules[__name__].__class__ = RootPackage


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
