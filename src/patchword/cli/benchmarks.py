"""`patchword benchmarks`: what the standard benchmarks are, and how they lie on disk."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from patchword.cli.terminal import print_columns, print_json
from patchword.config.others import BenchmarksConfig
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.evaluation.benchmarks.record import Benchmark
    from patchword.evaluation.protocols import ProtocolRow


def benchmarks(name: str | None, config: BenchmarksConfig) -> None:
    """Print what they are, or one of them in full."""
    from patchword.evaluation.benchmarks.record import BENCHMARKS, find_benchmark

    chosen = list(BENCHMARKS.values()) if name is None else [find_benchmark(name)]
    if config.class_list:
        if name is None:
            raise PatchwordError(f"--class-list needs a benchmark's name (choose from {', '.join(BENCHMARKS)})")
        typer.echo(chosen[0].vocabulary().to_text(), nl=False)
        return
    if config.as_json:
        print_json([_facts(benchmark) for benchmark in chosen])
        return
    rows = [(each.name, each.title, str(each.class_count), f"{each.images:,}", _ways(each)) for each in chosen]
    print_columns([("benchmark", "what it is", "classes", "photographs", "files"), *rows])
    if name is not None:
        for line in _in_full(chosen[0]):
            typer.echo(line)


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
