"""`patchword evaluate`: a segmenter, or anyone's label maps, against masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from patchword.cli.benchmarks import check_data, print_suite, run_benchmark, run_suite
from patchword.cli.options import (
    AnyModel,
    AsJson,
    Assignments,
    Background,
    Device,
    Dtype,
    ImageText,
    Limit,
    Method,
    Overwrite,
    Part,
    Quiet,
    Resume,
    Snapper,
    TextEncoder,
    VisionEncoder,
)
from patchword.cli.terminal import (
    FAILED,
    command_line,
    complain,
    parse_settings,
    parse_words,
    print_columns,
    print_json,
)

if TYPE_CHECKING:
    from patchword.evaluation.finish import UnscoredError
    from patchword.evaluation.report import EvaluationReport

_NAMED = 10  # images that could not be scored and are named on the screen


def evaluate(
    photos: Annotated[
        Path | None, typer.Argument(metavar="PHOTOS", help="Folder of photographs, with --masks and --classes.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Masks: indexed, grey or 16-bit PNG.")] = None,
    classes: Annotated[str | None, typer.Option(help='A class list file, or names: "cat, dog".')] = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead, with --data: one of `patchword benchmarks`.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead, with --data: standard8, all of them that are there.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Where --benchmark is, or --suite; or a file of lines 'voc21: FOLDER'."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of benchmarks: tcl448, sclip336, native, or published (as the authors of --method ran it). "
            "[default: native]",
        ),
    ] = None,
    templates: Annotated[
        int | None, typer.Option(metavar="N", help="Prompt templates instead of the protocol's, 7 or 80.")
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Pixels of coco-object that nobody labelled: background, as in published numbers, or ignored. "
            "[default: background]",
        ),
    ] = None,
    model: AnyModel = None,
    method: Method = None,
    image_text: ImageText = None,
    encoder: VisionEncoder = None,
    text_encoder: TextEncoder = None,
    mask_proposer: Snapper = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Instead, label maps that any program has made.")
    ] = None,
    predictions_are: Annotated[
        str,
        typer.Option(
            metavar="CODE",
            help="Values of --predictions: masks (as the masks'), positions (in the class list, from 0), or auto: "
            "positions in folders of patchword, else masks.",
        ),
    ] = "auto",
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
    settings: Assignments = None,
    boundary: Annotated[bool, typer.Option(help="Measure Boundary IoU too.")] = True,
    resamples: Annotated[
        int | None, typer.Option(metavar="N", help="Of the images, for intervals; 0 for none. [default: 1000]")
    ] = None,
    worst: Annotated[
        int | None, typer.Option(metavar="N", help="Images of lowest score in the report. [default: 30]")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    shard: Part = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a segmenter or label maps against masks."""
    from patchword.evaluation.finish import UnscoredError

    judged: dict[str, Any] = {
        "model": model,
        "method": method,
        "image_text": image_text,
        "encoder": encoder,
        "text_encoder": text_encoder,
        "mask_proposer": mask_proposer,
        "predictions": predictions,
        "predictions_are": predictions_are,
        "settings": parse_settings(settings or []),
        "device": device,
        "dtype": dtype,
    }
    run: dict[str, Any] = {
        "scoring": scoring_options(boundary=boundary, resamples=resamples, worst=worst),
        "out": out,
        "limit": limit,
        "shard": shard,
        "resume": resume,
        "overwrite": overwrite,
        "quiet": quiet,
        "command": command_line(),
    }
    of_folder: dict[str, Any] = {
        "photos": photos,
        "masks": masks,
        "classes": classes,
        "zero_is": zero_is,
        "ignore_index": ignore_index,
        "mask_suffix": mask_suffix,
        "background": parse_words(background),
        "names": names,
    }
    of_benchmarks: dict[str, Any] = {
        "data": data,
        "protocol": protocol,
        "templates": templates,
        "unlabelled": unlabelled,
    }
    kind = check_data(benchmark, suite=suite, of_folder=of_folder, of_benchmarks=of_benchmarks)
    try:
        if kind == "folder":
            from patchword import api

            print_report(api.evaluate(**of_folder, **judged, **run), out=out, as_json=as_json)
        elif kind == "benchmark":
            print_report(run_benchmark(str(benchmark), judged, **of_benchmarks, **run), out=out, as_json=as_json)
        else:
            print_suite(run_suite(str(suite), judged, **of_benchmarks, **run), out=out, as_json=as_json)
    except UnscoredError as error:
        exit_unscored(error)


def scoring_options(*, boundary: bool, resamples: int | None, worst: int | None) -> dict[str, Any]:
    """What was typed of `ScoringSettings`."""
    given = {"boundary": boundary, "resamples": resamples, "worst": worst}
    return {name: value for name, value in given.items() if value is not None}


def exit_unscored(error: UnscoredError) -> NoReturn:
    """Name images that could not be scored, on standard error, and leave with exit code 1."""
    for name, reason in list(error.reasons.items())[:_NAMED]:
        complain(f"{name}: {reason}")
    complain(str(error))
    raise typer.Exit(FAILED) from None


def print_report(report: EvaluationReport, *, out: Path | None, as_json: bool) -> None:
    """Print scores for a person, or all as JSON; leave with exit code 1 when no pixel is scored."""
    _print(report, out=out, as_json=as_json)
    if not report.pixels and report.shard is None:
        raise typer.Exit(FAILED)  # the warning has said so


def _print(report: EvaluationReport, *, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    if report.shard is not None:
        part = f"part {report.shard.index} of {report.shard.count}"
        scored = "1 image" if report.images == 1 else f"{report.images} images"
        typer.echo(f"{out}: {scored} scored, {part}; `patchword merge` puts the parts together")
        return
    _print_scores(report, out=out)


def _print_scores(report: EvaluationReport, *, out: Path | None) -> None:
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
        typer.echo(f"{out / PAGE_FILE} shows classes, confusions and the worst images")
