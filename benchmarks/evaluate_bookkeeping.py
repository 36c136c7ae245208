"""How fast an evaluation counts, without a model: megapixels a second.

    python benchmarks/evaluate_bookkeeping.py [--images N] [--repeats N]

Truth and prediction are made up: blobs of about a dozen classes an image, a tenth of the truth ignored, the contours of
the prediction moved and a fifth of its blobs wrong. Each line times the same images by one way of counting: CPU time of
one thread, the best of the repeats. "masked" is the usual way: select what is valid, widen to 64 bits, one bincount.
"histogram2d" is numpy's. "erosion" counts boundaries class by class with scipy's erosion. All are checked to agree.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.evaluation.confusion import boundary_reach
from patchword.evaluation.counts import count_image

Maps = tuple[NDArray[Any], NDArray[Any]]
SIZES = ((375, 500), (1024, 2048))
CLASSES = (21, 171)
DILATION = 0.02


def main() -> None:
    """Print one line a size, number of classes and way of counting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6, help="images a size")
    parser.add_argument("--repeats", type=int, default=5, help="the best counts")
    options = parser.parse_args()
    print(f"{'pixels':>11}  {'classes':>7}  {'counting':<24}{'MP/s':>8}{'ms an image':>13}")
    for height, width in SIZES:
        for count in CLASSES:
            images = [blobs(seed, height=height, width=width, count=count) for seed in range(options.images)]
            check(images[0], count)
            for name, way in ways(count).items():
                seconds = min(timed(way, images) for _ in range(1 if name.startswith("erosion") else options.repeats))
                pixels = height * width * len(images)
                each = 1000 * seconds / len(images)
                print(f"{height:>5}x{width:<5}  {count:>7}  {name:<24}{pixels / seconds / 1e6:>8.1f}{each:>13.2f}")


def ways(count: int) -> dict[str, Callable[[Maps], Any]]:
    """Every way of counting an image, by name."""
    return {
        "histogram2d": lambda maps: by_histogram(*maps, count=count),
        "masked": lambda maps: by_masks(*maps, count=count),
        "patchword": lambda maps: count_image(*maps, count=count, dilation=None),
        "erosion": lambda maps: boundaries_by_erosion(*maps, count=count),
        "patchword, boundaries too": lambda maps: count_image(*maps, count=count, dilation=DILATION),
    }


def blobs(seed: int, *, height: int, width: int, count: int) -> Maps:
    """A prediction and its truth, (height, width) int16 as masks are read, -1 for none."""
    generator = np.random.default_rng(seed)
    present = generator.choice(count, min(count, 12), replace=False)
    cells = generator.choice(present, (6, 8))
    wrong = np.where(generator.random(cells.shape) < 0.2, generator.choice(present, cells.shape), cells)
    y, x = np.mgrid[:height, :width]
    wave = 0.06 * np.sin(9 * x / width + seed), 0.06 * np.sin(7 * y / height + seed)
    moved = [np.clip((y / height + wave[0] + shift) * 6, 0, 5.99).astype(int) for shift in (0, 0.006)]
    along = np.clip((x / width + wave[1]) * 8, 0, 7.99).astype(int)
    truth, prediction = cells[moved[0], along], wrong[moved[1], along]
    truth[: height // 10] = -1
    return prediction.astype(np.int16), truth.astype(np.int16)


def by_histogram(prediction: NDArray[Any], truth: NDArray[Any], *, count: int) -> NDArray[Any]:
    """The confusion matrix as numpy's own function makes it."""
    valid = truth >= 0
    edges = np.arange(count + 1)
    return np.histogram2d(truth[valid], prediction[valid], bins=(edges, edges))[0].astype(np.int64)


def by_masks(prediction: NDArray[Any], truth: NDArray[Any], *, count: int) -> NDArray[Any]:
    """The confusion matrix as evaluation code usually makes it."""
    valid = truth >= 0
    pairs = truth[valid].astype(np.int64) * count + prediction[valid].astype(np.int64)
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def boundaries_by_erosion(prediction: NDArray[Any], truth: NDArray[Any], *, count: int) -> NDArray[Any]:
    """Intersection and union (count, 2) of boundaries, a mask at a time; ignored pixels side with all."""
    from scipy.ndimage import binary_erosion

    reach = boundary_reach(truth.shape, dilation=DILATION)
    valid = truth >= 0
    found = np.zeros((count, 2), dtype=np.int64)
    for index in np.union1d(np.unique(truth[valid]), np.unique(prediction[valid])):
        rings = []
        for labels in (truth, prediction):
            mask = (labels == index) | ~valid  # ignore makes no contour
            eroded = binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=reach)[1:-1, 1:-1]
            rings.append(mask & ~eroded & valid)
        found[index] = (rings[0] & rings[1]).sum(), (rings[0] | rings[1]).sum()
    return found


def check(maps: Maps, count: int) -> None:
    """Stop where two ways of counting differ."""
    ours = count_image(*maps, count=count, dilation=DILATION)
    same = (
        (ours.table[:, :-1] == by_masks(*maps, count=count)).all()
        and (ours.table[:, :-1] == by_histogram(*maps, count=count)).all()
        and (ours.boundary == boundaries_by_erosion(*maps, count=count)).all()
    )
    if not same:
        raise SystemExit("the ways of counting do not agree")


def timed(way: Callable[[Maps], Any], images: Sequence[Maps]) -> float:
    """Seconds for all images."""
    started = time.process_time()
    for maps in images:
        way(maps)
    seconds = time.process_time() - started
    return seconds if seconds > 0 else math.nan


if __name__ == "__main__":
    main()
