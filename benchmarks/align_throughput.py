"""What training costs beside the encoder: without a cache against the bare encoder, from the cache against without.

    python benchmarks/align_throughput.py --scratch FOLDER [--encoders NAME ...] [--images N] [--rounds N] [--json]

Encoders are full-size DINOv2 with random weights (see make_random_checkpoints.py): how long they take is real. The
photographs are drawn noise in JPEG of 640 x 480, their label maps blocks of random classes with a part left unlabelled.
Three things are measured on the same images, one after the other, `rounds` times over, and medians are taken:

- bare: the encoder on images that are decoded and resized already;
- online: training without a cache: decoding, augmenting, encoding, and the steps of the module beside it;
- cached: the same steps from the feature cache, augmentation left out; filling the cache is not counted.

A step has fewer images here than in a real training, and so the samples of patches are made smaller in proportion.
Ratios are given by the clock and by processor time; on a machine with other work the second says more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from make_random_checkpoints import make_checkpoint
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

CLASSES, TEXT_DIM, REAL_BATCH = 64, 512, 32
COCO_IMAGES, EPOCHS = 118_287, 5


@dataclass(frozen=True)
class Cost:
    """Seconds an image by the clock and of processor time, medians."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Result:
    """One encoder.

    Attributes:
        encoder: name of the checkpoint.
        parameters: that the module learns.
        bare, online, cached: see above.
        feature_megabytes: that the cache takes for an image.
    """

    encoder: str
    parameters: int
    bare: Cost
    online: Cost
    cached: Cost
    feature_megabytes: float


class Known:
    """Stands for the cache where only the size of the features is asked."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        self._shape = (dim, *grid)

    def read(self, keys: Sequence[str], /) -> Tensor:
        import torch

        return torch.zeros((len(keys), *self._shape))


def draw_data(folder: Path, *, images: int, labelled: float) -> list[tuple[Path, Path]]:
    """Photographs and label maps on disk."""
    from patchword.data.masks import LabelMap

    generator = np.random.default_rng(0)
    names = [f"class {number}" for number in range(CLASSES)]
    pairs = []
    for number in range(images):
        small = generator.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        photograph = np.asarray(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC))
        blocks = generator.integers(0, CLASSES, (6, 8))
        blocks[generator.random((6, 8)) >= labelled] = 255
        image, label_map = folder / f"{number}.jpg", folder / f"{number}.png"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph).save(image, quality=90)
        LabelMap(blocks.repeat(80, axis=0).repeat(80, axis=1).astype(np.uint8), names).save(label_map)
        pairs.append((image, label_map))
    return pairs


def measure(
    encoder_folder: Path, *, scratch: Path, images: int, batch: int, rounds: int, labelled: float, device: str
) -> Result:
    """Measure one encoder."""
    import torch
    from torch.nn import functional

    from patchword.alignment.data import HashedItem, patch_labels
    from patchword.alignment.features import FeatureCache
    from patchword.alignment.online import AugmentedFeatures
    from patchword.alignment.photographs import Photograph, content_hash, read_photograph
    from patchword.alignment.state import start_state
    from patchword.alignment.trainer import TrainingSet, train
    from patchword.config.align import AlignSettings
    from patchword.data.masks import LabelMap
    from patchword.models.loading import load_patch_encoder

    encoder = load_patch_encoder(str(encoder_folder), device=device)
    defaults = AlignSettings()
    settings = AlignSettings(
        batch_size=batch,
        epochs=1,
        feature_batch=min(batch, defaults.feature_batch),
        patch_sample=max(2, defaults.patch_sample * batch // REAL_BATCH),
        text_sample=max(1, defaults.text_sample * batch // REAL_BATCH),
    )
    pairs = draw_data(scratch / "data", images=images, labelled=labelled)
    items = [HashedItem(image, mask, content_hash(image), content_hash(mask)) for image, mask in pairs]
    names = tuple(f"class {number}" for number in range(CLASSES))
    online = AugmentedFeatures(items, names=names, encoder=encoder, settings=settings)
    cache = FeatureCache(scratch / "cache", encoder=encoder, settings=settings)
    cache.fill((item.key, item.image) for item in items)
    labels = torch.stack(
        [
            patch_labels(
                torch.from_numpy(LabelMap.load(item.label_map, names=names).indices.astype("int64")),
                ignore=255,
                classes=CLASSES,
                grid=cache.grid,
                majority=settings.majority,
            )
            for item in items
        ]
    )
    text = functional.normalize(torch.randn(CLASSES, TEXT_DIM, generator=torch.Generator().manual_seed(0)), dim=1)
    keys = tuple(item.key for item in items)
    known = Known(encoder.record.dim, cache.grid)
    decoded = [read_photograph(item.key, item.image, side=cache.side) for item in items]
    pixels = [photograph.pixels for photograph in decoded if isinstance(photograph, Photograph)]

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, images, settings.feature_batch):
                encoder(torch.cat(pixels[start : start + settings.feature_batch]))

    ways: dict[str, Callable[[], object]] = {
        "bare": bare,
        "online": lambda: train(
            TrainingSet(known, keys, labels, text, online), settings=settings, device=encoder.device
        ),
        "cached": lambda: train(TrainingSet(cache, keys, labels, text), settings=settings, device=encoder.device),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter(), time.process_time()
            way()
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    costs = {
        name: Cost(*(statistics.median(column) / images for column in zip(*runs, strict=True)))
        for name, runs in times.items()
    }
    state = start_state(dim=encoder.record.dim, text_dim=TEXT_DIM, settings=settings, device=torch.device("cpu"))
    megabytes = cache.read(keys[:1]).nbytes / 1e6
    return Result(encoder_folder.name, state.module.parameter_count, **costs, feature_megabytes=megabytes)


def machine() -> dict[str, str | int | None]:
    """What the numbers were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def describe(result: Result) -> str:
    """The ratios, and the paper's setting in hours with the arithmetic."""
    lines = [
        f"{result.encoder}, module of {result.parameters / 1e6:.1f} M parameters",
        "| | bare, s an image | online | cached | bare / online | online / cached |",
        "|---|---|---|---|---|---|",
    ]
    hours = []
    for kind in ("clock", "processor"):
        bare, online, cached = (getattr(cost, kind) for cost in (result.bare, result.online, result.cached))
        ratios = f"{bare / online:.2f} | {online / cached:.1f}"
        lines.append(f"| {kind} | {bare:.3f} | {online:.3f} | {cached:.3f} | {ratios} |")
        hours += _hours(kind, bare=bare, online=online, cached=cached)
    room = (
        f"{COCO_IMAGES:,} x {result.feature_megabytes:.2f} MB = {COCO_IMAGES * result.feature_megabytes / 1000:,.0f} GB"
    )
    return "\n".join([*lines, f"{COCO_IMAGES:,} images, {EPOCHS} epochs; the cache takes {room}", *hours])


