"""`evaluate_benchmark` and `evaluate_suite`: a model, a method or predictions on the standard benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import check_limit
from patchword.data.folders import check_output
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.evaluation.api import Judged
    from patchword.evaluation.benchmark_task import ProtocolRun
    from patchword.evaluation.benchmarks.record import Benchmark, OpenBenchmark, Unlabelled
    from patchword.evaluation.report import EvaluationReport
    from patchword.evaluation.settings import ScoringSettings
    from patchword.evaluation.suite_report import SuiteRecord
    from patchword.runs.shards import Shard

NATIVE, PUBLISHED = "native", "published"


def evaluate_benchmark(
    benchmark: str,
    *,
    data: str | Path,
    judged: Judged,
    protocol: str | None = None,
    templates: int | None = None,
    unlabelled: Unlabelled | None = None,
    out: str | Path | None = None,
    scoring: ScoringSettings | Mapping[str, Any] | None = None,
    limit: int | None = None,
    shard: str | Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> EvaluationReport:
    """Measure on a standard benchmark, as it lies on disk and as a protocol has it.

    Args:
        benchmark: its name; `patchword benchmarks` lists them.
        data: the folder that it is in, one above it, or one of its own folders.
        judged: a model, a method or predictions. Its settings are those that differ from the protocol's.
        protocol: "tcl448", "sclip336" or "native", which is what None means; or "published", as the authors of a
            training-free method run it. None beside predictions.
        templates: prompt templates a word instead of the protocol's, 7 or 80.
        unlabelled: "background" or "ignored", what pixels of coco-object are that nobody labelled; None for background,
            as in the published numbers.
        limit: take the first so many photographs, at least 1; None for all.
        out, scoring, shard, resume, overwrite, quiet, command: as for `evaluate`.

    Returns:
        the scores and all that they depend on.

    Raises:
        UnscoredError: as `evaluate`.
        PatchwordError: when the benchmark is not there, naming what is missing and where it was looked for, and for
            anything above that is not as described.
    """
    from patchword.evaluation.benchmarks.registry import find_benchmark

    chosen = find_benchmark(benchmark)
    judged.check()
    check_limit(limit)
    chosen.check_unlabelled(unlabelled)
    run = _run_of(chosen, judged, protocol=protocol, templates=templates, unlabelled=unlabelled)
    return _measure(
        chosen.open(data).with_unlabelled(unlabelled),
        judged,
        run=run,
        limit=limit,
        out=out,
        scoring=scoring,
        shard=shard,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
        command=command,
    )


def evaluate_suite(
    suite: str,
    *,
    data: str | Path,
    judged: Judged,
    out: str | Path,
    protocol: str | None = None,
    templates: int | None = None,
    unlabelled: Unlabelled | None = None,
    scoring: ScoringSettings | Mapping[str, Any] | None = None,
    limit: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SuiteRecord:
    """Measure on all benchmarks of a suite that are on disk, and set published numbers of the same family beside.

    Args:
        suite: its name, "standard8".
        data: a folder that holds the benchmarks, or a text file with lines such as `voc21: data/VOCdevkit`.
        judged: a model, a method, or a folder of predictions with a folder a benchmark.
        out: folder of the suite; each benchmark's report is in a folder of its name.
        protocol, templates, unlabelled: as for `evaluate_benchmark`.
        limit: of each benchmark.
        scoring, resume, overwrite, quiet, command: as for `evaluate`.

    Returns:
        the table; there is an average only where all benchmarks were measured over their whole split.

    Raises:
        UnscoredError, PatchwordError: as `evaluate_benchmark`, and when none of the benchmarks is there.
    """
    from patchword.evaluation.benchmarks.registry import BENCHMARKS
    from patchword.evaluation.published import published_beside
    from patchword.evaluation.suite import MARKER, SUITES, plan_suite, run_suite

    judged.check()
    check_limit(limit)
    plan = plan_suite(suite, data=Path(data))
    if judged.predictions is not None:
        plan = plan.with_predictions(Path(judged.predictions))
    rules: dict[str, Unlabelled | None] = dict.fromkeys(SUITES[suite])
    if unlabelled is not None:
        rules["coco-object"] = unlabelled
        BENCHMARKS["coco-object"].check_unlabelled(unlabelled)
    runs = {
        name: _run_of(BENCHMARKS[name], judged, protocol=protocol, templates=templates, unlabelled=rule)
        for name, rule in rules.items()
    }
    check_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    row, method = _row_name(judged), judged.method
    if judged.predictions is None:
        judged = _loaded(judged, protocol=protocol)

    def score(opened: OpenBenchmark, folder: Path) -> EvaluationReport:
        name = opened.benchmark.name
        asked = judged if judged.predictions is None else replace(judged, predictions=Path(judged.predictions) / name)
        return _measure(
            opened.with_unlabelled(rules[name]),
            asked,
            run=runs[name],
            limit=limit,
            out=folder,
            scoring=scoring,
            resume=resume,
            quiet=quiet,
            command=command,
        )

    changed: dict[str, Any] = {}
    for run in runs.values():
        changed |= {} if run is None else run.changed
    named = None if judged.predictions is not None else protocol or NATIVE
    return run_suite(
        plan,
        protocol=named,
        row=row,
        published=() if named is None else published_beside(named, method=method),
        changed=changed,
        score=score,
        out=out,
        resume=resume,
        overwrite=overwrite,
        command=command,
    )


def _measure(
    opened: OpenBenchmark, judged: Judged, *, run: ProtocolRun | None, limit: int | None, **options: Any
) -> EvaluationReport:
    from patchword.evaluation.api import judge
    from patchword.evaluation.benchmark_task import benchmark_task

    task = benchmark_task(opened, run=run, limit=limit)
    asked = judged
    if run is not None:
        asked = replace(judged, settings=run.segment_settings(), as_published=run.row.protocol == PUBLISHED)
    return judge(task, asked, **options)


def _run_of(
    benchmark: Benchmark,
    judged: Judged,
    *,
    protocol: str | None,
    templates: int | None,
    unlabelled: Unlabelled | None,
) -> ProtocolRun | None:
    """How a model is run; None for predictions."""
    from patchword.evaluation.benchmark_task import ProtocolRun
    from patchword.evaluation.protocols import protocol_row
    from patchword.segmentation.settings import SegmentSettings

    if judged.predictions is not None:
        if protocol is not None or templates is not None:
            raise PatchwordError("a protocol or templates are given beside predictions, which they cannot change")
        return None
    row = protocol_row(protocol or NATIVE, benchmark=benchmark, method=judged.method)
    settings = judged.settings
    given = settings.model_dump(exclude_unset=True) if isinstance(settings, SegmentSettings) else settings
    run = ProtocolRun(row, templates=templates, settings=given, unlabelled=unlabelled)
    row.vocabulary(count=templates)
    run.segment_settings()
    return run


def _loaded(judged: Judged, *, protocol: str | None) -> Judged:
    """The same with its model loaded, once for all benchmarks."""
    segmenter = replace(judged, as_published=protocol == PUBLISHED).open()
    return replace(
        judged, model=segmenter, method=None, image_text=None, encoder=None, text_encoder=None, mask_proposer=None
    )


def _row_name(judged: Judged) -> str:
    if judged.predictions is not None:
        return str(judged.predictions)
    if judged.method is not None:
        return f"{judged.method} ({judged.image_text})" if isinstance(judged.image_text, str | Path) else judged.method
    return str(judged.model) if isinstance(judged.model, str | Path) else "model"
