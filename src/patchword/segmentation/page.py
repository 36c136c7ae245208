"""The page of a folder of segmentations: the least certain photographs with their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.colours import with_one_more
from patchword.data.folders import write_text
from patchword.data.images import read_image
from patchword.data.masks import LabelMap
from patchword.data.tar_shards import photograph_at
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.runs.records import recorded_root
from patchword.segmentation.records import ResultRecord, SegmentationRecord
from patchword.segmentation.result import OVERLAYS, mask_path
from patchword.visualization.pages import Labelled, class_positions, encoded, hex_colour, render_page, small_pictures

PAGE_FILE = "report.html"
MOST_PICTURES, MOST_ROWS = 200, 1000
_SIDE, _QUALITY = 360, 80  # of a picture: its longer side in pixels, and its JPEG compression
_GREY = 128  # stands for the photograph of a frame: the video is not decoded again
_THREADS = 4


@dataclass(frozen=True)
class Picture:
    """One image to show."""

    record: ResultRecord
    shown: Labelled


@dataclass(frozen=True)
class ClassTotal:
    """A class over all images: how many have it, and its pixels."""

    name: str
    images: int
    pixels: int


def write_page(folder: Path, *, record: SegmentationRecord, results: Mapping[str, ResultRecord]) -> None:
    """Write `report.html`; the same results and photographs give the same bytes.

    Args:
        folder: of the result.
        record: of the run.
        results: of all images and videos, by name.
    """
    colours = Vocabulary.recorded(record.vocabulary, source=f"vocabulary of {folder}").colours
    if len(record.names) > len(colours):
        colours = with_one_more(colours)
    images = [result for result in results.values() if result.status == "ok" and not result.is_video]
    images.sort(key=lambda each: (each.mean_confidence is None, each.mean_confidence, each.name))
    shown = images[:MOST_ROWS]
    show = partial(_picture, folder=folder, record=record, colours=colours)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="patchword-page") as pool:
        pictures = list(pool.map(show, images[:MOST_PICTURES]))
    confidences = [each.mean_confidence for each in images if each.mean_confidence is not None]
    page = render_page(
        "segmentation",
        record=record,
        count=len(images),
        pictures=pictures,
        shown=shown,
        rows=MOST_ROWS,
        failed=[each for _, each in sorted(results.items()) if each.status == "failed"],
        mean_confidence=sum(confidences) / len(confidences) if confidences else None,
        histogram=np.histogram(confidences, bins=20, range=(0, 1))[0].tolist(),
        classes=_totals(images, names=record.names),
        colours={name: hex_colour(colour) for name, colour in zip(record.names, colours.tolist(), strict=True)},
        positions={each.name: class_positions(each.classes or {}, names=record.names) for each in shown},
    )
    write_text(folder / PAGE_FILE, page)


def _totals(images: Sequence[ResultRecord], *, names: Sequence[str]) -> list[ClassTotal]:
    having, pixels = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for image in images:
        for name, area in (image.classes or {}).items():
            having[name] += 1
            pixels[name] += area.pixels
    return [ClassTotal(name, having[name], pixels[name]) for name in names]


def _picture(result: ResultRecord, *, folder: Path, record: SegmentationRecord, colours: NDArray[np.uint8]) -> Picture:
    try:
        if result.large is not None:
            return Picture(result, _large(folder / OVERLAYS / f"{result.name}.jpg", mask=result.large.mask))
        labels = LabelMap.load(mask_path(folder, result.name), names=record.names)
        if result.second is None:
            photograph = read_image(photograph_at(recorded_root(folder, record.photographs), result.name))
        else:
            photograph = np.full((*labels.indices.shape, 3), _GREY, dtype=np.uint8)
        shown = small_pictures(photograph, labels, colours=colours, side=_SIDE, quality=_QUALITY)
    except (PatchwordError, OSError, MemoryError) as error:
        shown = Labelled(missing=str(error))
    return Picture(result, shown)


def _large(overlay: Path, *, mask: str) -> Labelled:
    """A reduction of the overlay, where there is one: an image in tiles may be too large to be read as a whole."""
    if not overlay.is_file():
        return Labelled(missing=f"the image is too large for this page; its mask is {mask}")
    with Image.open(overlay) as picture:
        picture.thumbnail((2 * _SIDE, 2 * _SIDE))
        return Labelled(photograph=encoded(picture, "JPEG", quality=_QUALITY, optimize=True))
