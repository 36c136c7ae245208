"""`patchword benchmarks`, and what `patchword evaluate` does with benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchword.cli.options import AsJson
from patchword.cli.terminal import FAILED, print_columns, print_json
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.evaluation.benchmarks.record import Benchmark
    from patchword.evaluation.protocols import ProtocolRow
    from patchword.evaluation.report import EvaluationReport
    from patchword.evaluation.suite_report import SuiteRecord


def benchmarks(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of them, in full.")] = None,
    class_list: Annotated[
        bool, typer.Option("--class-list", help="Print its class list, as --classes takes it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The standard benchmarks: classes, photographs, files, protocols."""
    from patchword.evaluation.benchmarks.record import BENCHMARKS, find_benchmark

    chosen = list(BENCHMARKS.values()) if name is None else [find_benchmark(name)]
    if class_list:
        if name is None:
            raise PatchwordError(f"--class-list needs a benchmark's name (choose from {', '.join(BENCHMARKS)})")
        typer.echo(chosen[0].vocabulary().to_text(), nl=False)
        return
    if as_json:
        print_json([_facts(benchmark) for benchmark in chosen])
        return
    rows = [(each.name, each.title, str(each.class_count), f"{each.images:,}", _ways(each)) for each in chosen]
    print_columns([("benchmark", "what it is", "classes", "photographs", "files"), *rows])
    if name is not None:
        for line in _in_full(chosen[0]):
            typer.echo(line)


def check_data(
    benchmark: str | None, *, suite: str | None, of_folder: Mapping[str, Any], of_benchmarks: Mapping[str, Any]
) -> Literal["folder", "benchmark", "suite"]:
    """Which of the three an evaluation is of.

    Args:
        benchmark, suite: their names, where one was typed.
        of_folder, of_benchmarks: what was typed that belongs to a folder, or to a benchmark or suite.
    """
    needed = [f"--{name}" for name in ("masks", "classes") if of_folder[name] is None]
    typed = [name for name, value in of_folder.items() if value not in (None, "", "class")]
    typed = ["PHOTOS" if name == "photos" else f"--{name.replace('_', '-')}" for name in typed]
    if benchmark is not None and suite is not None:
        raise PatchwordError("use either --benchmark or --suite, not both")
    if benchmark is None and suite is None:
        stray = [f"--{name}" for name, value in of_benchmarks.items() if value is not None]
        if stray:
            raise PatchwordError(f"{stray[0]} requires --benchmark or --suite")
        if of_folder["photos"] is None or needed:
            lacking = ", ".join([*(["PHOTOS"] if of_folder["photos"] is None else []), *needed])
            raise PatchwordError(
                f"nothing to evaluate on: {lacking} missing; give PHOTOS with --masks and --classes, "
                "--benchmark with --data, or --suite with --data"
            )
        return "folder"
    kind: Literal["benchmark", "suite"] = "benchmark" if suite is None else "suite"
    if typed:
        raise PatchwordError(f"{typed[0]} cannot be used with --{kind}, which has its own")
    if of_benchmarks["data"] is None:
        raise PatchwordError(
            f"--{kind} needs --data, the folder that it is in; `patchword benchmarks` says what that holds"
        )
    return kind


def run_benchmark(name: str, judged: Mapping[str, Any], **options: Any) -> EvaluationReport:
    """Evaluate on a benchmark; arguments as of `evaluate_benchmark`, and of `EvaluatedModel` in one."""
    from patchword.evaluation.api import EvaluatedModel
    from patchword.evaluation.benchmark_api import evaluate_benchmark

    return evaluate_benchmark(name, judged=EvaluatedModel(**judged), **options)


def run_suite(name: str, judged: Mapping[str, Any], *, shard: str | None, **options: Any) -> SuiteRecord:
    """Evaluate on a suite; arguments as of `evaluate_suite`, and of `EvaluatedModel` in one."""
    from patchword.evaluation.api import EvaluatedModel
    from patchword.evaluation.benchmark_api import evaluate_suite

    if shard is not None:
        raise PatchwordError("--shard cannot be used with --suite; use --benchmark, one benchmark at a time")
    if options["out"] is None:
        raise PatchwordError("--suite needs --out, a folder for the reports of all benchmarks")
    return evaluate_suite(name, judged=EvaluatedModel(**judged), **options)


def print_suite(record: SuiteRecord, *, out: Path | None, as_json: bool) -> None:
    """Print a suite's table and what must be known of it, or all as JSON; exit code 1 where nothing was scored."""
    from patchword.evaluation.suite_report import TABLE_FILE

    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_columns(record.rows())
        for remark in record.remarks():
            typer.echo(f"- {remark}")
        if out is not None:
            typer.echo(f"{out / TABLE_FILE} is this table")
    if any(entry.images and entry.miou is None for entry in record.entries):
        raise typer.Exit(FAILED)


def _facts(benchmark: Benchmark) -> dict[str, Any]:
    from patchword.evaluation.protocols import PROTOCOLS

    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "classes": benchmark.class_count,
        "background_is_scored": benchmark.scores_background,
        "photographs": benchmark.images,
        "vocabulary_hash": benchmark.vocabulary().hash,
        "layouts": [
            {
                "name": layout.name,
                "places": [place or "." for place in layout.places],
                "parts": [asdict(part) for part in layout.parts],
            }
            for layout in benchmark.layouts
        ],
        "protocols": {name: asdict(rows[benchmark.name]) for name, rows in PROTOCOLS.items()},
    }


def _ways(benchmark: Benchmark) -> str:
    return "; ".join(layout.name for layout in benchmark.layouts)


def _in_full(benchmark: Benchmark) -> list[str]:
    from patchword.evaluation.protocols import PROTOCOLS

    lines = ["", "files, in the folder that you name, one above it, or one of these below it:"]
    for layout in benchmark.layouts:
        lines.append(f"  {layout.name} (in {', '.join(place or '.' for place in layout.places)})")
        lines += [f"    {part}{'' if part.needed else ', if it is there'}" for part in layout.parts]
    lines += ["", "protocols:"]
    return lines + [f"  {name}: {_run(rows[benchmark.name])}" for name, rows in PROTOCOLS.items()]


def _run(row: ProtocolRow) -> str:
    size = "image whole at the model's own size" if row.shorter_side is None else f"shorter side {row.shorter_side}"
    windows = "" if row.window is None else f", windows {row.window} every {row.stride}"
    scale = "" if row.logit_scale is None else f", cosines x {row.logit_scale:g}"
    threshold = f" {row.threshold:g}" if row.threshold else ""
    return f"{size}{windows}, {row.templates} templates{scale}, background by {row.background}{threshold}"
