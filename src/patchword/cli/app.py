"""The command line: parses, calls the public functions, prints. Whatever is heavy is imported inside a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchword import __version__
from patchword.cli.ablate import ablate
from patchword.cli.benchmarks import benchmarks
from patchword.cli.evaluate import evaluate
from patchword.cli.exchange import export, import_
from patchword.cli.label import label
from patchword.cli.merge import merge
from patchword.cli.methods import methods
from patchword.cli.models import encoders, models_app
from patchword.cli.options import (
    AsJson,
    Assignments,
    Device,
    DryRun,
    Dtype,
    ModelPart,
    Moved,
    OutFolder,
    Overwrite,
    PresetName,
    Quiet,
    Resume,
)
from patchword.cli.publish import push
from patchword.cli.quality import quality
from patchword.cli.segment import segment
from patchword.cli.suggest import suggest
from patchword.cli.terminal import (
    PatchwordGroup,
    exit_with_failures,
    parse_settings,
    print_json,
    print_plan,
    print_whatever_names,
    speaks_for_all,
)

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
    preset: PresetName = "balanced",
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
