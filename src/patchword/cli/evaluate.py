"""`patchword evaluate`: a segmenter, or anyone's label maps, against masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import typer

from patchword.cli.terminal import FAILED, command_line, complain, print_columns, print_json
from patchword.config.evaluate import BenchmarkConfig, EvaluateCommand, SuiteConfig
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.evaluation.report import EvaluationReport
    from patchword.evaluation.run import UnscoredError
    from patchword.evaluation.suite import SuiteRecord

_NAMED = 10  # images that could not be scored and are named on the screen
_OF_FOLDER = ("masks", "classes", "zero_is", "ignore_index", "mask_suffix", "background", "names")
_OF_BENCHMARKS = ("data", "protocol", "templates", "unlabelled")

B = TypeVar("B", bound=BenchmarkConfig)


def evaluate(photos: str | None, config: EvaluateCommand) -> None:
    """Measure on a folder, a benchmark or a suite."""
    import patchword
    from patchword.evaluation.benchmark_api import evaluate_benchmark, evaluate_suite
    from patchword.evaluation.run import UnscoredError

    config = config.changed(command=command_line())
    kind, out, as_json = check_data(photos, config), config.out, config.as_json
    try:
        if kind == "folder":
            print_report(patchword.evaluate(str(photos), config=config), out=out, as_json=as_json)
        elif kind == "benchmark":
            report = evaluate_benchmark(str(config.benchmark), config=_on(config, BenchmarkConfig))
            print_report(report, out=out, as_json=as_json)
        else:
            _print_suite(evaluate_suite(str(config.suite), config=_on(config, SuiteConfig)), config)
    except UnscoredError as error:
        exit_unscored(error)


def _on(config: EvaluateCommand, kind: type[B]) -> B:
    """What was typed, as an evaluation on a benchmark or suite takes it."""
    values = {name: getattr(config, name) for name in kind.model_fields if name != "judged"}
    return kind(judged=config, **values)


def check_data(photos: str | None, config: EvaluateCommand) -> Literal["folder", "benchmark", "suite"]:
    """Which of the three an evaluation is of."""
    typed = [name for name in _OF_FOLDER if getattr(config, name) not in (None, "", "class")]
    flags = [*(["PHOTOS"] if photos else []), *(f"--{name.replace('_', '-')}" for name in typed)]
    if config.benchmark is not None and config.suite is not None:
        raise PatchwordError("use either --benchmark or --suite, not both")
    if config.benchmark is None and config.suite is None:
        stray = [name for name in _OF_BENCHMARKS if getattr(config, name) is not None]
        if stray:
            raise PatchwordError(f"--{stray[0]} requires --benchmark or --suite")
        lacking = [name for name in ("PHOTOS", "--masks", "--classes") if name not in flags]
        if lacking:
            raise PatchwordError(
                f"nothing to evaluate on: {', '.join(lacking)} missing; give PHOTOS with --masks and --classes, "
                "--benchmark with --data, or --suite with --data"
            )
        return "folder"
    kind: Literal["benchmark", "suite"] = "benchmark" if config.suite is None else "suite"
    if flags:
        raise PatchwordError(f"{flags[0]} cannot be used with --{kind}, which has its own")
    if config.data is None:
        raise PatchwordError(
            f"--{kind} needs --data, the folder that it is in; `patchword benchmarks` says what that holds"
        )
    if kind == "suite" and config.shard is not None:
        raise PatchwordError("--shard cannot be used with --suite; use --benchmark, one benchmark at a time")
    if kind == "suite" and config.out is None:
        raise PatchwordError("--suite needs --out, a folder for the reports of all benchmarks")
    return kind


def exit_unscored(error: UnscoredError) -> NoReturn:
    """Name images that could not be scored, on standard error, and leave with exit code 1."""
    for name, reason in list(error.reasons.items())[:_NAMED]:
        complain(f"{name}: {reason}")
    complain(str(error))
    raise typer.Exit(FAILED) from None


def print_report(report: EvaluationReport, *, out: str | Path | None, as_json: bool) -> None:
    """Print scores for a person, or all as JSON; leave with exit code 1 when no pixel is scored."""
    _print(report, out=out, as_json=as_json)
    if not report.pixels and report.shard is None:
        raise typer.Exit(FAILED)  # the warning has said so


def _print(report: EvaluationReport, *, out: str | Path | None, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    if report.shard is not None:
        part = f"part {report.shard.index} of {report.shard.count}"
        scored = "1 image" if report.images == 1 else f"{report.images} images"
        typer.echo(f"{out}: {scored} scored, {part}; `patchword merge` puts the parts together")
        return
    _print_scores(report, out=out)


def _print_scores(report: EvaluationReport, *, out: str | Path | None) -> None:
    from rich.console import Console

    from patchword.evaluation.page import PAGE_FILE, chance_line
    from patchword.evaluation.report import SCORES, class_table, percent, percent_between

    Console().print(class_table(report))
    rows = [
        (name, percent(getattr(report, field)), percent_between(report.intervals.get(field)))
        for field, name in SCORES.items()
        if name in report.scores()
    ]
    print_columns(rows)
    if report.intervals:
        typer.echo(
            f"(after each score: {report.scoring.level:.0%} of {report.scoring.resamples:,} resamples of images)"
        )
    for remark in filter(None, (*report.remarks(), chance_line(report))):
        typer.echo(remark)
    if out is not None:
        typer.echo(f"{Path(out) / PAGE_FILE} shows classes, confusions and the worst images")


def _print_suite(record: SuiteRecord, config: EvaluateCommand) -> None:
    """Print a suite's table and what must be known of it, or all as JSON; exit code 1 where nothing was scored."""
    from patchword.evaluation.suite import TABLE_FILE

    if config.as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_columns(record.rows())
        for remark in record.remarks():
            typer.echo(f"- {remark}")
        typer.echo(f"{Path(str(config.out)) / TABLE_FILE} is this table")
    if any(entry.images and entry.miou is None for entry in record.entries):
        raise typer.Exit(FAILED)
