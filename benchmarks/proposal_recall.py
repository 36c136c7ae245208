"""How many of Toytown's objects and regions masks of everything find, and with how many decodes: grid or seeds.

    python benchmarks/proposal_recall.py [--scenes N] [--first N] [--ways NAME ...] [--set name=value ...] [--json]

The miniature SAM draws the masks of unseen scenes in both styles. Prompt points come from a 32 x 32 grid, from a grid
of about as many points as the budget of the seeds, from clusters of the miniature DINOv2's patch features (it sees the
scene at its own size, twice its input), and from clusters of the SAM's own image embedding. Recall is the share of
exact masks of at least 40 pixels that some proposal, after all filters, meets at an IoU of 0.5 and 0.75. Differences
from the first way are of the same scenes; their 95 % intervals are of 10,000 bootstrap samples of scenes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.cli.terminal import parse_settings
from patchword.config.label import LabelSettings
from patchword.labeling import mask_generator
from patchword.labeling.mask_generator import AutomaticMaskGenerator, ImageCrop
from patchword.labeling.point_sampling import sample_points
from patchword.models.loading import load_mask_generator, load_patch_encoder
from patchword.models.protocols import ImageEmbedding, MaskGenerator, MaskProposals, PatchEncoder
from patchword.toytown import miniatures
from patchword.toytown.world import Scene, draw_scene, scene_seed

STYLES = {"day": "evaluate-seen", "dusk": "evaluate-style"}
LEAST_AREA = 40
BOOTSTRAPS = 10_000


@dataclass(frozen=True)
class Row:
    """One way to ask, in one style: means over scenes, but the times are medians.

    Attributes:
        style: "day" or "dusk".
        way: where the points come from.
        decodes, most: prompts a scene, on average and at most.
        masks: proposals a scene.
        recall_50, recall_75: over all objects and regions.
        difference_50, difference_75: from the first way, with the ends of the 95 % interval.
        seconds: a scene, image encoders not counted.
        milliseconds: of these, a scene, spent on where to ask.
    """

    style: str
    way: str
    decodes: float
    most: int
    masks: float
    recall_50: float
    recall_75: float
    difference_50: tuple[float, float, float]
    difference_75: tuple[float, float, float]
    seconds: float
    milliseconds: float


@dataclass(frozen=True)
class Found:
    """What one way found in one scene: the best IoU of each exact mask, and what it cost."""

    ious: NDArray[np.float64]
    decodes: int
    masks: int
    seconds: float
    choosing: float


class Counting:
    """A mask generator that counts its decodes."""

    def __init__(self, proposer: MaskGenerator) -> None:
        self.proposer = proposer
        self.record, self.device = proposer.record, proposer.device
        self.decodes = 0

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        """Embed, uncounted."""
        return self.proposer.embed(images)

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        """Decode and count."""
        self.decodes += sum(len(prompts) for prompts in points)
        return self.proposer.masks_at(embeddings, points)


def best_ious(scene: Scene, masks: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """For every exact mask the highest IoU of any proposal."""
    areas = np.bincount(scene.instances.ravel(), minlength=256)
    found = []
    for number in np.flatnonzero(areas >= LEAST_AREA):
        if number == 0:
            continue
        truth = scene.instances == number
        ious = [float((truth & mask).sum() / (truth | mask).sum()) for mask in masks]
        found.append(max(ious, default=0.0))
    return np.array(found)


@torch.no_grad()
def look(scene: Scene, *, sam: MaskGenerator, dino: PatchEncoder, settings: LabelSettings) -> Found:
    """Ask one way on one scene."""
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
    (embedding,) = sam.embed([image])
    counting, choosing = Counting(sam), 0.0
    generator = AutomaticMaskGenerator(counting, settings, dino)
    crop = ImageCrop.whole(embedding, features=generator.features_of(image, embedding))

    def timed(*arguments: Any, **options: Any) -> Any:
        nonlocal choosing
        began = time.perf_counter()
        result = sample_points(*arguments, **options)
        choosing += time.perf_counter() - began
        return result

    started = time.perf_counter()
    with patch.object(mask_generator, "sample_points", timed):
        (masks,) = generator.masks_on([[crop]])
    seconds = time.perf_counter() - started
    ious = best_ious(scene, [mask.runs.whole() for mask in masks])
    return Found(ious, counting.decodes, len(masks), seconds, choosing)


def ways_of(settings: LabelSettings) -> dict[str, LabelSettings]:
    """The settings of every way to ask."""
    few = math.isqrt(settings.sampling_budget)
    changes: dict[str, dict[str, Any]] = {
        "grid 32 x 32": {"point_sampling": "grid", "points_per_side": 32},
        f"grid {few} x {few}": {"point_sampling": "grid", "points_per_side": few},
        "features of DINOv2": {"point_sampling": "encoder", "sampling_scale": 2.0},
        "embedding of SAM": {"point_sampling": "embedding"},
    }
    return {name: settings.model_copy(update=change) for name, change in changes.items()}


def difference(found: Sequence[Found], others: Sequence[Found], *, least: float) -> tuple[float, float, float]:
    """How much higher a recall is than another on the same scenes, with the ends of its 95 % interval."""
    counts = np.array([len(one.ious) for one in found])
    gains = np.array(
        [
            int((one.ious >= least).sum()) - int((other.ious >= least).sum())
            for one, other in zip(found, others, strict=True)
        ]
    )
    samples = np.random.default_rng(0).integers(0, len(counts), (BOOTSTRAPS, len(counts)))
    values = gains[samples].sum(1) / counts[samples].sum(1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(gains.sum() / counts.sum()), float(low), float(high)


def measure(*, scenes: int, first: int, ways: dict[str, LabelSettings]) -> list[Row]:
    """Every way to ask on the same scenes."""
    sam = load_mask_generator(str(miniatures.SAM), device="cpu")
    dino = load_patch_encoder(str(miniatures.DINO), device="cpu")
    rows = []
    for style, purpose in STYLES.items():
        drawn = [draw_scene(scene_seed(purpose, index=first + index), style=style) for index in range(scenes)]
        results = {
            name: [look(scene, sam=sam, dino=dino, settings=settings) for scene in drawn]
            for name, settings in ways.items()
        }
        base = next(iter(results.values()))
        for name, found in results.items():
            ious = np.concatenate([one.ious for one in found])
            rows.append(
                Row(
                    style,
                    name,
                    decodes=statistics.mean(one.decodes for one in found),
                    most=max(one.decodes for one in found),
                    masks=statistics.mean(one.masks for one in found),
                    recall_50=float((ious >= 0.5).mean()),
                    recall_75=float((ious >= 0.75).mean()),
                    difference_50=difference(found, base, least=0.5),
                    difference_75=difference(found, base, least=0.75),
                    seconds=statistics.median(one.seconds for one in found),
                    milliseconds=1000 * statistics.median(one.choosing for one in found),
                )
            )
    return rows


def machine() -> str:
    """Where the figures come from."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--first", type=int, default=5_000_000, help="index of the first scene; the demo's are below")
    parser.add_argument("--ways", nargs="+", default=[""], help="only ways whose names contain one of these")
    parser.add_argument("--set", action="append", default=[], help="a setting of the labelling, name=value")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    ways = {
        name: settings
        for name, settings in ways_of(LabelSettings(**parse_settings(chosen.set))).items()
        if any(part in name for part in chosen.ways)
    }
    rows = measure(scenes=chosen.scenes, first=chosen.first, ways=ways)
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{chosen.scenes} scenes a style from {chosen.first}; {machine()}")
    print(
        f"{'style':6}{'points':20}{'decodes':>8}{'most':>6}{'masks':>7}{'R@0.5':>7}{'R@0.75':>8}"
        f"{'difference at 0.5':>25}{'at 0.75':>25}{'s/scene':>9}{'ms where':>9}"
    )
    for row in rows:
        print(
            f"{row.style:6}{row.way:20}{row.decodes:8.1f}{row.most:6d}{row.masks:7.1f}{row.recall_50:7.3f}"
            f"{row.recall_75:8.3f}{interval(row.difference_50):>25}{interval(row.difference_75):>25}"
            f"{row.seconds:9.3f}{row.milliseconds:9.1f}"
        )


def interval(values: tuple[float, float, float]) -> str:
    """A difference and its interval, as text."""
    return f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"


if __name__ == "__main__":
    main()
