"""The paper's claims about stage 2, tried on Toytown: the grid of trainings that docs/claims.md reports.

for seed in 0 1 2; do patchword demo -o demo$seed --seed $seed; done
OMP_NUM_THREADS=1 python -m tools.claims demo0 demo1 demo2 -o claims
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchword.ablation.grid import ORACLE, AblationGrid, Row, Test
from patchword.ablation.run import RECORD, TABLE, AblationTable, run_ablation
from patchword.config.align import ALIGN_PRESETS
from patchword.data.folders import write_text
from patchword.errors import PatchwordError
from patchword.toytown import miniatures
from patchword.toytown.classes import UNSEEN
from patchword.toytown.demo import ALIGN_SETTINGS
from patchword.toytown.demo_scenes import ALL

_VARIANTS: dict[str, dict[str, Any]] = {
    "as it is: three terms, one block": {},
    "without the patch-mask term": {"mask_weight": 0.0},
    "patch-text and patch-mask terms": {"loss": "patch-text"},
    "patch-text term alone": {"loss": "patch-text", "mask_weight": 0.0},
    "labels not smoothed": {"label_smoothing": 0.0},
    "the paper's schedule and loss": ALIGN_PRESETS["paper"],
    "linear module": {"module": "linear"},
}
_NOISE = 0.4
_FEW = 50
_ENCODERS = {"CLIP's image tower": miniatures.CLIP, "SAM's image encoder": miniatures.SAM}


def claims_grid(demo: Path, *, seeds: tuple[int, ...]) -> AblationGrid:
    """The grid over a folder that `patchword demo` made.

    Args:
        demo: the folder.
        seeds: of the trainings.
    """
    rows = [Row(name=name, settings=settings) for name, settings in _VARIANTS.items()]
    rows.append(Row(name=f"{_NOISE:.0%} of the regions named wrongly", label_noise=_NOISE))
    rows.append(Row(name=f"{_FEW} scenes", images=_FEW, settings={"module": "block"}))
    rows.append(Row(name=f"{_FEW} scenes, linear module", images=_FEW, settings={"module": "linear"}))
    rows.append(Row(name=ORACLE, exact=True))
    rows += [Row(name=f"encoder: {name}", encoder=str(folder)) for name, folder in _ENCODERS.items()]
    truth = demo / "truth"
    day: dict[str, Any] = {"photos": str(demo / "day"), "masks": str(truth / "day" / "seen")}
    dusk: dict[str, Any] = {"photos": str(demo / "dusk"), "masks": str(truth / "dusk" / "seen")}
    unseen: dict[str, Any] = {
        "photos": str(demo / "day"),
        "masks": str(truth / "day" / "all"),
        "classes": ALL,
        "score": UNSEEN,
    }
    return AblationGrid(
        labels=str(demo / "labels"),
        truth=str(truth / "scenes" / "seen"),
        tests=(Test(name="unseen scenes", **day), Test(name="dusk", **dusk), Test(name="unseen classes", **unseen)),
        encoder=str(miniatures.DINO),
        seeds=seeds,
        settings=ALIGN_SETTINGS.model_dump(mode="json", exclude={"seed"}),
        rows=tuple(rows),
    )


def run_claims(demos: Sequence[Path], *, out: Path, resume: bool, overwrite: bool) -> AblationTable:
    """Train and judge all rows on every folder; see `run_ablation`.

    Args:
        demos: folders of the demo, each of another seed, which is the seed of its trainings too.
        out: folder of the results; a folder a seed.
    """
    seeds = []
    for demo in demos:
        report = demo / "report.json"
        if not report.is_file():
            raise PatchwordError(f"{demo} is not a folder that `patchword demo` made")
        seeds.append(int(json.loads(report.read_bytes())["settings"]["seed"]))
    if len(set(seeds)) != len(seeds):
        raise PatchwordError(f"the seeds of the demos are {', '.join(map(str, seeds))}; they must differ")
    found: dict[str, list[dict[str, float | None]]] = {}
    for demo, seed in zip(demos, seeds, strict=True):
        part = out / f"seed-{seed}"
        grid = claims_grid(demo, seeds=(seed,))
        run_ablation(grid, out=part, device="cpu", resume=resume, overwrite=overwrite)
        for name, scores in json.loads((part / RECORD).read_bytes())["scores"].items():
            found.setdefault(name, []).extend(scores)
    table = AblationTable.of(found, columns=grid.columns, seeds=tuple(seeds))
    write_text(out / TABLE, table.markdown())
    return table


def main() -> None:
    """Entry point of `python -m tools.claims`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", help="folders that `patchword demo` made, each of another seed")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on where a run stopped")
    parser.add_argument("--overwrite", action="store_true", help="empty the folders of the results first")
    asked = parser.parse_args()
    try:
        table = run_claims(asked.demos, out=asked.out, resume=asked.resume, overwrite=asked.overwrite)
    except PatchwordError as error:
        parser.exit(2, f"patchword: {error}\n")
    print(table.markdown(), end="")


if __name__ == "__main__":
    main()
