"""The command line: parses, calls the public functions, prints. Whatever is heavy is imported inside a command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchword.cli.options import AsJson, Device, Dtype, Moved, OutFolder, Overwrite, Quiet, Resume
from patchword.cli.terminal import command_line, print_columns, print_json, report_labels, report_segmented, say
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.segmentation.methods import Method
from patchword import __version__
from patchword.cli.benchmarks import benchmarks
from patchword.cli.evaluate import evaluate
from patchword.cli.exchange import export, import_
from patchword.cli.label import label
from patchword.cli.models import encoders, models_app
from patchword.cli.options import (
    Assignments,
    DryRun,
    ModelPart,
)
from patchword.cli.quality import quality
from patchword.cli.segment import segment
from patchword.cli.suggest import suggest
from patchword.cli.terminal import (
    PatchwordGroup,
    exit_with_failures,
    parse_settings,
    print_plan,
    print_whatever_names,
    speaks_for_all,
)


def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARD...", help="Folders made with --shard I/N, all of them.")
    ],
    out: OutFolder,
    photos: Moved = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Shards of `label`, `segment` or `evaluate` as the folder of one run."""
    from patchword.data.folders import read_marker
    from patchword.evaluation.records import MARKER as EVALUATION
    from patchword.labeling.folder import merge_labels
    from patchword.segmentation.folder import merge_segmentations
    from patchword.segmentation.records import MARKER as SEGMENTATION

    kind = read_marker(shards[0])
    if kind is None:
        raise PatchwordError(
            f"{shards[0]} is {_what_folder(shards[0])}; give folders that `label`, `segment` or "
            "`evaluate` wrote with --shard I/N"
        )
    if kind == EVALUATION:
        _merge_evaluations(shards, out=out, photos=photos, overwrite=overwrite, as_json=as_json)
        return
    if kind == SEGMENTATION:
        merged = merge_segmentations(
            shards, out=out, photos=photos, overwrite=overwrite, quiet=quiet, command=command_line()
        )
        report_segmented(merged, out=out, as_json=as_json)
        return
    dataset = merge_labels(shards, out=out, photos=photos, overwrite=overwrite, quiet=quiet, command=command_line())
    report_labels(dataset, out=out, done="labelled", as_json=as_json)


def _what_folder(path: Path) -> str:
    if not path.exists():
        return "not there"
    return "a folder of other making" if path.is_dir() else "a file"


def _merge_evaluations(shards: list[Path], *, out: Path, photos: Path | None, overwrite: bool, as_json: bool) -> None:
    from patchword.cli.evaluate import exit_unscored, print_report
    from patchword.evaluation.finish import UnscoredError, merge_evaluations

    if photos is not None:
        raise PatchwordError("--photos is given, but the shards of an evaluation are merged without photographs")
    try:
        report = merge_evaluations(shards, out=out, overwrite=overwrite, command=command_line())
    except UnscoredError as error:
        exit_unscored(error)
    print_report(report, out=out, as_json=as_json)


def ablate(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID", help="JSON file that declares the rows; see docs/ablation.md.")
    ],
    out: OutFolder,
    device: Device = "auto",
    dtype: Dtype = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train and judge variants of stage 2 over seeds."""
    from patchword.ablation.grid import AblationGrid
    from patchword.ablation.run import RECORD, run_ablation

    table = run_ablation(
        AblationGrid.load(grid), out=out, device=device, dtype=dtype, resume=resume, overwrite=overwrite, quiet=quiet
    )
    if as_json:
        rows = {
            name: {
                column: {"mean": score.mean, "deviation": score.deviation}
                for column, score in zip(table.columns, scores, strict=True)
            }
            for name, scores in table.rows.items()
        }
        print_json({"seeds": table.seeds, "rows": rows, "record": str(out / RECORD)})
    else:
        typer.echo(table.markdown(), nl=False)


def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Training-free methods to compare with."""
    from patchword.segmentation.methods import METHODS

    if as_json:
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


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Model of `align`, or labels of `label`.")],
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the hub, made when it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Branch; by default the main one.")] = None,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Of the commit.")] = "Made by patchword",
) -> None:
    """A model or labels up to the hub, without photographs."""
    from patchword.export.publish import push_folder

    typer.echo(push_folder(folder, name=name, private=private, revision=revision, message=message))


app = typer.Typer(
    name="patchword",
    help="Photographs and class names in; pseudo labels and an open-vocabulary segmenter out.",
    cls=PatchwordGroup,
    add_completion=False,
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


@app.command()
def demo(
    out: OutFolder,
    seed: Annotated[int, typer.Option(help="Seed of the scenes and of the training.")] = 0,
    scenes: Annotated[int, typer.Option(metavar="N", help="Scenes to label and to learn from.")] = 260,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline on drawn scenes, offline, in minutes."""
    from patchword.toytown.demo import run_demo

    typer.echo(run_demo(out, seed=seed, scenes=scenes, overwrite=overwrite, quiet=quiet))


app.command()(suggest)
app.command()(label)
app.command()(merge)
app.command()(quality)


@app.command()
def align(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder that `patchword label` made.")],
    out: OutFolder,
    preset: Annotated[
        str | None,
        typer.Option(help="Whose vision encoder: fast, balanced or thorough; by default as the labels were made."),
    ] = None,
    encoder: ModelPart = None,
    text_encoder: ModelPart = None,
    photos: Moved = None,
    settings: Assignments = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=N.")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep frozen features here.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Stage 2: train a segmenter on pseudo masks."""
    from patchword import api
    from patchword.alignment.run import RUN, read_skipped
    from patchword.cli import plans

    numbers = parse_settings([*(settings or []), *([] if seed is None else [f"seed={seed}"])])
    shared: dict[str, Any] = {
        "out": out,
        "preset": preset,
        "encoder": encoder,
        "text_encoder": text_encoder,
        "photos": photos,
        "settings": numbers,
        "resume": resume,
        "overwrite": overwrite,
    }
    if dry_run:
        print_plan(plans.plan_align(labels, **shared, cache=cache, device=device, dtype=dtype), as_json=as_json)
        return
    config = api.align(labels, **shared, cache=cache, device=device, dtype=dtype, quiet=quiet).config
    facts = config.training
    if not speaks_for_all():
        return
    if as_json:
        print_json(config.model_dump(mode="json"))
    else:
        photographs = "photograph" if facts.images == 1 else "photographs"
        typer.echo(
            f"{out}: trained for {facts.steps} steps on {facts.images} {photographs}, loss {facts.last.total:.3f}"
        )
    reasons = read_skipped(out) if facts.images_skipped else {}
    exit_with_failures(facts.images_skipped, done="trained on", where=out / RUN, reasons=reasons)


app.command()(segment)


app.command()(evaluate)
app.command()(benchmarks)
app.command()(ablate)
app.command()(encoders)
app.command()(methods)
app.command("export")(export)
app.command("import")(import_)
app.command()(push)


def main() -> None:
    """Entry point of the console script."""
    print_whatever_names()
    app()
