"""The command line: parses, calls the public functions, prints. Whatever is heavy is imported inside a command."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchword.cli.terminal import (
    command_line,
    print_columns,
    print_json,
    report_labels,
    report_segmented,
    say,
    say_next,
)
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.segmentation.methods import Method
from patchword import __version__
from patchword.cli.benchmarks import benchmarks
from patchword.cli.build import add_command
from patchword.cli.evaluate import evaluate
from patchword.cli.exchange import export, import_
from patchword.cli.models import encoders, models_app
from patchword.cli.quality import quality
from patchword.cli.stages import align, label, segment
from patchword.cli.suggest import suggest
from patchword.cli.terminal import (
    PatchwordGroup,
    print_whatever_names,
)
from patchword.config.align import AlignCommand
from patchword.config.evaluate import EvaluateCommand
from patchword.config.exchange import ExportCommand, ImportCommand
from patchword.config.label import LabelCommand
from patchword.config.others import (
    AblateConfig,
    BenchmarksConfig,
    DemoConfig,
    EncodersConfig,
    MergeConfig,
    MethodsConfig,
    PushConfig,
    QualityConfig,
)
from patchword.config.segment import SegmentCommand
from patchword.config.serve import LabelStudioConfig, ServeConfig
from patchword.config.suggest import SuggestCommand


def serve(_: None, config: ServeConfig) -> None:
    """Serve the pages and the API until a signal comes."""
    from patchword.serving.server import serve as run

    run(config.changed(token=config.token or os.environ.get("PATCHWORD_TOKEN") or None))


def label_studio_backend(_: None, config: LabelStudioConfig) -> None:
    """Answer Label Studio until a signal comes."""
    from patchword.serving.server import serve as run

    options = {
        "token": "PATCHWORD_TOKEN",
        "label_studio_url": "LABEL_STUDIO_URL",
        "label_studio_key": "LABEL_STUDIO_API_KEY",
    }
    values = {name: getattr(config, name) or os.environ.get(variable) or None for name, variable in options.items()}
    config = config.changed(**values)
    config.check()
    run(config)


def merge(shards: list[str], config: MergeConfig) -> None:
    """Merge shards of whichever command made them."""
    from patchword.data.folders import read_marker
    from patchword.data.storage import as_path
    from patchword.evaluation.records import MARKER as EVALUATION
    from patchword.labeling.folder import merge_labels
    from patchword.segmentation.records import MARKER as SEGMENTATION

    first, out = as_path(shards[0]), as_path(config.out)
    kind = read_marker(first)
    if kind is None:
        raise PatchwordError(
            f"{first} is {_what_folder(first)}; give folders that `label`, `segment` or "
            "`evaluate` wrote with --shard I/N"
        )
    if kind == EVALUATION:
        _merge_evaluations(shards, config)
        return
    options: dict[str, Any] = {
        "out": out,
        "photos": config.photos,
        "overwrite": config.overwrite,
        "quiet": config.quiet,
        "command": command_line(),
    }
    if kind == SEGMENTATION:
        from patchword.segmentation.folder import merge_segmentations

        report_segmented(merge_segmentations(shards, **options), out=out, as_json=config.as_json)
    else:
        report_labels(merge_labels(shards, **options), out=out, done="labelled", as_json=config.as_json)


def _what_folder(path: Path) -> str:
    if not path.exists():
        return "not there"
    return "a folder that patchword did not write" if path.is_dir() else "a file"


def _merge_evaluations(shards: list[str], config: MergeConfig) -> None:
    from patchword.cli.evaluate import exit_unscored, print_report
    from patchword.evaluation.run import UnscoredError, merge_evaluations

    if config.photos is not None:
        raise PatchwordError("--photos is given, but the shards of an evaluation are merged without photographs")
    try:
        report = merge_evaluations(shards, out=config.out, overwrite=config.overwrite, command=command_line())
    except UnscoredError as error:
        exit_unscored(error)
    print_report(report, out=Path(config.out), as_json=config.as_json)


def ablate(grid: str, config: AblateConfig) -> None:
    """Train and judge variants of stage 2."""
    from patchword.ablation.grid import AblationGrid

    out, variants = Path(config.out), AblationGrid.load(Path(grid))
    from patchword.ablation.run import RECORD, run_ablation

    table = run_ablation(
        variants,
        out=out,
        device=config.device,
        dtype=config.dtype,
        resume=config.resume,
        overwrite=config.overwrite,
        quiet=config.quiet,
    )
    if not config.as_json:
        typer.echo(table.markdown(), nl=False)
        return
    rows = {
        name: {
            column: {"mean": score.mean, "deviation": score.deviation}
            for column, score in zip(table.columns, scores, strict=True)
        }
        for name, scores in table.rows.items()
    }
    print_json({"seeds": table.seeds, "rows": rows, "record": str(out / RECORD)})


def methods(_: None, config: MethodsConfig) -> None:
    """Print the training-free methods."""
    from patchword.segmentation.methods import METHODS

    if config.as_json:
        print_json([_method_json(method) for method in METHODS.values()])
        return
    rows = [
        (method.name, "CLIP and a vision encoder" if method.needs_encoder else "CLIP", method.paper, method.description)
        for method in METHODS.values()
    ]
    print_columns([("name", "needs", "paper", "what it does"), *rows])
    say("run one: patchword segment photos/ --method NAME --image-text CLIP --classes ... -o out/; docs/baselines.md")


def _method_json(method: Method) -> dict[str, Any]:
    published = {name: settings.model_dump(exclude_defaults=True) for name, settings in method.published.items()}
    return {**asdict(method), "published": published}


def push(folder: str, config: PushConfig) -> None:
    """Upload, and print the address."""
    from patchword.export.publish import push_folder

    typer.echo(push_folder(folder, config=config))


app = typer.Typer(
    name="patchword",
    help="Photographs and class names in; pseudo labels and an open-vocabulary segmenter out.",
    cls=PatchwordGroup,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def demo(_: None, config: DemoConfig) -> None:
    """Run the demo, print its table and say where its page is."""
    from patchword.evaluation.report import percent
    from patchword.toytown.demo import run_demo
    from patchword.toytown.demo_report import summary

    options: dict[str, Any] = {
        "seed": config.seed,
        "scenes": config.scenes,
        "overwrite": config.overwrite,
        "quiet": config.quiet,
    }
    page = run_demo(Path(config.out), **options)
    record = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    head = ("mIoU", "labelled scenes", "new scenes", "names never trained", "new scenes at dusk")
    print_columns([head, *([name, *map(percent, scores)] for name, *scores in summary(record))])
    typer.echo(page)
    say_next("suggest", "photos", "-o", "classes.txt")


add_command(app, DemoConfig, demo)
add_command(app, SuggestCommand, suggest)
add_command(app, LabelCommand, label)
add_command(app, MergeConfig, merge)
add_command(app, QualityConfig, quality)
add_command(app, AlignCommand, align)
add_command(app, SegmentCommand, segment)
add_command(app, EvaluateCommand, evaluate)
add_command(app, BenchmarksConfig, benchmarks)
add_command(app, AblateConfig, ablate)
add_command(app, EncodersConfig, encoders)
add_command(app, MethodsConfig, methods)
add_command(app, ExportCommand, export)
add_command(app, ImportCommand, import_)
add_command(app, PushConfig, push)
add_command(app, ServeConfig, serve)
add_command(app, LabelStudioConfig, label_studio_backend)


def main() -> None:
    """Entry point of the console script."""
    print_whatever_names()
    # Before torch is loaded. OpenMP's threads spin while they wait for each other, and beside other busy processes
    # most of the time goes into that: docs/performance.md has what was measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()
