"""Memory of segmenting against image size and number of classes.

    python benchmarks/segment_memory.py [--megapixels N ...] [--classes N ...] [--ways NAME ...] [--json]

A stand-in with hardly any weights takes the place of the models: mean colours of patches, mixed into 512 channels.
Every measurement is a process of its own: it segments one small image, notes its largest resident memory so far, then
makes a 3:2 image of random colours, segments it, and notes it again. What is between the two is told in MiB: what an
image needs above the model, the image itself, the label map and the confidence included.

- whole: the image is seen once, at 518 pixels;
- features, logits: windows of 448 pixels, 224 apart, joined by features or by logits, shorter side 448;
- native features, native logits: the same windows on the image at its own size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS, PATCH = 512, 14
WAYS = ("whole", "features", "logits", "native features", "native logits")


@dataclass(frozen=True)
class Peak:
    """One image: what its segmentation needs above the model in MiB, and seconds of processor time."""

    way: str
    megapixels: float
    classes: int
    mib: float
    seconds: float


def settings_of(way: str, *, height: int) -> dict[str, Any]:
    """The settings of a way to see an image of that height, its shorter side."""
    if way == "whole":
        return {}
    side = height if way.startswith("native") else 448
    return {"shorter_side": side, "window": 448, "stride": 224, "join": way.split()[-1]}


def measure_here(way: str, *, megapixels: float, classes: int) -> Peak:
    """Measure in this process, which must be new."""
    import torch

    from patchword.segmentation.dense import DenseSegmenter

    torch.set_num_threads(1)
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    shape = (height, round(height * 1.5), 3)
    segmenter = DenseSegmenter(_stand_in())
    names = [f"class {number}" for number in range(classes)]
    small = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    segmenter.segment(small, classes=names)
    before = peak_mib()
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    started = time.process_time()
    result = segmenter.segment(image, classes=names, settings=settings_of(way, height=height))
    seconds = time.process_time() - started
    if result.label_map.indices.shape != shape[:2] or result.label_map.indices.dtype != np.uint8:
        raise SystemExit("the label map has another size or type")
    return Peak(way, megapixels, classes, round(peak_mib() - before, 1), round(seconds, 1))


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def measure(way: str, *, megapixels: float, classes: int) -> Peak:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--one", way, str(megapixels), str(classes)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Peak(**json.loads(answer))


def _stand_in() -> Any:
    import torch
    from torch.nn import functional

    from patchword.models.protocols import ModelRecord

    class StandIn:
        device = torch.device("cpu")
        record = ModelRecord("none", "none", None, "", PATCH, CHANNELS, (0.0,) * 3, (1.0,) * 3, 518, "none")

        def __init__(self) -> None:
            self._mix = torch.randn(CHANNELS, 3, 1, 1, generator=torch.Generator().manual_seed(0))

        def encode_text(self, prompts: Sequence[str]) -> Tensor:
            random = torch.Generator().manual_seed(len(prompts))
            return functional.normalize(torch.randn(len(prompts), CHANNELS, generator=random), dim=1)

        def encode_patches(self, images: Tensor) -> Tensor:
            mixed = functional.conv2d(functional.avg_pool2d(images, PATCH) - 0.5, self._mix)
            return functional.normalize(mixed, dim=1)

    return StandIn()


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 2, 24], help="sizes of images")
    parser.add_argument("--classes", type=int, nargs="+", default=[21, 171], help="numbers of classes")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="how images are seen")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "MEGAPIXELS", "CLASSES"), help="measure in this process")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if chosen.one:
        way, megapixels, classes = chosen.one
        print(json.dumps(asdict(measure_here(way, megapixels=float(megapixels), classes=int(classes)))))
        return
    found = [
        measure(way, megapixels=megapixels, classes=classes)
        for way in chosen.ways
        for megapixels in chosen.megapixels
        for classes in chosen.classes
    ]
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, Python {platform.python_version()}"
    )
    if chosen.json:
        print(json.dumps({"machine": machine, "peaks": [asdict(one) for one in found]}, indent=2))
        return
    print(machine)
    print("| seen | megapixels | classes | MiB above the model | seconds |\n|---|---|---|---|---|")
    for one in found:
        print(f"| {one.way} | {one.megapixels:g} | {one.classes} | {one.mib:.0f} | {one.seconds} |")


if __name__ == "__main__":
    main()
