"""`evaluate`: scores of a segmenter, or of label maps on disk, against masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import PatchwordError
from patchword.inputs import Classes, check_limit, claim_output, read_vocabulary

if TYPE_CHECKING:
    from patchword.evaluate.masks import ZeroIs
    from patchword.evaluate.report import EvaluationReport
    from patchword.segment.baseline import DenseSegmenter
    from patchword.segment.segmenter import Segmenter


def evaluate(
    photos: str | Path,
    *,
    masks: str | Path,
    classes: Classes,
    model: str | Path | Segmenter | DenseSegmenter | None = None,
    predictions: str | Path | None = None,
    out: str | Path | None = None,
    zero_is: ZeroIs = "class",
    ignore_index: int | None = None,
    mask_suffix: str = "",
    background: Sequence[str] | None = None,
    names: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> EvaluationReport:
    """Measure a segmenter, or label maps on disk, against ground truth.

    Args:
        photos: a folder of photographs, searched recursively, or one photograph.
        masks: folder of masks; for `a/b.jpg` it holds `a/b.jpg.png` or `a/b.png`, 8-bit indexed or grey, or 16-bit.
        classes: the class list that the masks' values refer to, as for `label`.
        model: a segmenter or its folder. Exactly one of `model` and `predictions` is needed.
        predictions: folder of label maps over the same class list, such as those of `label` and `segment`.
        out: folder for `evaluation.json` and `confusion.csv`; None writes nothing.
        zero_is: what value 0 of a mask means: "class" (value v is the class at position v from 0), "background" (a
            class of its own; v is the v-th class; pixels where nothing is predicted count as background) or "ignore"
            (such pixels do not count; v is the v-th class).
        ignore_index: value of pixels that do not count; None for 255 in 8-bit masks and 65535 in 16-bit ones.
        mask_suffix: what stands between a mask's name and `.png`, such as `_labelTrainIds` in COCO-Stuff.
        background: words for background, which `model` needs where `zero_is` is "background"; None takes those of the
            class list.
        names: text file of the photographs to take, one a line, with or without suffix; None for all.
        limit: take the first so many, at least 1; None for all.
        device, dtype, overwrite, quiet, command: as for `label`.

    Returns:
        the scores by the benchmarks' rule, and all that they depend on.

    Raises:
        PatchwordError: for anything above that is not as described, a photograph without mask or prediction, sizes that
            differ, and mask values outside the class list.
    """
    from patchword.evaluate.masks import MaskRule
    from patchword.evaluate.pairs import find_pairs
    from patchword.evaluate.predictions import read_predictions
    from patchword.evaluate.report import MARKER, make_report, write_report
    from patchword.evaluate.run import compare, predict_with
    from patchword.segment.public import load

    if (model is None) == (predictions is None):
        raise PatchwordError("an evaluation needs a model or predictions, one of the two")
    rule = MaskRule(read_vocabulary(classes, background=background), zero_is=zero_is, ignore_index=ignore_index)
    check_limit(limit)
    listed = None if names is None else Path(names)
    pairs = find_pairs(Path(photos), masks=Path(masks), suffix=mask_suffix, names=listed, limit=limit)
    if out is not None:
        claim_output(out, overwrite=overwrite, marker=MARKER)
    if model is None:
        predict = read_predictions(Path(str(predictions)), pairs=pairs, rule=rule)
        predicted_by: dict[str, Any] = {"kind": "folder", "folder": str(predictions)}
    else:
        segmenter = load(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model
        vocabulary = segmenter.vocabulary_of(classes, background=background)
        rule = replace(rule, vocabulary=vocabulary)
        predict, predicted_by = predict_with(segmenter, rule=rule), segmenter.describe()
    matrix = compare(pairs, predict=predict, truth=rule, quiet=quiet)
    report = make_report(
        matrix,
        rule=rule,
        images=len(pairs),
        photographs=Path(photos),
        masks=Path(masks),
        predicted_by=predicted_by,
        command=command,
    )
    if out is not None:
        write_report(report, matrix=matrix, out=Path(out), overwrite=overwrite)
    return report
