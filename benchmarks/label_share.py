"""Where the time of labelling goes: share of model forward passes, and decodes and seconds of three ways to ask.

    python benchmarks/label_share.py --photos FOLDER [--image-text NAME] [--mask-generator NAME] [--limit N]
        [--sample N] [--device DEVICE] [--set name=value ...] [--json]

First the photographs are labelled into a folder that is thrown away; the clock that counts forward passes runs while
any torch module is in its forward pass, the clock beside it from the first photograph to the finished data set. Then
masks of everything are asked for on each photograph, once its embedding is there: at a grid of 32 x 32 points the naive
way (one prompt a call, every mask brought to the photograph's pixels before it is looked at), at the same grid our way,
and at seeds from features. A grid costs the same for every point, so that --sample measures some of them and scales
up. Seconds are medians over photographs; ratios are of one run. By default the models are the miniatures of
Toytown; for speed of full-size models on photographs, pass folders of make_random_checkpoints.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_photographs import processor
from proposal_recall import Counting
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from patchword.cli.terminal import parse_settings
from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.images import read_image, to_tensor
from patchword.data.run_lengths import run_lengths
from patchword.data.vocabulary import Vocabulary
from patchword.labeling import mask_generator
from patchword.labeling.image import LabelParts
from patchword.labeling.mask_generator import AutomaticMaskGenerator, ImageCrop
from patchword.labeling.point_sampling import grid_points
from patchword.labeling.run import label_folder
from patchword.models.loading import load_image_text, load_mask_generator
from patchword.models.protocols import ImageEmbedding, MaskGenerator
from patchword.models.sam import stability_score
from patchword.toytown import miniatures
from patchword.versions import versions

SIDE = 32


@dataclass(frozen=True)
class Share:
    """Labelling a folder: seconds in all and in forward passes."""

    photographs: int
    seconds: float
    seconds_in_forward_passes: float
    share: float


@dataclass(frozen=True)
class Way:
    """One way to ask for masks of everything: prompts and median seconds a photograph, and how many times faster than
    the naive way."""

    name: str
    decodes: float
    seconds: float
    times_faster: float


class ForwardClock:
    """Counts the seconds that pass while any torch module is in its forward pass."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._depth = 0
        self._started = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the context is open."""
        handles = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: Any, arguments: Any) -> None:
        if self._depth == 0:
            wait_for(self._device)
            self._started = time.perf_counter()
        self._depth += 1

    def _leave(self, module: Any, arguments: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            wait_for(self._device)
            self.seconds += time.perf_counter() - self._started


def wait_for(device: torch.device) -> None:
    """Let an accelerator finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_share(images: list[Path], *, root: Path, parts: LabelParts, settings: LabelSettings) -> Share:
    """Label photographs into a folder that is thrown away."""
    clock = ForwardClock(parts.image_text.device)
    with tempfile.TemporaryDirectory() as out, clock.running():
        started = time.perf_counter()
        label_folder(images, root=root, out=Path(out) / "labels", parts=parts, settings=settings, quiet=True)
        seconds = time.perf_counter() - started
    return Share(len(images), seconds, clock.seconds, clock.seconds / seconds)


def ask_naively(proposer: MaskGenerator, embedding: ImageEmbedding, points: Tensor, settings: LabelSettings) -> int:
    """One prompt a call, every mask at full size before it is filtered and encoded; how many stay."""
    kept = 0
    for point in points:
        (answer,) = proposer.masks_at([embedding], [point[None, None]])
        for logits, sure in zip(answer.logits[0], answer.predicted_iou[0].tolist(), strict=True):
            full = interpolate(logits[None, None], embedding.image_size, mode="bilinear")[0, 0]
            stable = float(stability_score(full, offset=settings.stability_score_offset))
            if sure >= settings.proposal_threshold and stable >= settings.stability_score_thresh:
                run_lengths((full > 0).cpu().numpy())
                kept += 1
    return kept


