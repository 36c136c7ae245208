"""`patchword evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchword.options import AsJson, Background, ClassList, Device, Dtype, Limit, Overwrite, Photos, Quiet
from patchword.terminal import command_line, parse_words, print_columns, print_json

if TYPE_CHECKING:
    from patchword.evaluate.masks import ZeroIs
    from patchword.evaluate.report import EvaluationReport


def evaluate(
    photos: Photos,
    masks: Annotated[Path, typer.Option(metavar="FOLDER", help="Masks: indexed, grey or 16-bit PNG.")],
    classes: ClassList,
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Segmenter to measure.")] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Label maps to measure.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the report.")] = None,
    zero_is: Annotated[
        str, typer.Option(help="What mask value 0 is: class (the first), background or ignore.")
    ] = "class",
    ignore_index: Annotated[
        int | None,
        typer.Option(metavar="N", help="Mask value that does not count [default: 255; 16-bit 65535]."),
    ] = None,
    mask_suffix: Annotated[str, typer.Option(metavar="TEXT", help="Before .png in masks' names: _labelTrainIds.")] = "",
    background: Background = None,
    names: Annotated[Path | None, typer.Option(metavar="FILE", help="Take only photographs named here.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a segmenter or label maps against masks."""
    from patchword import api

    report = api.evaluate(
        photos,
        masks=masks,
        classes=classes,
        model=model,
        predictions=predictions,
        out=out,
        zero_is=cast("ZeroIs", zero_is),
        ignore_index=ignore_index,
        mask_suffix=mask_suffix,
        background=parse_words(background),
        names=names,
        limit=limit,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        quiet=quiet,
        command=command_line(),
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    _print_scores(report)


def _print_scores(report: EvaluationReport) -> None:
    from rich.console import Console

    from patchword.evaluate.report import class_table, percent

    Console().print(class_table(report))
    shares = {
        "mIoU": report.miou,
        "pixel accuracy": report.pixel_accuracy,
        "mean accuracy": report.mean_accuracy,
        "coverage": report.coverage,
    }
    print_columns([(name, percent(share)) for name, share in shares.items()])