def _hours(kind: str, *, bare: float, online: float, cached: float) -> list[str]:
    seen = COCO_IMAGES * EPOCHS
    filling, steps = COCO_IMAGES * bare / 3600, seen * cached / 3600
    return [
        f"  {kind}, without cache: {COCO_IMAGES:,} x {EPOCHS} x {online:.3f} s = {seen * online / 3600:,.0f} h",
        f"  {kind}, from the cache: {COCO_IMAGES:,} x {bare:.3f} s to fill it + {COCO_IMAGES:,} x {EPOCHS} x "
        f"{cached:.3f} s = {filling:,.0f} h + {steps:,.0f} h = {filling + steps:,.0f} h",
    ]


def main() -> None:
    """Measure and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for models and data")
    parser.add_argument("--encoders", nargs="+", default=["dinov2-small", "dinov2-base"])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--labelled", type=float, default=0.7, help="share of the blocks that have a label")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto; on a GPU only the clock means something")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    named = {name: getattr(chosen, name) for name in ("images", "batch", "rounds", "labelled", "device")}
    results = []
    for name in chosen.encoders:
        folder = chosen.scratch / "models" / name
        if not folder.exists():
            make_checkpoint(name, folder, seed=0)
        results.append(measure(folder, scratch=chosen.scratch / name, **named))
    if chosen.json:
        record = {"machine": machine(), "settings": named, "results": [asdict(result) for result in results]}
        print(json.dumps(record, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(", ".join(f"{name} {value}" for name, value in named.items()))
    for result in results:
        print(f"\n{describe(result)}")


if __name__ == "__main__":
    main()
