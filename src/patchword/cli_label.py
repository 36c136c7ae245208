"""`patchword label`: pseudo masks from photographs and class names."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from patchword.options import (
    AsJson,
    Assignments,
    Background,
    ClassList,
    Device,
    DryRun,
    Dtype,
    Limit,
    ModelPart,
    OutFolder,
    Overwrite,
    Photos,
    PresetName,
    Quiet,
    Resume,
)
from patchword.terminal import command_line, parse_settings, parse_words, print_plan, report_labels


def label(
    photos: Photos,
    classes: ClassList,
    out: OutFolder,
    preset: PresetName = "balanced",
    image_text: ModelPart = None,
    mask_proposer: ModelPart = None,
    encoder: ModelPart = None,
    background: Background = None,
    settings: Assignments = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="With --resume, drop the labels of photographs that are gone.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Stage 1: pseudo masks from photographs and class names."""
    from patchword import api, plans

    shared: dict[str, Any] = {
        "classes": classes,
        "out": out,
        "preset": preset,
        "image_text": image_text,
        "mask_proposer": mask_proposer,
        "encoder": encoder,
        "background": parse_words(background),
        "settings": parse_settings(settings or []),
        "limit": limit,
        "resume": resume,
        "overwrite": overwrite,
    }
    if dry_run:
        print_plan(plans.plan_label(photos, **shared), as_json=as_json)
        return
    dataset = api.label(
        photos,
        **shared,
        forget_missing=forget_missing,
        device=device,
        dtype=dtype,
        quiet=quiet,
        command=command_line(),
    )
    report_labels(dataset, out=out, done="labelled", as_json=as_json)
