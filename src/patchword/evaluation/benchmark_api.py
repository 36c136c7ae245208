"""`evaluate_benchmark` and `evaluate_suite`: a model, a method or predictions on the standard benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os import fspath
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.command import command
from patchword.config.evaluate import BenchmarkConfig, EvaluatedModel, SuiteConfig, Unlabelled
from patchword.config.segment import SegmentSettings
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS, OpenBenchmark, find_benchmark
from patchword.evaluation.masks import DataRecord, EvaluationTask
from patchword.evaluation.protocols import PUBLISHED, ProtocolRow, protocol_row

if TYPE_CHECKING:
    from patchword.evaluation.benchmarks.record import Benchmark
    from patchword.evaluation.report import EvaluationReport
    from patchword.evaluation.suite import SuiteRecord


NATIVE = "native"


@command(BenchmarkConfig)
def evaluate_benchmark(benchmark: str, config: BenchmarkConfig) -> EvaluationReport:
    """Measure on a standard benchmark, as it lies on disk and as a protocol has it.

    Returns:
        the scores and all that they depend on.

    Raises:
        UnscoredError: as `evaluate`.
    """
    from patchword.evaluation.api import check_judged

    chosen = find_benchmark(benchmark)
    check_judged(config.judged)
    chosen.check_unlabelled(config.unlabelled)
    run = _run_of(chosen, config, unlabelled=config.unlabelled)
    return _measure(chosen.open(config.data).with_unlabelled(config.unlabelled), config, run=run)


@command(SuiteConfig)
def evaluate_suite(suite: str, config: SuiteConfig) -> SuiteRecord:
    """Measure on all benchmarks of a suite that are on disk, and set published numbers of the same family beside.

    Each benchmark's report is in a folder of its name; predictions are in such folders too.

    Returns:
        the table; there is an average only where all benchmarks were measured over their whole split.

    Raises:
        UnscoredError: as `evaluate`.
    """
    from patchword.evaluation.api import check_judged
    from patchword.evaluation.suite import MARKER, SUITES, plan_suite, published_beside, run_suite
    from patchword.segmentation.api import open_source

    judged, unlabelled = config.judged, config.unlabelled
    check_judged(judged)
    plan = plan_suite(suite, data=Path(config.data))
    predictions = None if judged.predictions is None else Path(judged.predictions)
    if predictions is not None:
        plan = plan.with_predictions(predictions)
    rules: dict[str, Unlabelled | None] = dict.fromkeys(SUITES[suite])
    if unlabelled is not None:
        rules["coco-object"] = unlabelled
        BENCHMARKS["coco-object"].check_unlabelled(unlabelled)
    runs = {name: _run_of(BENCHMARKS[name], config, unlabelled=rule) for name, rule in rules.items()}
    check_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    loaded = judged
    if predictions is None:  # once for all benchmarks
        segmenter = open_source(judged, as_published=config.protocol == PUBLISHED)
        loaded = EvaluatedModel(model=segmenter, settings=judged.settings)

    def score(opened: OpenBenchmark, folder: Path) -> EvaluationReport:
        name = opened.benchmark.name
        asked = loaded if predictions is None else loaded.changed(predictions=predictions / name)
        run = config.changed(judged=asked, out=folder, overwrite=False)
        return _measure(opened.with_unlabelled(rules[name]), run, run=runs[name])

    changed: dict[str, Any] = {}
    for run in runs.values():
        changed |= {} if run is None else run.changed
    named = None if predictions is not None else config.protocol or NATIVE
    return run_suite(
        plan,
        config,
        protocol=named,
        row=_row_name(judged),
        published=() if named is None else published_beside(named, method=judged.method),
        changed=changed,
        score=score,
    )


def _measure(opened: OpenBenchmark, config: BenchmarkConfig, *, run: ProtocolRun | None) -> EvaluationReport:
    from patchword.evaluation.api import executor_for, open_predictor
    from patchword.evaluation.run import evaluate_task

    task = benchmark_task(opened, run=run, limit=config.limit)
    asked = config.judged if run is None else config.judged.changed(settings=run.segment_settings())
    as_published = run is not None and run.row.protocol == PUBLISHED
    task, predictor = open_predictor(task, asked, run=config, as_published=as_published)
    executor = executor_for(predictor, asked, name=config.executor, as_published=as_published)
    return evaluate_task(task, predictor=predictor, run=config, executor=executor)


def _run_of(benchmark: Benchmark, config: BenchmarkConfig, *, unlabelled: Unlabelled | None) -> ProtocolRun | None:
    """How a model is run; None for predictions."""
    judged, protocol, templates = config.judged, config.protocol, config.templates
    if judged.predictions is not None:
        if protocol is not None or templates is not None:
            raise PatchwordError("a protocol or templates are given beside predictions, which they cannot change")
        return None
    row = protocol_row(protocol or NATIVE, benchmark=benchmark, method=judged.method)
    given = judged.numbers.model_dump(exclude_unset=True)
    run = ProtocolRun(row, templates=templates, settings=given, unlabelled=unlabelled)
    row.vocabulary(count=templates)
    run.segment_settings()
    return run


def _row_name(judged: EvaluatedModel) -> str:
    if judged.predictions is not None:
        return fspath(judged.predictions)
    if judged.method is not None:
        return f"{judged.method} ({judged.image_text})" if isinstance(judged.image_text, str | Path) else judged.method
    return str(judged.model) if isinstance(judged.model, str | Path) else "model"


_ONLY_SPEED = ("batch", "compile")  # settings that change no score beyond rounding


@dataclass(frozen=True)
class ProtocolRun:
    """How a protocol is to run a benchmark, and the templates, settings and rule that a user wants otherwise."""

    row: ProtocolRow
    templates: int | None = None
    settings: Mapping[str, Any] | None = None
    unlabelled: Unlabelled | None = None

    @property
    def changed(self) -> dict[str, Any]:
        """What is not as the protocol has it; with anything in it the numbers are no longer the protocol's."""
        row = self.row.settings().model_dump(mode="json")
        given = self.segment_settings().model_dump(mode="json")
        changed = {name: value for name, value in given.items() if value != row[name] and name not in _ONLY_SPEED}
        if self.templates not in (None, self.row.templates):
            changed["templates"] = self.templates
        if self.unlabelled not in (None, BENCHMARKS[self.row.benchmark].unlabelled):
            changed["unlabelled"] = self.unlabelled
        return changed

    def segment_settings(self) -> SegmentSettings:
        return SegmentSettings(**{**self.row.settings().model_dump(), **(self.settings or {})})


