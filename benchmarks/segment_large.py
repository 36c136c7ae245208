"""Peak memory and time of segmenting large images tile by tile, each in a process of its own.

    python benchmarks/segment_large.py [--sides N ...] [--format geotiff|tiff|png] [--tile N] [--image-size N] [--json]

Square images of coloured blocks are drawn and segmented with the dense features of the miniature image-text model that
ships (or of --image-text). The first row is an image of one tile, so what the others have above it is what an image's
size costs. Peak memory is the process's largest resident memory as the system tells it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchword.toytown.miniatures import CLIP

ROWS = 512  # drawn at once
CLASSES = "red, green, blue, yellow, grey"


@dataclass(frozen=True)
class Figure:
    """One image: its side in pixels, its tiles, peak MiB of resident memory, seconds, and MiB of the mask's file."""

    side: int
    tiles: int
    peak_mib: float
    seconds: float
    mask_mib: float


def draw(path: Path, *, side: int, kind: str) -> None:
    """Draw an image of coloured blocks of 64 pixels, `side` pixels a side, a few rows at a time."""
    colours = np.random.default_rng(0).integers(0, 256, (-(-side // 64), -(-side // 64), 3), dtype=np.uint8)
    if kind == "png":
        from PIL import Image

        Image.fromarray(colours.repeat(64, axis=0).repeat(64, axis=1)[:side, :side]).save(path, compress_level=1)
        return
    import rasterio

    profile: dict[str, Any] = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
    profile |= {"tiled": True, "compress": "deflate", "photometric": "rgb"}
    if kind == "geotiff":
        profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)}
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, side, ROWS):
            bottom = min(top + ROWS, side)
            rows = colours[top // 64 : -(-bottom // 64)].repeat(64, axis=0).repeat(64, axis=1)[: bottom - top, :side]
            file.write(np.moveaxis(rows, -1, 0), window=((top, bottom), (0, side)))


def segment_one(path: Path, *, out: Path, image_text: str, settings: dict[str, int]) -> None:
    """Segment one image in this process and print how many tiles it had."""
    from patchword.config.segment import SegmentSettings
    from patchword.models.loading import load_image_text
    from patchword.segmentation.dense import DenseSegmenter
    from patchword.segmentation.large.run import segment_large

    segmenter = DenseSegmenter(load_image_text(image_text, device="cpu"))
    facts = segment_large(
        path,
        segmenter=segmenter,
        classes=CLASSES,
        out=out,
        name=path.name,
        settings=SegmentSettings(**settings),
        confidence_bits=8,
    )
    print(json.dumps({"tiles": facts.tiles, "mask": facts.mask}))


def measure(scratch: Path, *, side: int, kind: str, image_text: str, settings: dict[str, int]) -> Figure:
    """Draw one image, and segment it in a process of its own."""
    path = scratch / f"{side}.{'png' if kind == 'png' else 'tif'}"
    draw(path, side=side, kind=kind)
    out = scratch / f"out-{side}"
    command = [sys.executable, __file__, "--one", str(path), "--out", str(out), "--image-text", image_text]
    command += ["--settings", json.dumps(settings)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read() if process.stdout is not None else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"an image of {side} pixels a side ended with {os.waitstatus_to_exitcode(status)}")
    facts = json.loads(said)
    peak = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    mask = (out / facts["mask"]).stat().st_size / 2**20
    path.unlink()
    return Figure(side, facts["tiles"], round(peak), round(seconds, 1), round(mask, 2))


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 4096, 8192, 16384], help="pixels a side")
    parser.add_argument("--format", choices=["geotiff", "tiff", "png"], default="geotiff", help="of the images")
    parser.add_argument("--tile", type=int, default=1024, help="side of a tile in pixels")
    parser.add_argument("--overlap", type=int, default=256, help="pixels that tiles share")
    parser.add_argument("--image-size", type=int, default=64, help="size at which the model sees a tile")
    parser.add_argument("--image-text", default=str(CLIP), help="checkpoint of the model")
    parser.add_argument("--scratch", type=Path, help="folder for images and masks; a temporary one by default")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        segment_one(chosen.one, out=chosen.out, image_text=chosen.image_text, settings=json.loads(chosen.settings))
        return
    settings = {"tile": chosen.tile, "overlap": chosen.overlap, "image_size": chosen.image_size, "large_megapixels": 1}
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as temporary:
        figures = [
            measure(Path(temporary), side=side, kind=chosen.format, image_text=chosen.image_text, settings=settings)
            for side in chosen.sides
        ]
    if chosen.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    print("| side, pixels | tiles | peak MiB | seconds | mask MiB |\n|---|---|---|---|---|")
    for each in figures:
        print(f"| {each.side} | {each.tiles} | {each.peak_mib:.0f} | {each.seconds:.1f} | {each.mask_mib:.2f} |")


if __name__ == "__main__":
    main()
