"""The public functions: keyword arguments come from the configs, a stage is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.align import AlignConfig
from patchword.config.command import command
from patchword.config.label import LabelConfig

if TYPE_CHECKING:
    from patchword.alignment.data import LabelledImages
    from patchword.evaluation.api import evaluate as evaluate
    from patchword.evaluation.benchmark_api import evaluate_benchmark as evaluate_benchmark
    from patchword.evaluation.benchmark_api import evaluate_suite as evaluate_suite
    from patchword.labeling.dataset import LabelledDataset
    from patchword.segmentation.api import segment as segment
    from patchword.segmentation.opening import load as load
    from patchword.segmentation.segmenter import Segmenter
    from patchword.suggestion.api import suggest as suggest

_HOMES = {
    "evaluate": "patchword.evaluation.api",
    "evaluate_benchmark": "patchword.evaluation.benchmark_api",
    "evaluate_suite": "patchword.evaluation.benchmark_api",
    "load": "patchword.segmentation.opening",
    "segment": "patchword.segmentation.api",
    "suggest": "patchword.suggestion.api",
}


@command(LabelConfig)
def label(photos: str | Path, config: LabelConfig) -> LabelledDataset:
    """Stage 1: make a data set of pseudo masks from photographs and class names.

    Returns:
        the data set; photographs that could not be labelled are listed in its `failed`.
    """
    from patchword.labeling.api import label_photos

    return label_photos(photos, config)


@command(AlignConfig)
def align(labels: str | Path | LabelledImages, config: AlignConfig) -> Segmenter:
    """Stage 2: train a segmenter on a data set of pseudo masks, or of exact masks.

    Returns:
        the segmenter; it is in `out` as well.
    """
    from patchword.alignment.api import align_dataset

    vision, text = align_dataset(labels, config)
    from patchword.segmentation.segmenter import Segmenter

    return Segmenter.from_pretrained(config.out, encoder=vision, text_encoder=text)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
