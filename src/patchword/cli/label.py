"""`patchword label`: pseudo masks from photographs and class names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchword.cli.options import (
    AsJson,
    Assignments,
    Background,
    ClassList,
    Device,
    Dtype,
    Limit,
    ModelPart,
    OutFolder,
    Overwrite,
    OverwriteCorrections,
    Part,
    Photos,
    PresetName,
    Quiet,
    Resume,
    RetryFailed,
)
from patchword.cli.terminal import command_line, parse_settings, parse_words, print_json, print_plan, report_labels
from patchword.errors import PatchwordError
from patchword.runs.progress import duration, rate

if TYPE_CHECKING:
    from patchword.labeling.preview import Preview


def label(
    photos: Photos,
    classes: ClassList,
    out: OutFolder,
    preset: PresetName = "balanced",
    image_text: ModelPart = None,
    mask_proposer: ModelPart = None,
    encoder: ModelPart = None,
    background: Background = None,
    generator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="clip-prompts-sam, sam-then-clip or both; by default the preset's."),
    ] = None,
    settings: Assignments = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    shard: Part = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    overwrite_corrections: OverwriteCorrections = False,
    retry_failed: RetryFailed = False,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="With --resume, drop the labels of photographs that are gone.")
    ] = False,
    preview: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Label N photographs spread over the folder and write one page, OUT-preview.html."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Counts, models, time and disk from three photographs; keep nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Stage 1: pseudo masks from photographs and class names."""
    from patchword import api
    from patchword.cli import plans

    asked: dict[str, Any] = {
        "classes": classes,
        "out": out,
        "preset": preset,
        "image_text": image_text,
        "mask_proposer": mask_proposer,
        "encoder": encoder,
        "background": parse_words(background),
        "generator": generator,
        "settings": parse_settings(settings or []),
        "device": device,
        "dtype": dtype,
        "limit": limit,
        "shard": shard,
    }
    if dry_run and preview is not None:
        raise PatchwordError("use either --dry-run or --preview, not both")
    if dry_run:
        asked |= {"resume": resume, "overwrite": overwrite, "overwrite_corrections": overwrite_corrections}
        print_plan(plans.plan_label(photos, **asked, quiet=quiet), as_json=as_json)
        return
    if preview is not None:
        _report_preview(
            plans.preview_label(photos, **asked, count=preview, command=command_line(), quiet=quiet), as_json=as_json
        )
        return
    dataset = api.label(
        photos,
        **asked,
        resume=resume,
        overwrite=overwrite,
        overwrite_corrections=overwrite_corrections,
        forget_missing=forget_missing,
        retry_failed=retry_failed,
        quiet=quiet,
        command=command_line(),
    )
    report_labels(dataset, out=out, done="labelled", as_json=as_json)


def _report_preview(preview: Preview, *, as_json: bool) -> None:
    counts = preview.counts
    if as_json:
        page = {"page": str(preview.page), "of": preview.of, "seconds": preview.seconds}
        print_json({**counts.model_dump(mode="json"), **page})
        return
    typer.echo(
        f"{counts.images} of {preview.of} photographs in {duration(preview.seconds)}, {rate(preview.images_a_second)}: "
        f"{counts.ok} with labels, {counts.empty} without any, {counts.failed} failed"
    )
    typer.echo(preview.page)
