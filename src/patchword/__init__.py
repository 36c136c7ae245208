"""Photographs and class names in; pseudo labels and an open-vocabulary segmenter out.

>>> import patchword as pw
>>> labels = pw.label("photos/", classes=["cat", "dog", "sofa; couch"], out="labels/")
>>> model = pw.align(labels, encoder="facebook/dinov2-base", out="model/")
>>> result = model.segment("living_room.jpg", classes=["cat", "lamp"])

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchword.alignment.api import align as align
    from patchword.client import Client as Client
    from patchword.config.align import AlignSettings as AlignSettings
    from patchword.config.label import LabelSettings as LabelSettings
    from patchword.data.masks import LabelMap as LabelMap
    from patchword.data.masks import Segment as Segment
    from patchword.data.vocabulary import Vocabulary as Vocabulary
    from patchword.errors import PatchwordError as PatchwordError
    from patchword.evaluation.api import evaluate as evaluate
    from patchword.evaluation.confusion import ConfusionMatrix as ConfusionMatrix
    from patchword.evaluation.report import EvaluationReport as EvaluationReport
    from patchword.export.importers import import_labels as import_labels
    from patchword.export.run import export_labels as export_labels
    from patchword.labeling.api import label as label
    from patchword.labeling.dataset import LabelledDataset as LabelledDataset
    from patchword.labeling.dataset import LabelledItem as LabelledItem
    from patchword.labeling.folder import merge_labels as merge_labels
    from patchword.labeling.quality.records import QualitySummary as QualitySummary
    from patchword.models.loading import load_image_text as load_image_text
    from patchword.models.loading import load_mask_generator as load_mask_generator
    from patchword.models.loading import load_patch_encoder as load_patch_encoder
    from patchword.segmentation.api import segment as segment
    from patchword.segmentation.dense import DenseSegmenter as DenseSegmenter
    from patchword.segmentation.encoded import EncodedImage as EncodedImage
    from patchword.segmentation.opening import load as load
    from patchword.segmentation.records import SegmentedFolder as SegmentedFolder
    from patchword.segmentation.result import SegmentationResult as SegmentationResult
    from patchword.segmentation.segmenter import Segmenter as Segmenter
    from patchword.suggestion.api import suggest as suggest
    from patchword.suggestion.result import Suggestion as Suggestion

__version__ = "0.1.0"

_HOMES = {
    "align": "patchword.alignment.api",
    "evaluate": "patchword.evaluation.api",
    "label": "patchword.labeling.api",
    "segment": "patchword.segmentation.api",
    "suggest": "patchword.suggestion.api",
    "load": "patchword.segmentation.opening",
    "AlignSettings": "patchword.config.align",
    "Client": "patchword.client",
    "ConfusionMatrix": "patchword.evaluation.confusion",
    "DenseSegmenter": "patchword.segmentation.dense",
    "EncodedImage": "patchword.segmentation.encoded",
    "EvaluationReport": "patchword.evaluation.report",
    "LabelMap": "patchword.data.masks",
    "LabelSettings": "patchword.config.label",
    "LabelledDataset": "patchword.labeling.dataset",
    "LabelledItem": "patchword.labeling.dataset",
    "PatchwordError": "patchword.errors",
    "QualitySummary": "patchword.labeling.quality.records",
    "Segment": "patchword.data.masks",
    "SegmentationResult": "patchword.segmentation.result",
    "SegmentedFolder": "patchword.segmentation.records",
    "Segmenter": "patchword.segmentation.segmenter",
    "Suggestion": "patchword.suggestion.result",
    "Vocabulary": "patchword.data.vocabulary",
    "export_labels": "patchword.export.run",
    "import_labels": "patchword.export.importers",
    "merge_labels": "patchword.labeling.folder",
    "load_image_text": "patchword.models.loading",
    "load_mask_generator": "patchword.models.loading",
    "load_patch_encoder": "patchword.models.loading",
}

_FORMER = {"load_mask_proposer": "load_mask_generator"}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    name = _FORMER.get(name, name)
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
