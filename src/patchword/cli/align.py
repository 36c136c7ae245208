"""`patchword align`: a segmenter from pseudo masks."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from patchword.cli.terminal import exit_with_failures, print_json, print_plan, say_next, speaks_for_all
from patchword.config.align import AlignCommand


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
        photos = config.photos or os.path.relpath(Path(labels) / DatasetRecord.load(Path(labels)).photographs)
        say_next("segment", photos, "--model", out, "-o", "masks")
    reasons = read_skipped(out) if facts.images_skipped else {}
    exit_with_failures(facts.images_skipped, done="trained on", where=out / RUN, reasons=reasons)
