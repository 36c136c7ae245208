"""Whether the score that labels get without ground truth ranks Toytown's scenes as their exact masks do.

    patchword demo -o demo
    python benchmarks/quality_correlation.py demo [DEMO ...] [--json]

The demo has labelled scenes of both styles; each image's score is held against its true mIoU (mean over the classes in
the exact mask or the labels; pixels without a label are missed). Printed are Spearman's rank correlation with the true
mIoU, its 95 % interval by bootstrap, the one with pixel accuracy, and the mean true mIoU of the fifths that the score
ranks lowest and highest; the same for each part of the score alone.

The score's formula was chosen on the first Toytown, so that no scene of this one had a part in it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from patchword.labeling.dataset import LabelledDataset
from patchword.toytown.quality_check import Correlation, QualityCheck, check_quality

STYLES = {"day": ("labels", "scenes"), "dusk": ("labels-dusk", "dusk")}


def rows(check: QualityCheck) -> list[str]:
    """The result as lines of a table."""
    low, high = check.interval
    lines = [
        f"{check.images} scenes, true mIoU {check.miou:.3f}, pixel accuracy {check.pixel_accuracy:.3f}",
        f"Spearman of the score with mIoU {_number(check.score.spearman)} (95 %: {low:.3f} to {high:.3f})",
        f"{'':20}{'mIoU':>8}{'accuracy':>10}{'worst 1/5':>11}{'best 1/5':>10}",
    ]
    return lines + [_row(name, found) for name, found in {"score": check.score, **check.parts}.items()]


def _row(name: str, found: Correlation) -> str:
    numbers = f"{_number(found.spearman):>8}{_number(found.accuracy):>10}"
    return f"{name:20}{numbers}{found.worst_fifth:11.3f}{found.best_fifth:10.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Compare both styles of every folder and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", metavar="DEMO", help="folder that `patchword demo` made")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    checks = {
        f"{demo}, {style}": check_quality(LabelledDataset.open(demo / labels), masks=demo / "truth" / scenes / "seen")
        for demo in chosen.demos
        for style, (labels, scenes) in STYLES.items()
    }
    if chosen.json:
        print(json.dumps({name: asdict(check) for name, check in checks.items()}, indent=2))
        return
    for name, check in checks.items():
        print("\n".join([f"{name}:", *rows(check), ""]))


if __name__ == "__main__":
    main()
