"""The training-free methods on scenes of Toytown that no model has seen, in both styles.

    python benchmarks/baselines_toytown.py [--scenes N] [--methods NAME ...] [--ways NAME ...] [--model FOLDER] [--json]

Every method gets the same scenes, class names and settings. Ways are how the scenes are seen: at CLIP's own size, at
that of the scenes, or through windows of CLIP's own size, as the methods' papers see their benchmarks. A segmenter that
`patchword align` made can be measured beside them. Numbers are mean IoU over the seen classes, and over all classes,
those included that labelling and alignment never hear of; the interval is over the scenes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import patchword as pw
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.methods import METHODS
from patchword.segmentation.opening import load_method
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import ALL, SIZE, Place, draw
from patchword.versions import versions

WAYS: dict[str, dict[str, Any]] = {
    "own size": {},
    "scene's size": {"image_size": SIZE},
    "windows": {"image_size": SIZE, "window": 64, "stride": 32, "join": "logits"},
}
PURPOSES = {"day": "evaluate-seen", "dusk": "evaluate-style"}


@dataclass(frozen=True)
class Row:
    """A method on a set of scenes.

    Attributes:
        way, method, style: what was measured.
        seen, seen_interval: mean IoU in [0, 1] over the seen classes, and its 95 % interval.
        all, all_interval: the same over all classes.
        seconds: on the clock for both.
    """

    way: str
    method: str
    style: str
    seen: float | None
    seen_interval: tuple[float, float] | None
    all: float | None
    all_interval: tuple[float, float] | None
    seconds: float


def segmenters(names: list[str], *, model: Path | None) -> dict[str, AnySegmenter]:
    """The methods with the miniature models, and a trained segmenter where there is one."""
    clip = load_image_text(str(miniatures.CLIP), device="cpu")
    dino = load_patch_encoder(str(miniatures.DINO), device="cpu")
    found: dict[str, AnySegmenter] = {
        name: load_method(name, image_text=clip, encoder=dino if METHODS[name].needs_encoder else None)
        for name in names
    }
    return found if model is None else {**found, "aligned": pw.load(model, device="cpu")}


def measure(place: Place, *, way: str, method: str, style: str, segmenter: AnySegmenter) -> Row:
    """Both scores of a segmenter on a set of scenes."""
    started = time.perf_counter()
    seen, every = (
        pw.evaluate(place.photos, masks=masks, classes=classes, model=segmenter, settings=WAYS[way], quiet=True)
        for classes, masks in ((SEEN, place.seen), (ALL, place.every))
    )
    seconds = time.perf_counter() - started
    of_seen, of_every = (report.intervals.get("miou") for report in (seen, every))
    return Row(way, method, style, seen.miou, of_seen, every.miou, of_every, seconds)


def cell(score: float | None, interval: tuple[float, float] | None) -> str:
    """A score in percent with its interval."""
    if score is None:
        return "-"
    return f"{100 * score:.1f}" + ("" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40, help="of each style")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--model", type=Path, help="folder of a segmenter to measure beside them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = segmenters(arguments.methods, model=arguments.model)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for style, purpose in PURPOSES.items():
            place = draw(Path(temporary), style, purpose=purpose, count=arguments.scenes, first=0, style=style)
            for way in arguments.ways:
                for method, segmenter in found.items():
                    rows.append(measure(place, way=way, method=method, style=style, segmenter=segmenter))
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "versions": versions()}, indent=2))
        return
    print("| way | method | style | seen classes | all classes | s |\n|---|---|---|---|---|---|")
    for row in rows:
        scores = f"{cell(row.seen, row.seen_interval)} | {cell(row.all, row.all_interval)}"
        print(f"| {row.way} | {row.method} | {row.style} | {scores} | {row.seconds:.0f} |")


if __name__ == "__main__":
    main()
