"""Throughput of `label` by one and by two workers of one thread each, as a ratio to twice that of one.

    OMP_NUM_THREADS=1 python benchmarks/executors.py --scratch DIR [--scenes N] [--repeats N]

Counted is from the first result to the last, so that starting processes and loading models, which do not grow with the
number of photographs, are not in it; the time until the first result is told beside it. Rounds of one and of two
workers alternate; told are medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import patchword
from patchword.labeling import api
from patchword.runs.pipeline import Chunk, Work, Written
from patchword.runs.processes import Processes
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene, scene_seed


def main() -> None:
    """Print a line a number of workers, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for scenes and results")
    parser.add_argument("--scenes", type=int, default=60, help="photographs")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    options = parser.parse_args()
    photos = options.scratch / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for index in range(options.scenes):
        Image.fromarray(draw_scene(scene_seed("test", index=index), size=192).image).save(photos / f"{index:03d}.png")
    rates: dict[int, list[float]] = {1: [], 2: []}
    firsts: dict[int, list[float]] = {1: [], 2: []}
    loads = []
    for _ in range(options.repeats):
        for workers in rates:
            loads.append(os.getloadavg()[0])
            first, rate = measure(options.scratch, workers)
            firsts[workers].append(first)
            rates[workers].append(rate)
    print(
        f"{options.scenes} scenes, {options.repeats} rounds, load of the machine {min(loads):.1f} to {max(loads):.1f}"
    )
    for workers, found in rates.items():
        first = statistics.median(firsts[workers])
        print(f"{workers} workers: {statistics.median(found):.2f} images a second; first result after {first:.1f} s")
    ratios = [two / (2 * one) for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"ratio to ideal {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def measure(scratch: Path, workers: int) -> tuple[float, float]:
    """Seconds until the first result, and results a second from then on."""
    moments: list[float] = []

    class Timed(Processes):
        def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
            def note(written: Written) -> None:
                moments.append(time.perf_counter())
                done(written)

            super().run(chunks, work=work, done=note)

    api.executor_of = lambda executor, *, device, loaded, load: Timed(workers, loaded, load)
    out = scratch / f"by {workers}"
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    patchword.label(
        scratch / "photos",
        classes="house, tree, car, sky, grass",
        out=out,
        image_text=miniatures.CLIP,
        mask_generator=miniatures.SAM,
        device="cpu",
        quiet=True,
    )
    settled = moments[workers:]  # each has begun
    return moments[0] - started, (len(settled) - 1) / (settled[-1] - settled[0])


if __name__ == "__main__":
    main()
