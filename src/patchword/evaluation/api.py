"""`evaluate`: scores of a segmenter, or of label maps on disk, against masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.config.command import command
from patchword.config.evaluate import EvaluateConfig, EvaluatedModel, ScoredRun
from patchword.config.inputs import tell
from patchword.config.shared import read_vocabulary
from patchword.data.folders import check_output
from patchword.data.storage import as_path
from patchword.errors import PatchwordError
from patchword.models.loading import Loader
from patchword.runs.pipeline import Executor
from patchword.runs.plan import describe_output
from patchword.runs.processes import executor_of
from patchword.runs.progress import photograph_count
from patchword.segmentation.api import check_source, open_source

if TYPE_CHECKING:
    from patchword.evaluation.masks import EvaluationTask, MaskRule
    from patchword.evaluation.predictors import Predictor
    from patchword.evaluation.report import EvaluationReport
    from patchword.segmentation.dense import AnySegmenter


@command(EvaluateConfig)
def evaluate(photos: str | Path, config: EvaluateConfig) -> EvaluationReport:
    """Measure a segmenter, or label maps on disk, against ground truth.

    Exactly one of `model`, `method` and `predictions` is needed.

    Returns:
        the scores by the benchmarks' rule, and all that they depend on.

    Raises:
        UnscoredError: when images could not be scored, such as for sizes that differ or mask values outside the class
            list: there is no score over the others.
    """
    from patchword.evaluation.masks import MaskRule, folder_task

    check_judged(config)
    vocabulary = read_vocabulary(config.classes, background=config.background)
    rule = MaskRule(vocabulary, zero_is=config.zero_is, ignore_index=config.ignore_index)
    names = None if config.names is None else Path(config.names)
    task = folder_task(
        as_path(photos), masks=Path(config.masks), rule=rule, suffix=config.mask_suffix, names=names, limit=config.limit
    )

    def of_segmenter(segmenter: AnySegmenter) -> MaskRule:
        return replace(rule, vocabulary=segmenter.vocabulary_of(config.classes, background=config.background))

    task, predictor = open_predictor(task, config, run=config, of_segmenter=of_segmenter)
    from patchword.evaluation.run import evaluate_task

    return evaluate_task(
        task, predictor=predictor, run=config, executor=executor_for(predictor, config, name=config.executor)
    )


def check_judged(judged: EvaluatedModel) -> None:
    """Refuse what cannot be evaluated, before anything is loaded."""
    kinds = {"a model": judged.model, "a method": judged.method, "predictions": judged.predictions}
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise PatchwordError(f"an evaluation needs a model, a method or predictions, one of them; given: {found}")
    if judged.predictions is None:
        check_source(judged, refine=judged.numbers.refine)
    if judged.predictions is not None and judged.settings:
        raise PatchwordError("settings of segmenting are given beside predictions, which they cannot change")


def open_predictor(
    task: EvaluationTask,
    judged: EvaluatedModel,
    *,
    run: ScoredRun,
    of_segmenter: Callable[[AnySegmenter], MaskRule] | None = None,
    as_published: bool = False,
) -> tuple[EvaluationTask, Predictor]:
    """Load what was named, for any task, such as a benchmark; returns the task with the truth that is scored.

    Args:
        run: where to, which is checked before anything is loaded.
        of_segmenter: the truth for the segmenter that was loaded, where that decides the templates of class lists that
            have none; None for the task's own.
        as_published: as for `open_segmenter`.
    """
    from patchword.evaluation.predictors import SegmenterPredictor, find_predictions
    from patchword.evaluation.records import MARKER

    if run.out is not None:
        check_output(run.out, resume=run.resume, overwrite=run.overwrite, marker=MARKER)
    if judged.predictions is not None:
        folder = Path(judged.predictions)
        found = find_predictions(folder, pairs=task.pairs, truth=task.truth, coded=judged.predictions_are)
        _tell(task, f"predictions {folder}", run=run)
        return task, found
    source = f"method {judged.method}" if judged.model is None else f"model {judged.model}"
    _tell(task, source, Loader(judged.device, judged.dtype).spoken(), run=run)
    segmenter = open_source(judged, as_published=as_published)
    if of_segmenter is not None:
        task = replace(task, truth=of_segmenter(segmenter))
    return task, SegmenterPredictor.of(segmenter, truth=task.truth, settings=judged.numbers)


def executor_for(
    predictor: Predictor, judged: EvaluatedModel, *, name: str, as_published: bool = False
) -> Executor | None:
    """Whoever asks a predictor that `open_predictor` made of the same arguments."""
    load = partial(open_source, judged, as_published=as_published)
    return executor_of(name, device=judged.device, loaded=getattr(predictor, "segmenter", None), load=load)


def _tell(task: EvaluationTask, *judged: str, run: ScoredRun) -> None:
    """Say what was understood, before anything is loaded."""
    count = photograph_count(len(task.pairs))
    output = (
        "none; --out FOLDER keeps a report" if run.out is None else describe_output(run.out, run.resume, run.overwrite)
    )
    tell(task.truth.vocabulary.spoken(), f"{count} with masks", *judged, f"output: {output}", quiet=run.quiet)
