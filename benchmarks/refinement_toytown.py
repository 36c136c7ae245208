"""What refinement of edges gains on unseen scenes of Toytown, and what it costs.

    python benchmarks/refinement_toytown.py [--model DIR] [--scenes N] [--tune] [--pictures DIR] [--json]

Two segmenters, one trained by the demo's recipe and dense CLIP, segment the same scenes by day and at dusk without any
refinement and with each. Boundary IoU keeps what is within 2 % of the diagonal of an edge. Intervals of the difference
to none are the middle 95 % of 1,000 bootstrap samples of scenes, both sides on the same scenes. Seconds are processor
time of one thread, everything from the pixels to the label map, so that other work on the machine changes them little.

--tune compares numbers of the refinements on scenes of its own; the defaults were chosen there and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import patchword
import patchword as pw
from patchword.data.masks import LabelMap
from patchword.evaluation.counts import count_image, mean_of_known, percentiles, ratio, resampled_sums
from patchword.models.loading import load_mask_generator
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.segmenter import Segmenter
from patchword.toytown import miniatures
from patchword.toytown.classes import CLASSES, SEEN
from patchword.toytown.demo import ALIGN_SETTINGS, LABEL_SETTINGS
from patchword.toytown.demo_scenes import ALL, SIZE, draw
from patchword.toytown.demo_work import dense_segmenter
from patchword.toytown.world import draw_scene, scene_seed
from patchword.versions import versions
from patchword.visualization.overlays import overlay

REPORTED = {"day": ("evaluate-seen", 50_000), "dusk": ("evaluate-style", 50_000)}
TUNING = {"day": ("validate", 500_000), "dusk": ("validate", 600_000)}
DEFAULTS: dict[str, dict[str, Any]] = {name: {"refine": name} for name in ("none", "jbu", "pamr", "sam")}
RESAMPLES = 1000
BOUNDARY = 0.02

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """A scene: its style, its picture (h, w, 3), and positions in `SEEN` (h, w), -1 where another class is."""

    style: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One segmenter with one refinement on the scenes of one style; scores and intervals in per cent, mIoU first."""

    segmenter: str
    refinement: str
    style: str
    miou: float
    boundary_iou: float
    miou_gain: tuple[float, float]
    boundary_iou_gain: tuple[float, float]
    seconds: float


def candidates() -> dict[str, dict[str, Any]]:
    """What --tune compares."""
    found = {"none": DEFAULTS["none"]}
    for distance in (0.5, 1.0, 1.5):
        for colour in (0.05, 0.1, 0.2):
            numbers = {"distance": distance, "colour": colour}
            found[f"jbu {distance} {colour}"] = {"refine": "jbu", "jbu": numbers}
    for pamr in ({}, {"iterations": 5}, {"iterations": 20}, {"contrast": 0.3}, {"dilations": (8, 16)}):
        found[f"pamr {pamr or ''}"] = {"refine": "pamr", "pamr": pamr}
    for sam in ({"agreement": 0.7}, {"agreement": 0.5}, {"agreement": 0.3}, {"agreement": 0.3, "points": 1}):
        found[f"sam {sam}"] = {"refine": "sam", "sam": sam}
    return found


def make_model(folder: Path, *, scenes: int) -> Path:
    """Train a segmenter as the demo does, on fewer scenes."""
    place = draw(folder, "scenes", purpose="label", count=scenes, first=0, style="day")
    patchword.label(
        place.photos,
        classes=SEEN,
        out=folder / "labels",
        image_text=miniatures.CLIP,
        mask_generator=miniatures.SAM,
        settings=LABEL_SETTINGS,
        device="cpu",
    )
    patchword.align(
        folder / "labels", out=folder / "model", encoder=miniatures.DINO, settings=ALIGN_SETTINGS, device="cpu"
    )
    return folder / "model"


def draw_all(ranges: dict[str, tuple[str, int]], *, scenes: int) -> list[Drawn]:
    """Scenes of each style, from their own range of seeds."""
    position = np.array([ALL.index(name) for name in CLASSES])
    found = []
    for style, (purpose, first) in ranges.items():
        for index in range(first, first + scenes):
            scene = draw_scene(scene_seed(purpose, index=index), size=SIZE, style=style)
            truth = position[scene.classes]
            found.append(Drawn(style, scene.image, np.where(truth < len(SEEN), truth, -1)))
    return found


def count(prediction: NDArray[Any], truth: NDArray[np.int64]) -> Counts:
    """(2, classes, 2) intersection and union, of whole masks and of boundaries."""
    sums = count_image(prediction.astype(np.int64), truth, count=len(SEEN), dilation=BOUNDARY).class_sums()
    inside, of_truth, of_prediction, _, shared, either = sums.T
    return np.array([[inside, of_truth + of_prediction - inside], [shared, either]]).transpose(0, 2, 1)


