"""`patchword label`: pseudo masks from photographs and class names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchword.cli.terminal import command_line, print_json, print_plan, report_labels
from patchword.config.label import LabelCommand
from patchword.runs.progress import duration, rate

if TYPE_CHECKING:
    from patchword.labeling.preview import Preview


def label(photos: list[str], config: LabelCommand) -> None:
    """Label, or say what it would take, or show what it would look like."""
    import patchword

    config = config.changed(command=command_line())
    if config.dry_run:
        from patchword.labeling.api import plan_label

        print_plan(plan_label(photos, config), as_json=config.as_json)
    elif config.preview is not None:
        from patchword.labeling.api import preview_label

        _report_preview(preview_label(photos, config, count=config.preview), as_json=config.as_json)
    else:
        dataset = patchword.label(photos, config=config)
        then = () if config.part is None else ("merge", config.out, "OTHER_PARTS...", "-o", "labels")
        report_labels(dataset, out=Path(config.out), done="labelled", as_json=config.as_json, then=then)


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
