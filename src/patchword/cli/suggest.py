"""`patchword suggest`: a class list from the photographs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchword.cli.options import AsJson, Assignments, Device, Dtype, ModelPart, Photos, PresetName, Quiet
from patchword.cli.terminal import command_line, exit_with_failures, parse_settings, print_columns, print_json

if TYPE_CHECKING:
    from patchword.suggestion.result import Suggestion


def suggest(
    photos: Photos,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Class list to write.")],
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML page with examples of every class.")] = None,
    nouns: Annotated[
        str | None, typer.Option(metavar="FILE", help="Nouns to choose from; by default 850 everyday ones.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", help="Look at N photographs at most. [default: 500]")
    ] = None,
    minimum_share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the photographs that show a class, 0 to 1 [default: 0.02]")
    ] = None,
    limit_classes: Annotated[
        int | None, typer.Option(metavar="N", help="Propose N classes at most. [default: 60]")
    ] = None,
    preset: PresetName = "balanced",
    image_text: ModelPart = None,
    settings: Assignments = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """No class list yet? Propose one from the photographs."""
    from patchword import api

    named = {"sample": sample, "minimum_share": minimum_share, "limit_classes": limit_classes}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    suggestion = api.suggest(
        photos,
        out=out,
        page=page,
        nouns=nouns,
        preset=preset,
        image_text=image_text,
        settings=parse_settings([*(settings or []), *given]),
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        quiet=quiet,
        command=command_line(),
    )
    if as_json:
        print_json(suggestion.to_json())
    else:
        _print(suggestion, out=out, page=page)
    exit_with_failures(len(suggestion.failed), done="looked at", where=out, reasons=suggestion.failed)


def _print(suggestion: Suggestion, *, out: Path, page: Path | None) -> None:
    from patchword.suggestion.result import percent

    rows = [
        (each.name, each.photographs, percent(each.photographs, of=suggestion.photographs), each.crops)
        for each in suggestion.classes
    ]
    print_columns([("class", "photographs", "share", "crops"), *rows])
    count = len(suggestion.classes)
    looked = f"{suggestion.photographs:,} of {suggestion.found:,} photographs"
    typer.echo(f"{out}: {count} class{'' if count == 1 else 'es'} proposed from {looked}; edit it before you label")
    if page is not None:
        typer.echo(f"{page}: examples of every class")
