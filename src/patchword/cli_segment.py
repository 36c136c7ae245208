"""`patchword segment`: photographs by any class names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchword.options import (
    AsJson,
    Background,
    Device,
    Dtype,
    Limit,
    ModelPart,
    OutFolder,
    Overwrite,
    Photos,
    Quiet,
    Resume,
)
from patchword.terminal import command_line, exit_with_failures, parse_words, print_json


def segment(
    photos: Photos,
    model: Annotated[Path, typer.Option(metavar="FOLDER", help="Segmenter that `patchword align` made.")],
    out: OutFolder,
    classes: Annotated[
        str | None, typer.Option(help="Class list file or names; by default those of the training.")
    ] = None,
    background: Background = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Size that images are seen at; larger is finer and slower.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Ignore pixels of lower confidence, 0 to 1.")] = 0.0,
    overlays: Annotated[bool, typer.Option(help="Write overlays.")] = True,
    encoder: ModelPart = None,
    text_encoder: ModelPart = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Stage 3: segment photographs by any class names."""
    from patchword import api
    from patchword.segment.run import RESULTS

    segmented = api.segment(
        photos,
        model=api.load(model, encoder=encoder, text_encoder=text_encoder, device=device, dtype=dtype),
        classes=classes,
        out=out,
        background=parse_words(background),
        settings={"image_size": image_size, "threshold": threshold},
        overlays=overlays,
        limit=limit,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
        command=command_line(),
    )
    if as_json:
        print_json({"folder": str(segmented.folder), "segmented": len(segmented.names), "failed": segmented.failed})
    else:
        typer.echo(f"{out}: {len(segmented.names)} photographs segmented, {len(segmented.failed)} failed")
    exit_with_failures(len(segmented.failed), done="segmented", where=out / RESULTS, reasons=segmented.failed)
