"""`evaluate`: scores of a segmenter, or of label maps on disk, against masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import Classes, check_limit, read_vocabulary, refuse_empty, tell_classes
from patchword.data.folders import check_output
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.config.segment import SegmentSettings
    from patchword.evaluation.masks import EvaluationTask, GroundTruth, ZeroIs
    from patchword.evaluation.predictors import PredictionsAre, Predictor
    from patchword.evaluation.records import ScoringSettings
    from patchword.evaluation.report import EvaluationReport
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.dense import AnySegmenter


@dataclass(frozen=True)
class EvaluatedModel:
    """What is evaluated: exactly one of a model, a training-free method, and predictions on disk.

    Attributes:
        model: a segmenter, or what `open_segmenter` takes as one.
        method, image_text, encoder, text_encoder, mask_proposer: as for `open_segmenter`.
        predictions: folder of label maps.
        predictions_are: how their values are coded, as for `find_predictions`.
        settings: how images are seen, as `SegmentSettings` or by name; not beside predictions.
        device, dtype: as for `label`.
        as_published: as for `open_segmenter`.
    """

    model: str | Path | AnySegmenter | None = None
    method: str | None = None
    image_text: str | Path | ImageTextEncoder | None = None
    encoder: str | Path | PatchEncoder | None = None
    text_encoder: str | Path | ImageTextEncoder | None = None
    mask_proposer: str | Path | MaskGenerator | None = None
    predictions: str | Path | None = None
    predictions_are: PredictionsAre = "auto"
    settings: SegmentSettings | Mapping[str, Any] | None = None
    device: str = "auto"
    dtype: str = "auto"
    as_published: bool = False

    def check(self) -> None:
        """Refuse what cannot be evaluated, before anything is loaded."""
        from patchword.config.segment import SegmentSettings
        from patchword.segmentation.api import check_refining

        kinds = {"a model": self.model, "a method": self.method, "predictions": self.predictions}
        given = [kind for kind, value in kinds.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise PatchwordError(f"an evaluation needs a model, a method or predictions, one of them; given: {found}")
        settings = SegmentSettings.of(self.settings)
        if self.predictions is None and (self.model is None or isinstance(self.model, str | Path)):
            check_refining(settings.refine, mask_generator=self.mask_proposer)
        if self.predictions is not None and self.settings:
            raise PatchwordError("settings of segmenting are given beside predictions, which they cannot change")

    def open(self) -> AnySegmenter:
        """Load the segmenter."""
        from patchword.segmentation.opening import open_segmenter

        return open_segmenter(
            self.model,
            method=self.method,
            image_text=self.image_text,
            encoder=self.encoder,
            text_encoder=self.text_encoder,
            mask_proposer=self.mask_proposer,
            device=self.device,
            dtype=self.dtype,
            as_published=self.as_published,
        )


def evaluate(
    photos: str | Path,
    *,
    masks: str | Path,
    classes: Classes,
    model: str | Path | AnySegmenter | None = None,
    method: str | None = None,
    image_text: str | Path | ImageTextEncoder | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    mask_proposer: str | Path | MaskGenerator | None = None,
    predictions: str | Path | None = None,
    predictions_are: PredictionsAre = "auto",
    out: str | Path | None = None,
    zero_is: ZeroIs = "class",
    ignore_index: int | None = None,
    mask_suffix: str = "",
    background: Sequence[str] | None = None,
    names: str | Path | None = None,
    settings: SegmentSettings | Mapping[str, Any] | None = None,
    scoring: ScoringSettings | Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    shard: str | Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> EvaluationReport:
    """Measure a segmenter, or label maps on disk, against ground truth.

    Args:
        photos: a folder of photographs, searched recursively, or one photograph.
        masks: folder of masks; for `a/b.jpg` it holds `a/b.jpg.png` or `a/b.png`, 8-bit indexed or grey, or 16-bit.
        classes: the class list that the masks' values refer to, as for `label`.
        model: a segmenter or its folder. Exactly one of `model`, `method` and `predictions` is needed.
        method: name of a training-free method, which `image_text` and, for some, `encoder` are for.
        image_text, encoder, text_encoder, mask_proposer: as for `open_segmenter`.
        predictions: folder of label maps over the same class list: of `label`, of `segment`, or of any other program.
        predictions_are: how their values are coded: "masks", as the masks are; "positions", in the class list, from 0,
            with 255 for no prediction; "auto", positions where `label` or `segment` made the folder, else as the masks.
        out: folder for `evaluation.json`, `images.jsonl`, `report.html` and tables; None writes nothing.
        zero_is: what value 0 of a mask means: "class" (value v is the class at position v from 0), "background" (a
            class of its own; v is the v-th class; pixels where nothing is predicted count as background) or "ignore"
            (such pixels do not count; v is the v-th class).
        ignore_index: value of pixels that do not count; None for 255 in 8-bit masks and 65535 in 16-bit ones.
        mask_suffix: what stands between a mask's name and `.png`, such as `_labelTrainIds` in COCO-Stuff.
        background: words for background, which a segmenter needs where `zero_is` is "background" and no setting decides
            it by a threshold; None takes those of the class list.
        names: text file of the photographs to take, one a line, with or without suffix; None for all.
        settings: how a segmenter sees images, all as `SegmentSettings`, or by name those that differ.
        scoring: what is measured and shown, all as `ScoringSettings`, or by name those that differ.
        limit: take the first so many, at least 1; None for all.
        shard: take one of several parts, `"i/n"`, which `merge_evaluations` puts together; needs `out`.
        resume: go on in a folder that an earlier run left.
        device, dtype, overwrite, quiet, command: as for `label`.

    Returns:
        the scores by the benchmarks' rule, and all that they depend on.

    Raises:
        UnscoredError: when images could not be scored, such as for sizes that differ or mask values outside the class
            list: there is no score over the others.
        PatchwordError: for anything above that is not as described, and a photograph without mask or prediction.
    """
    from patchword.evaluation.masks import MaskRule, folder_task

    judged = EvaluatedModel(
        model=model,
        method=method,
        image_text=image_text,
        encoder=encoder,
        text_encoder=text_encoder,
        mask_proposer=mask_proposer,
        predictions=predictions,
        predictions_are=predictions_are,
        settings=settings,
        device=device,
        dtype=dtype,
    )
    judged.check()
    refuse_empty(photos=photos, masks=masks, predictions=predictions, out=out)
    check_limit(limit)
    rule = MaskRule(read_vocabulary(classes, background=background), zero_is=zero_is, ignore_index=ignore_index)
    listed = None if names is None else Path(names)
    task = folder_task(Path(photos), masks=Path(masks), rule=rule, suffix=mask_suffix, names=listed, limit=limit)

    def of_segmenter(segmenter: AnySegmenter) -> GroundTruth:
        return replace(rule, vocabulary=segmenter.vocabulary_of(classes, background=background))

    return judge(
        task,
        judged,
        of_segmenter=of_segmenter,
        out=out,
        scoring=scoring,
        shard=shard,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
        command=command,
    )


def judge(
    task: EvaluationTask,
    judged: EvaluatedModel,
    *,
    of_segmenter: Callable[[AnySegmenter], GroundTruth] | None = None,
    out: str | Path | None = None,
    scoring: ScoringSettings | Mapping[str, Any] | None = None,
    shard: str | Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> EvaluationReport:
    """Evaluate what was named on any task, such as a benchmark.

    Args:
        task: photographs with masks.
        judged: a model, a method or predictions.
        of_segmenter: the truth for the segmenter that was loaded, where that decides the templates of class lists that
            have none; None for the task's own.
        out, scoring, shard, resume, overwrite, quiet, command: as for `evaluate`.
    """
    from patchword.evaluation.predictors import SegmenterPredictor, find_predictions
    from patchword.evaluation.records import MARKER, ScoringSettings
    from patchword.evaluation.run import evaluate_task
    from patchword.runs.shards import Shard

    chosen = ScoringSettings.of(scoring)
    part = Shard.parse(shard) if isinstance(shard, str) else shard
    judged.check()
    if out is None and (part is not None or resume):
        raise PatchwordError(f"{'a shard' if part else 'resume'} is asked for without an output folder; pass out")
    if out is not None:
        check_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    predictor: Predictor
    if judged.predictions is not None:
        predictor = find_predictions(
            Path(judged.predictions), pairs=task.pairs, truth=task.truth, coded=judged.predictions_are
        )
        tell_classes(task.truth.vocabulary, quiet=quiet)
    else:
        tell_classes(task.truth.vocabulary, quiet=quiet)
        segmenter = judged.open()
        if of_segmenter is not None:
            task = replace(task, truth=of_segmenter(segmenter))
        predictor = SegmenterPredictor.of(segmenter, truth=task.truth, settings=judged.settings)
    return evaluate_task(
        task,
        predictor=predictor,
        out=out,
        scoring=chosen,
        shard=part,
        resume=resume,
        overwrite=overwrite,
        command=command,
        quiet=quiet,
    )
