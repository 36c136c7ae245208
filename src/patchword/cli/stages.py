"""`patchword label`, `align` and `segment`: parse, call, print; or say what it would take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchword.cli.terminal import (
    command_line,
    exit_with_failures,
    print_json,
    print_plan,
    report_labels,
    report_segmented,
    say_next,
    speaks_for_all,
)
from patchword.config.align import AlignCommand
from patchword.config.label import LabelCommand
from patchword.config.segment import SegmentCommand
from patchword.data.storage import as_path, is_stored
from patchword.runs.progress import duration, photograph_count, rate
from patchword.runs.records import recorded_root

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
        report_labels(dataset, out=as_path(config.out), done="labelled", as_json=config.as_json, then=then)


def _report_preview(preview: Preview, *, as_json: bool) -> None:
    counts = preview.counts
    if as_json:
        page = {"page": str(preview.page), "of": preview.of, "seconds": preview.seconds}
        print_json({**counts.model_dump(mode="json"), **page})
        return
    speed = f"{duration(preview.seconds)}, {rate(preview.images_a_second)}"
    typer.echo(
        f"{counts.images} of {photograph_count(preview.of)} in {speed}: "
        f"{counts.ok} with labels, {counts.empty} without any, {counts.failed} failed"
    )
    typer.echo(preview.page)


def align(labels: str, config: AlignCommand) -> None:
    """Train, or say what it would take."""
    import patchword

    if config.dry_run:
        from patchword.alignment.api import plan_align

        print_plan(plan_align(labels, config), as_json=config.as_json)
        return
    made = patchword.align(labels, config=config).config
    from patchword.alignment.run import RUN, read_skipped
    from patchword.labeling.records import DatasetRecord

    facts, out = made.training, Path(config.out)
    if not speaks_for_all():
        return
    if config.as_json:
        print_json(made.model_dump(mode="json"))
    else:
        photographs = "photograph" if facts.images == 1 else "photographs"
        typer.echo(
            f"{out}: trained for {facts.steps} steps on {facts.images} {photographs}, loss {facts.last.total:.3f}"
        )
        recorded = recorded_root(as_path(labels), DatasetRecord.load(as_path(labels)).photographs)
        photos = config.photos or (recorded if is_stored(recorded) else os.path.relpath(recorded))
        say_next("segment", photos, "--model", out, "-o", "masks")
    reasons = read_skipped(out) if facts.images_skipped else {}
    exit_with_failures(facts.images_skipped, done="trained on", where=out / RUN, reasons=reasons)


def segment(photos: list[str], config: SegmentCommand) -> None:
    """Segment, or say what it would take."""
    import patchword

    config = config.changed(command=command_line())
    if config.dry_run:
        from patchword.segmentation.api import check_source

        check_source(config, refine=config.numbers.refine)  # before torch is imported
        from patchword.segmentation.estimate import plan_segment

        print_plan(plan_segment(photos, config), as_json=config.as_json)
        return
    then: tuple[object, ...] = ()
    if config.part is not None:
        then = ("merge", config.out, "OTHER_PARTS...", "-o", "masks")
    elif isinstance(config.classes, str) and len(photos) == 1:
        then = ("evaluate", *photos, "--masks", "TRUTH", "--classes", config.classes, "--predictions", config.out)
    segmented = patchword.segment(photos, config=config)
    report_segmented(segmented, out=as_path(config.out), as_json=config.as_json, then=then)
