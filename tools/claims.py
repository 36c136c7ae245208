"""The paper's claims about stage 2, tried on Toytown: the grid of trainings that docs/claims.md reports.

patchword demo -o demo --scenes 400
python -m tools.claims demo -o claims
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from patchword.ablation.grid import AblationGrid, Row, Test
from patchword.ablation.run import AblationTable, run_ablation
from patchword.errors import PatchwordError
from patchword.toytown import miniatures
from patchword.toytown.classes import UNSEEN
from patchword.toytown.demo import ALIGN_SETTINGS
from patchword.toytown.demo_scenes import ALL

_VARIANTS: dict[str, dict[str, Any]] = {
    "as it is: both terms, one block": {},
    "without the patch-mask term": {"mask_weight": 0.0},
    "the paper's schedule and loss": {"schedule": "paper", "mask_weight": 0.0},
    "patch-text term alone, no masks": {"loss": "patch-text", "mask_weight": 0.0},
    "both terms, text as anchor": {"patch_text": "text-anchor"},
    "both terms, patch as anchor": {"patch_text": "patch-anchor"},
    "cross entropy against the text vectors": {"loss": "cross-entropy"},
    "linear module": {"module": "linear"},
    "MLP module": {"module": "mlp"},
    "two blocks": {"module": "two-blocks"},
}
_NOISE = (0.1, 0.2, 0.4)
_IMAGES = (50, 100, 200)
_ENCODERS = {"CLIP's image tower": miniatures.CLIP, "SAM's image encoder": miniatures.SAM}


def claims_grid(demo: Path, *, seeds: tuple[int, ...]) -> AblationGrid:
    """The grid over a folder that `patchword demo` made.

    Args:
        demo: the folder.
        seeds: of the trainings.
    """
    rows = [Row(name=name, settings=settings) for name, settings in _VARIANTS.items()]
    rows += [Row(name=f"{share:.0%} of the regions named wrongly", label_noise=share) for share in _NOISE]
    rows += [Row(name=f"{count} scenes", images=count) for count in _IMAGES]
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


def run_claims(demo: Path, *, out: Path, seeds: tuple[int, ...], resume: bool, overwrite: bool) -> AblationTable:
    """Train and judge all rows; see `run_ablation`.

    Raises:
        PatchwordError: when `demo` is no folder of the demo.
    """
    if not (demo / "truth" / "scenes" / "seen").is_dir():
        raise PatchwordError(f"{demo} is not a folder that `patchword demo` made")
    grid = claims_grid(demo, seeds=seeds)
    return run_ablation(grid, out=out, device="cpu", resume=resume, overwrite=overwrite)


def main() -> None:
    """Entry point of `python -m tools.claims`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings")
    parser.add_argument("--resume", action="store_true", help="go on where a run stopped")
    parser.add_argument("--overwrite", action="store_true", help="empty the folder first")
    asked = parser.parse_args()
    try:
        table = run_claims(
            asked.demo, out=asked.out, seeds=tuple(asked.seeds), resume=asked.resume, overwrite=asked.overwrite
        )
    except PatchwordError as error:
        parser.exit(2, f"patchword: {error}\n")
    print(table.markdown(), end="")


if __name__ == "__main__":
    main()
