"""How far labels and masks of models in half types agree with those in float32, on Toytown, on the CPU.

    python benchmarks/precision.py [--scenes N] [--dtypes NAME ...] [--json]

Unseen scenes by day are labelled with the miniatures in float32 and in each other type, and segmented, without any
training, by miniature CLIP's own patches in each. Agreement is the share of pixels whose value, a class or ignore, is
the same; mIoU is against the drawn truth, so that a loss shows as one and not only as a difference.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import patchword
from patchword.data.masks import LabelMap
from patchword.models.loading import load_image_text
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import SIZE, draw


@dataclass(frozen=True)
class Agreement:
    """What one way gives in one type: pixels as in float32, and mIoU over the classes that are drawn."""

    way: str
    dtype: str
    agreement: float
    miou: float


def miou(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Mean IoU of the classes that the truth has, over pixels of a class."""
    predicted, drawn = (np.concatenate([one.ravel() for one in maps]) for maps in (found, truth))
    predicted, drawn = predicted[drawn != 255], drawn[drawn != 255]
    scores = [
        ((predicted == index) & (drawn == index)).sum() / ((predicted == index) | (drawn == index)).sum()
        for index in np.unique(drawn)
    ]
    return float(np.mean(scores))


def measure(folder: Path, *, scenes: int, dtypes: list[str]) -> list[Agreement]:
    """Draw, and do everything in each type."""
    place = draw(folder, "scenes", purpose="evaluate-seen", count=scenes, first=0, style="day")
    photos = sorted(place.photos.iterdir())
    truth = [LabelMap.load(place.seen / f"{path.name}.png", names=SEEN).indices for path in photos]
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for dtype in ("float32", *dtypes):
        out = folder / dtype
        labels = patchword.label(
            place.photos,
            classes=SEEN,
            out=out,
            image_text=miniatures.CLIP,
            mask_generator=miniatures.SAM,
            device="cpu",
            dtype=dtype,
            quiet=True,
        )
        found["label", dtype] = [labels[number].labels().indices for number in range(len(photos))]
        clip = load_image_text(str(miniatures.CLIP), device="cpu", dtype=dtype)
        segmenter = patchword.DenseSegmenter(clip, image_size=SIZE)
        found["segment", dtype] = [segmenter.segment(path, classes=SEEN).label_map.indices for path in photos]
    return [
        Agreement(
            way,
            dtype,
            float(np.mean([(one == other).mean() for one, other in zip(maps, found[way, "float32"], strict=True)])),
            miou(maps, truth),
        )
        for (way, dtype), maps in found.items()
    ]


def main() -> None:
    """Measure and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(Path(temporary), scenes=chosen.scenes, dtypes=chosen.dtypes)
    if chosen.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print("| way | type | pixels as in float32 | mIoU |\n|---|---|---|---|")
    for result in results:
        print(f"| {result.way} | {result.dtype} | {result.agreement:.4f} | {result.miou:.3f} |")


if __name__ == "__main__":
    main()
