"""What an ONNX file and its 8-bit weights cost in mIoU. Needs a folder of `patchword demo`.

    python benchmarks/onnx_int8.py demo

The demo's segmenter is exported twice, in float32 and in int8. torch and both files segment the demo's unseen scenes of
both styles, with the classes of the training and with all of Toytown's, and are scored against the exact masks. Every
pixel's class is compared with torch's as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from patchword.evaluation.api import evaluate
from patchword.export.onnx.run import export_onnx
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.opening import load, open_segmenter
from patchword.toytown.demo_scenes import ALL, SEEN
from patchword.versions import versions

STYLES = ("day", "dusk")


def miou(segmenter: AnySegmenter, demo: Path, *, style: str, classes: tuple[str, ...]) -> float:
    """Of one segmenter on the unseen scenes of a style."""
    masks = demo / "truth" / style / ("seen" if classes == SEEN else "all")
    report = evaluate(demo / style, masks=masks, classes=classes, model=segmenter, quiet=True)
    return report.miou or 0.0


def share_changed(segmenter: AnySegmenter, other: AnySegmenter, demo: Path, *, style: str) -> float:
    """Share of pixels to which two segmenters give different classes."""
    maps = [
        [each.segment(path, classes=SEEN).label_map.indices for path in sorted((demo / style).iterdir())]
        for each in (segmenter, other)
    ]
    return float(np.mean([np.mean(first != second) for first, second in zip(*maps, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    demo: Path = parser.parse_args().demo
    by_torch = load(demo / "model", device="cpu", dtype="float32")
    ways: dict[str, tuple[AnySegmenter, float | None]] = {"torch": (by_torch, None)}
    with tempfile.TemporaryDirectory() as folder:
        for way, int8 in (("onnx float32", False), ("onnx int8", True)):
            made = export_onnx(demo / "model", out=Path(folder) / f"{int8}.onnx", settings={"int8": int8})
            ways[way] = open_segmenter(made.path), made.megabytes
        columns = [(style, classes) for style in STYLES for classes in (SEEN, ALL)]
        named = [f"mIoU, {style}, {len(classes)} classes" for style, classes in columns]
        print("| segmenter | " + " | ".join(named) + " | other class, day | dusk | processor s a scene | MB |")
        print("|---" * (len(named) + 5) + "|")
        for way, (segmenter, megabytes) in ways.items():
            scores = [f"{miou(segmenter, demo, style=style, classes=classes):.2%}" for style, classes in columns]
            changed = [f"{share_changed(segmenter, by_torch, demo, style=style):.2%}" for style in STYLES]
            scenes = sorted((demo / "day").iterdir())
            started = time.process_time()
            for path in scenes:
                segmenter.segment(path, classes=SEEN)
            seconds = f"{(time.process_time() - started) / len(scenes):.4f}"
            print(f"| {way} | " + " | ".join([*scores, *changed, seconds, f"{megabytes or 0:.2f}"]) + " |", flush=True)
    print(json.dumps(versions(), sort_keys=True))


if __name__ == "__main__":
    main()
