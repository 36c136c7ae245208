"""`patchword segment`: photographs by any class names."""

from __future__ import annotations

from pathlib import Path

from patchword.cli.terminal import command_line, print_plan, report_segmented
from patchword.config.segment import SegmentCommand


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
    report_segmented(segmented, out=Path(config.out), as_json=config.as_json, then=then)