@torch.no_grad()
def measure_ways(images: list[Path], *, proposer: Counting, settings: LabelSettings, sample: int) -> list[Way]:
    """Every way on every photograph."""
    decodes: dict[str, list[int]] = {}
    seconds: dict[str, list[float]] = {}
    for path in images:
        image = to_tensor(read_image(path))
        (embedding,) = proposer.embed([image])
        grid = grid_points(embedding.image_size, side=SIDE)
        some = grid[torch.linspace(0, len(grid) - 1, min(sample, len(grid))).long()]

        def naive(embedding: ImageEmbedding = embedding, some: Tensor = some) -> None:
            ask_naively(proposer, embedding, some, settings)

        def ours(embedding: ImageEmbedding = embedding, some: Tensor = some) -> None:
            with patch.object(mask_generator, "sample_points", lambda *_, **__: some[:, None]):
                AutomaticMaskGenerator(proposer, settings).masks_on([[ImageCrop.whole(embedding)]])

        def seeds(embedding: ImageEmbedding = embedding, image: Tensor = image) -> None:
            generator = AutomaticMaskGenerator(proposer, settings)
            generator.masks_on(generator.crops_of([image], [embedding]))

        ways: dict[str, Callable[[], None]] = {
            f"grid {SIDE} x {SIDE}, naive": naive,
            f"grid {SIDE} x {SIDE}, ours": ours,
            "seeds from features": seeds,
        }
        for name, ask in ways.items():
            proposer.decodes = 0
            started = time.perf_counter()
            ask()
            wait_for(proposer.device)
            scale = len(grid) / len(some) if ask is not seeds else 1.0
            seconds.setdefault(name, []).append((time.perf_counter() - started) * scale)
            decodes.setdefault(name, []).append(round(proposer.decodes * scale))
    slowest = statistics.median(next(iter(seconds.values())))
    return [
        Way(name, statistics.mean(decodes[name]), statistics.median(times), slowest / statistics.median(times))
        for name, times in seconds.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--classes", default="person, car, dog, cat, bird", help="class list file or names")
    parser.add_argument("--image-text", default=str(miniatures.CLIP), help="hub name or folder")
    parser.add_argument("--mask-generator", default=str(miniatures.SAM), help="hub name or folder")
    parser.add_argument("--limit", type=int, default=4, help="photographs to take")
    parser.add_argument("--sample", type=int, default=SIDE * SIDE, help="points of the grids that are measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], help="a setting of the labelling, name=value")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    settings = LabelSettings(**{"point_sampling": "embedding", **parse_settings(chosen.set)})
    images = find_images(chosen.photos)[: chosen.limit]
    parts = LabelParts.of(
        load_image_text(chosen.image_text, device=chosen.device, dense=settings.dense),
        mask_generator=load_mask_generator(chosen.mask_generator, device=chosen.device),
        vocabulary=Vocabulary.of(chosen.classes),
    )
    share = measure_share(images, root=chosen.photos, parts=parts, settings=settings)
    ways = measure_ways(images, proposer=Counting(parts.mask_generator), settings=settings, sample=chosen.sample)
    record = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(parts.mask_generator.device),
            "python": platform.python_version(),
        },
        "versions": versions(),
        "models": {"image_text": chosen.image_text, "mask_generator": chosen.mask_generator},
        "settings": settings.model_dump(mode="json"),
        "share": asdict(share),
        "points_of_the_grids_measured": chosen.sample,
        "ways": [asdict(way) for way in ways],
    }
    if chosen.json:
        print(json.dumps(record, indent=2))
        return
    print(f"{record['machine']}\n{record['versions']}")
    print(
        f"label: {share.photographs} photographs, {share.seconds / share.photographs:.2f} s each, "
        f"{share.share:.1%} of the time in forward passes"
    )
    print(f"| {'masks of everything':24}| decodes | s/photograph | times faster |\n|---|---|---|---|")
    for way in ways:
        print(f"| {way.name:24}| {way.decodes:7.0f} | {way.seconds:12.3f} | {way.times_faster:12.1f} |")


if __name__ == "__main__":
    main()
