"""Whether the memory of `patchword label` stays flat however long the folder: peaks for a short and for a long one.

    python benchmarks/label_memory.py [--short N] [--long N] [--runs N] [--size N] [--scratch FOLDER] [--json]

Scenes of Toytown are drawn and labelled with the miniature models that ship, each run in a process of its own whose
largest resident memory the system tells. The longer folder holds the shorter one's scenes first, so that what differs
is its length alone. With several runs medians count; the ratio is of the same round of runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_photographs import run
from PIL import Image

from patchword.toytown.classes import SEEN
from patchword.toytown.miniatures import CLIP, SAM
from patchword.toytown.world import draw_scene, scene_seed

# Quick, and without influence on how much is kept: few crops, one prompt a class.
QUICK = ("--set=grids=[1,2]", "--set=peaks=1", "--set=sampling_clusters=8", "--device=cpu", "--quiet")


@dataclass(frozen=True)
class Peak:
    """Largest resident memory of labelling a folder: photographs, MiB and seconds (medians), every run's MiB."""

    photographs: int
    peak_mib: float
    seconds: float
    runs: list[int]


def draw(folder: Path, *, count: int, size: int) -> None:
    """Draw scenes 0 to count - 1, `size` pixels a side."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene = draw_scene(scene_seed("label", index=index), size=size)
        Image.fromarray(scene.image).save(folder / f"{index:06d}.png")


def measure(scratch: Path, *, counts: tuple[int, ...], runs: int) -> list[Peak]:
    """Label the first so many scenes, for each count, in rounds."""
    command = ["label", str(scratch / "scenes"), "--classes", ", ".join(SEEN), "-o", str(scratch / "labels")]
    command += ["--overwrite", "--image-text", str(CLIP), "--mask-generator", str(SAM), *QUICK]
    stages: dict[int, list[tuple[int, float]]] = {count: [] for count in counts}
    for _ in range(runs):
        for count in counts:
            stage = run(f"label {count}", [*command, "--limit", str(count)], photographs=count)
            stages[count].append((stage.peak_mib, stage.seconds))
    return [
        Peak(
            count,
            statistics.median(peak for peak, _ in found),
            statistics.median(seconds for _, seconds in found),
            [peak for peak, _ in found],
        )
        for count, found in stages.items()
    ]


def main() -> None:
    """Parse the command line, draw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, default=200, help="scenes in the short run")
    parser.add_argument("--long", type=int, default=2000, help="scenes in the long run")
    parser.add_argument("--runs", type=int, default=1, help="rounds of both")
    parser.add_argument("--size", type=int, default=64, help="side of a scene in pixels")
    parser.add_argument("--scratch", type=Path, help="folder for scenes and labels; a temporary one by default")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = chosen.scratch or Path(temporary)
        draw(scratch / "scenes", count=chosen.long, size=chosen.size)
        short, long = measure(scratch, counts=(chosen.short, chosen.long), runs=chosen.runs)
    ratio = long.peak_mib / short.peak_mib
    if chosen.json:
        print(json.dumps({"peaks": [asdict(short), asdict(long)], "ratio": ratio}, indent=2))
        return
    print("| photographs | peak MiB | seconds |\n|---|---|---|")
    for each in (short, long):
        print(f"| {each.photographs} | {each.peak_mib:.0f} | {each.seconds:.0f} |")
    print(f"\nratio {ratio:.3f}")


if __name__ == "__main__":
    main()
