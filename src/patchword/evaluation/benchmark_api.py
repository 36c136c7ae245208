"""`evaluate_benchmark` and `evaluate_suite`: a model, a method or predictions on the standard benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import check_limit
from patchword.config.segment import SegmentSettings
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS, OpenBenchmark, Unlabelled
from patchword.evaluation.masks import DataRecord, EvaluationTask
from patchword.evaluation.protocols import ProtocolRow

if TYPE_CHECKING:
    from patchword.evaluation.api import EvaluatedModel
    from patchword.evaluation.benchmarks.record import Benchmark
    from patchword.evaluation.records import ScoringSettings
    from patchword.evaluation.report import EvaluationReport
    from patchword.evaluation.suite_report import SuiteRecord
    from patchword.runs.shards import Shard


NATIVE, PUBLISHED = "native", "published"


def evaluate_benchmark(
    benchmark: str,
    *,
    data: str | Path,
    judged: EvaluatedModel,
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
    from patchword.evaluation.benchmarks.record import find_benchmark

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
    judged: EvaluatedModel,
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
    from patchword.evaluation.benchmarks.record import BENCHMARKS
    from patchword.evaluation.suite import MARKER, SUITES, plan_suite, run_suite
    from patchword.evaluation.suite_report import published_beside

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
    opened: OpenBenchmark, judged: EvaluatedModel, *, run: ProtocolRun | None, limit: int | None, **options: Any
) -> EvaluationReport:
    from patchword.evaluation.api import judge
    from patchword.evaluation.benchmark_api import benchmark_task

    task = benchmark_task(opened, run=run, limit=limit)
    asked = judged
    if run is not None:
        asked = replace(judged, settings=run.segment_settings(), as_published=run.row.protocol == PUBLISHED)
    return judge(task, asked, **options)


def _run_of(
    benchmark: Benchmark,
    judged: EvaluatedModel,
    *,
    protocol: str | None,
    templates: int | None,
    unlabelled: Unlabelled | None,
) -> ProtocolRun | None:
    """How a model is run; None for predictions."""
    from patchword.config.segment import SegmentSettings
    from patchword.evaluation.benchmark_api import ProtocolRun
    from patchword.evaluation.protocols import protocol_row

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


def _loaded(judged: EvaluatedModel, *, protocol: str | None) -> EvaluatedModel:
    """The same with its model loaded, once for all benchmarks."""
    segmenter = replace(judged, as_published=protocol == PUBLISHED).open()
    return replace(
        judged, model=segmenter, method=None, image_text=None, encoder=None, text_encoder=None, mask_proposer=None
    )


def _row_name(judged: EvaluatedModel) -> str:
    if judged.predictions is not None:
        return str(judged.predictions)
    if judged.method is not None:
        return f"{judged.method} ({judged.image_text})" if isinstance(judged.image_text, str | Path) else judged.method
    return str(judged.model) if isinstance(judged.model, str | Path) else "model"


_ONLY_SPEED = ("batch", "compile")  # settings that change no score beyond rounding


@dataclass(frozen=True)
class ProtocolRun:
    """How a protocol is to run a benchmark, and what a user wants otherwise.

    Attributes:
        row: of the protocol's table.
        templates: prompt templates instead of the row's, 7 or 80; None for the row's.
        settings: names and values of segment settings that differ from the row's.
        unlabelled: what unlabelled pixels are, where that is not what they are in the published numbers.
    """

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
        """The row's settings with the user's in them."""
        return SegmentSettings(**{**self.row.settings().model_dump(), **(self.settings or {})})


def benchmark_task(opened: OpenBenchmark, *, run: ProtocolRun | None, limit: int | None = None) -> EvaluationTask:
    """A benchmark that was found on disk, as `evaluate_task` takes it.

    Args:
        opened: the benchmark.
        run: how a model is to be asked; None for predictions that are there already.
        limit: take the first so many photographs; None for all.
    """
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
    if len(set(paths)) == 1 and len(paths) > 1:
        return paths[0]
    folder = paths[0].parent
    while not all(path.is_relative_to(folder) for path in paths):
        folder = folder.parent
    return folder