def mean_ious(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU (...,) in per cent of sums (..., classes, 2)."""
    return 100 * mean_of_known(ratio(counts[..., 0], counts[..., 1]))


def measure(
    segmenters: dict[str, Segmenter | DenseSegmenter], scenes: Sequence[Drawn], variants: dict[str, dict[str, Any]]
) -> Iterable[Row]:
    """Segment every scene in every way; the first variant is what the others are compared with."""
    styles = np.array([scene.style for scene in scenes])
    for name, segmenter in segmenters.items():
        base: Counts | None = None
        for variant, settings in variants.items():
            began = time.process_time()
            maps = [segmenter.segment(one.image, classes=SEEN, settings=settings).label_map.indices for one in scenes]
            seconds = (time.process_time() - began) / len(scenes)
            counts = np.array([count(found, one.truth) for found, one in zip(maps, scenes, strict=True)])
            base = counts if base is None else base
            for style in dict.fromkeys(styles.tolist()):
                chosen = styles == style
                miou, boundary_iou = mean_ious(counts[chosen].sum(axis=0))
                gains = gain_intervals(counts[chosen], base[chosen])
                yield Row(name, variant, style, float(miou), float(boundary_iou), *gains, seconds)


def gain_intervals(counts: Counts, base: Counts) -> list[tuple[float, float]]:
    """Lowest and highest difference of mIoU, and of boundary IoU, of counts (images, 2, classes, 2)."""
    sums = resampled_sums(np.stack([counts, base], axis=1), resamples=RESAMPLES, seed=0)
    scores = mean_ious(sums)  # (resamples, 2, 2)
    return [found or (0.0, 0.0) for found in percentiles(scores[:, 0] - scores[:, 1], level=0.95)]


def paint(
    segmenters: dict[str, Segmenter | DenseSegmenter], scenes: Sequence[Drawn], folder: Path, *, scale: int = 2
) -> None:
    """One picture a segmenter: a row a scene; the scene, each refinement, the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, segmenter in segmenters.items():
        sheet = Image.new("RGB", (SIZE * scale * (len(DEFAULTS) + 2), SIZE * scale * len(scenes)))
        for row, scene in enumerate(scenes):
            exact = np.where(scene.truth < 0, 255, scene.truth).astype(np.uint8)
            found = [segmenter.segment(scene.image, classes=SEEN, settings=each) for each in DEFAULTS.values()]
            maps = [*(one.label_map for one in found), LabelMap(exact, SEEN)]
            cells = [Image.fromarray(scene.image), *(overlay(scene.image, each, legend=False) for each in maps)]
            for column, cell in enumerate(cells):
                enlarged = cell.convert("RGB").resize((SIZE * scale, SIZE * scale), Image.Resampling.NEAREST)
                sheet.paste(enlarged, (column * SIZE * scale, row * SIZE * scale))
        sheet.save(folder / f"{name}.png")


def print_table(rows: Sequence[Row]) -> None:
    """As Markdown."""
    print("| segmenter | refinement | style | mIoU | gain, 95 % | boundary IoU | gain, 95 % | seconds an image |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        first, second = (f"{low:+.1f} to {high:+.1f}" for low, high in (row.miou_gain, row.boundary_iou_gain))
        print(
            f"| {row.segmenter} | {row.refinement} | {row.style} | {row.miou:.1f} | {first} | {row.boundary_iou:.1f} | "
            f"{second} | {row.seconds:.3f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a segmenter; by default one is trained, which takes minutes")
    parser.add_argument("--training-scenes", type=int, default=120, help="scenes that one is trained on")
    parser.add_argument("--scenes", type=int, default=60, help="scenes of each style that are measured")
    parser.add_argument("--tune", action="store_true", help="compare numbers of the refinements, on other scenes")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the first scenes of each style")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if min(chosen.scenes, chosen.training_scenes) < 1:
        parser.error("allowed is 1 scene and more")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        model = chosen.model or make_model(Path(temporary), scenes=chosen.training_scenes)
        segmenters = {"aligned": pw.load(model, device="cpu"), "dense CLIP": dense_segmenter()}
    proposer = load_mask_generator(str(miniatures.SAM), device="cpu")
    for segmenter in segmenters.values():
        segmenter.refiner = proposer
    scenes = draw_all(TUNING if chosen.tune else REPORTED, scenes=chosen.scenes)
    if chosen.pictures:
        shown = [scene for style in REPORTED for scene in [one for one in scenes if one.style == style][:4]]
        paint(segmenters, shown, chosen.pictures)
    rows = list(measure(segmenters, scenes, candidates() if chosen.tune else DEFAULTS))
    if chosen.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "versions": versions()}, indent=2))
        return
    print_table(rows)
    print(json.dumps(versions(), sort_keys=True))


if __name__ == "__main__":
    main()
