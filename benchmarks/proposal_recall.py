"""How many of Toytown's objects and regions masks of everything find, and with how many decodes: grid or seeds.

    python benchmarks/proposal_recall.py [--scenes N] [--first N] [--set name=value ...] [--json]

The miniature SAM draws the masks of unseen scenes in both styles. Prompt points come from a 32 x 32 grid, from clusters
of the miniature DINOv2's patch features, and from clusters of the SAM's own image embedding. Recall is the share of
exact masks of at least 40 pixels that some proposal meets at an IoU of 0.5 and 0.75.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from patchword.label.propose import View, propose_masks, seed_points
from patchword.label.settings import LabelSettings
from patchword.models import load_mask_proposer, load_patch_encoder
from patchword.models.batching import Batches
from patchword.models.protocols import ImageEmbedding
from patchword.terminal import parse_settings
from patchword.toytown import miniatures
from patchword.toytown.seeds import scene_seed
from patchword.toytown.world import Scene, draw_scene

STYLES = {"day": "evaluate-seen", "dusk": "evaluate-style"}
LEAST_AREA = 40


@dataclass(frozen=True)
class Row:
    """One way to ask, in one style: means over scenes but `seconds`, a median.

    Attributes:
        style: "day" or "dusk".
        seeds: where the points come from.
        decodes: prompts a scene.
        masks: proposals a scene.
        recall_50, recall_75: over all objects and regions.
        seconds: a scene, image encoders not counted.
    """

    style: str
    seeds: str
    decodes: float
    masks: float
    recall_50: float
    recall_75: float
    seconds: float


def best_ious(scene: Scene, masks: list[np.ndarray]) -> list[float]:
    """For every exact mask the highest IoU of any proposal."""
    areas = np.bincount(scene.instances.ravel(), minlength=256)
    found = []
    for number in np.flatnonzero(areas >= LEAST_AREA):
        if number == 0:
            continue
        truth = scene.instances == number
        ious = [float((truth & mask).sum() / (truth | mask).sum()) for mask in masks]
        found.append(max(ious, default=0.0))
    return found


@torch.no_grad()
def measure(*, scenes: int, first: int, settings: LabelSettings) -> list[Row]:
    """Every way to ask on the same scenes."""
    sam = load_mask_proposer(str(miniatures.SAM), device="cpu")
    dino = load_patch_encoder(str(miniatures.DINO), device="cpu")
    ways: dict[str, Callable[[Tensor, ImageEmbedding], Tensor | None]] = {
        "grid 32 x 32": lambda image, embedding: None,
        "features of DINOv2": lambda image, embedding: dino(image)[0],
        "embedding of SAM": lambda image, embedding: embedding.features[0][0],
    }
    rows = []
    for style, purpose in STYLES.items():
        drawn = [draw_scene(scene_seed(purpose, index=first + index), style=style) for index in range(scenes)]
        for name, features_of in ways.items():
            ious: list[float] = []
            decodes, masks, seconds = [], [], []
            for scene in drawn:
                image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
                (embedding,) = sam.embed([image])
                features = features_of(image, embedding)
                started = time.perf_counter()
                points = seed_points(features, size=embedding.image_size, settings=settings)
                views = [[View.whole(embedding, points=points)]]
                (proposals,) = propose_masks(sam, views=views, batches=Batches(), settings=settings)
                seconds.append(time.perf_counter() - started)
                decodes.append(len(points))
                masks.append(len(proposals))
                ious += best_ious(scene, [proposal.mask() for proposal in proposals])
            values = np.array(ious)
            rows.append(
                Row(
                    style,
                    name,
                    statistics.mean(decodes),
                    statistics.mean(masks),
                    float((values >= 0.5).mean()),
                    float((values >= 0.75).mean()),
                    statistics.median(seconds),
                )
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--first", type=int, default=5_000_000, help="index of the first scene; the demo's are below")
    parser.add_argument("--set", action="append", default=[], help="a setting of the labelling, name=value")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    settings = LabelSettings(**parse_settings(chosen.set))
    rows = measure(scenes=chosen.scenes, first=chosen.first, settings=settings)
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{'style':6}{'points':22}{'decodes':>8}{'masks':>7}{'R@0.5':>7}{'R@0.75':>8}{'s/scene':>9}")
    for row in rows:
        print(
            f"{row.style:6}{row.seeds:22}{row.decodes:8.0f}{row.masks:7.1f}{row.recall_50:7.3f}{row.recall_75:8.3f}"
            f"{row.seconds:9.3f}"
        )


if __name__ == "__main__":
    main()
