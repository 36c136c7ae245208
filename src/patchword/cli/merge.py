"""`patchword merge`: what shards have made, as one run would have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchword.cli.options import AsJson, Moved, OutFolder, Overwrite, Quiet
from patchword.cli.terminal import command_line, report_labels, report_segmented
from patchword.errors import PatchwordError


def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARD...", help="Folders made with --shard I/N, all of them.")
    ],
    out: OutFolder,
    photos: Moved = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Shards of `label`, `segment` or `evaluate` as the folder of one run."""
    from patchword.data.folders import read_marker
    from patchword.evaluation.records import MARKER as EVALUATION
    from patchword.labeling.merge import merge_labels
    from patchword.segmentation.merge import merge_segmentations
    from patchword.segmentation.records import MARKER as SEGMENTATION

    kind = read_marker(shards[0])
    if kind is None:
        raise PatchwordError(
            f"{shards[0]} is {_what(shards[0])}; give folders that `label`, `segment` or "
            "`evaluate` wrote with --shard I/N"
        )
    if kind == EVALUATION:
        _merge_evaluations(shards, out=out, photos=photos, overwrite=overwrite, as_json=as_json)
        return
    if kind == SEGMENTATION:
        merged = merge_segmentations(
            shards, out=out, photos=photos, overwrite=overwrite, quiet=quiet, command=command_line()
        )
        report_segmented(merged, out=out, as_json=as_json)
        return
    dataset = merge_labels(shards, out=out, photos=photos, overwrite=overwrite, quiet=quiet, command=command_line())
    report_labels(dataset, out=out, done="labelled", as_json=as_json)


def _what(path: Path) -> str:
    if not path.exists():
        return "not there"
    return "a folder of other making" if path.is_dir() else "a file"


def _merge_evaluations(shards: list[Path], *, out: Path, photos: Path | None, overwrite: bool, as_json: bool) -> None:
    from patchword.cli.evaluate import exit_unscored, print_report
    from patchword.evaluation.finish import UnscoredError
    from patchword.evaluation.merge import merge_evaluations

    if photos is not None:
        raise PatchwordError("--photos is given, but the shards of an evaluation are merged without photographs")
    try:
        report = merge_evaluations(shards, out=out, overwrite=overwrite, command=command_line())
    except UnscoredError as error:
        exit_unscored(error)
    print_report(report, out=out, as_json=as_json)
