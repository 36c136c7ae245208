"""`patchword ablate`: many trainings that differ in one thing each, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchword.cli.options import AsJson, Device, Dtype, OutFolder, Overwrite, Quiet, Resume
from patchword.cli.terminal import print_json


def ablate(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID", help="JSON file that declares the rows; see docs/ablation.md.")
    ],
    out: OutFolder,
    device: Device = "auto",
    dtype: Dtype = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train and judge variants of stage 2 over seeds."""
    from patchword.ablation.grid import AblationGrid
    from patchword.ablation.run import RECORD, run_ablation

    table = run_ablation(
        AblationGrid.load(grid), out=out, device=device, dtype=dtype, resume=resume, overwrite=overwrite, quiet=quiet
    )
    if as_json:
        rows = {
            name: {
                column: {"mean": score.mean, "deviation": score.deviation}
                for column, score in zip(table.columns, scores, strict=True)
            }
            for name, scores in table.rows.items()
        }
        print_json({"seeds": table.seeds, "rows": rows, "record": str(out / RECORD)})
    else:
        typer.echo(table.markdown(), nl=False)