def benchmark_task(opened: OpenBenchmark, *, run: ProtocolRun | None, limit: int | None = None) -> EvaluationTask:
    """A benchmark that was found on disk, as `evaluate_task` takes it; no run for predictions."""
    if run is not None:
        opened = opened.asked_for(run.row.vocabulary(count=run.templates))
    reading: dict[str, Any] = {"layout": opened.layout, "split": opened.split, "rule": opened.truth.rule}
    if run is not None:
        reading |= {"protocol_row": asdict(run.row), "changed": run.changed}
    pairs = opened.pairs[:limit]
    data = DataRecord(
        photographs=str(_common_folder([pair.photo for pair in pairs])),
        masks=str(_common_folder([pair.mask for pair in pairs])),
        benchmark=opened.benchmark.name,
        protocol=None if run is None else run.row.protocol,
        reading=reading,
        selection={"of": opened.benchmark.images} | ({} if limit is None else {"limit": limit}),
        remarks=tuple(_remarks(opened, images=len(pairs), run=run)),
    )
    return EvaluationTask(pairs, opened.truth, data)


def _remarks(opened: OpenBenchmark, *, images: int, run: ProtocolRun | None) -> Iterator[str]:
    """What keeps the scores from being the benchmark's and the protocol's."""
    benchmark = opened.benchmark
    if images != benchmark.images:
        photographs = "photograph" if images == 1 else "photographs"
        yield (
            f"This is {benchmark.name} over {images:,} {photographs}; its official split has {benchmark.images:,}, so "
            "the scores are not to be compared with others."
        )
    if run is not None and run.changed:
        changed = ", ".join(f"{name}={value}" for name, value in run.changed.items())
        yield f"Not as the protocol {run.row.protocol} has it: {changed}."


def _common_folder(paths: list[Path]) -> Path:
    """The folder that all files are in or below; one file for all of them stands for itself."""
    common = Path(commonpath(paths))
    return common.parent if len(paths) == 1 else common
