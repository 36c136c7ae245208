"""What becomes of one photograph or frame on disk: its mask, what may lie beside it, its line of the results."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import ALL_CLASSES, FolderSettings
from patchword.data.folders import write_bytes
from patchword.data.masks import LabelMap, run_lengths
from patchword.errors import PatchwordError
from patchword.runs.pipeline import remove_files, why_unwritten
from patchword.segmentation.records import ClassArea, ResultRecord, RunLengthsRecord, TilesRecord
from patchword.segmentation.result import MASKS, OVERLAYS, SegmentationResult

CONFIDENCE, SOFT = "confidence", "soft"
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Segmented:
    """A photograph or a frame that was segmented.

    Attributes:
        name: see `ResultRecord`.
        found: the result, why there is none, or what is known of one that is on disk already.
        content, second: see `ResultRecord`.
    """

    name: str
    found: SegmentationResult | PatchwordError | LargeFacts
    content: str | None = None
    second: float | None = None


def mask_path(folder: Path, name: str) -> Path:
    """Where a mask is; the suffix stays in the name, so that a.jpg and a.png do not collide."""
    return folder / MASKS / PurePosixPath(f"{name}.png")


def overlay_video_path(folder: Path, name: str) -> Path:
    """Where the overlays of a video are, where they are a video."""
    return folder / OVERLAYS / PurePosixPath(f"{name}.mp4")


def files_of(folder: Path, name: str, *, settings: FolderSettings) -> list[Path]:
    """All files that `write_files` leaves of an image, the mask last."""
    beside = {
        OVERLAYS: "jpg" if settings.overlays else None,
        CONFIDENCE: "png" if settings.confidence_bits else None,
        SOFT: "safetensors" if settings.soft else None,
    }
    paths = [folder / kind / PurePosixPath(f"{name}.{suffix}") for kind, suffix in beside.items() if suffix]
    return [*paths, mask_path(folder, name)]


def files_of_record(folder: Path, result: ResultRecord, *, settings: FolderSettings) -> list[Path]:
    """All files that there should be of a line of the results, the mask last."""
    if result.frames and settings.overlays and settings.overlay_video:
        return [overlay_video_path(folder, result.name)]
    if result.status == "failed" or result.is_video:
        return []
    if result.large is not None:
        return large_files(folder, result.name, mask=result.large.mask, settings=settings)
    return files_of(folder, result.name, settings=settings if result.second is None else settings.of_frames())


def large_files(folder: Path, name: str, *, mask: str, settings: FolderSettings) -> list[Path]:
    """All files of an image that was segmented tile by tile, the mask last; they have no probabilities.

    Args:
        folder: of the result.
        name: of the image.
        mask: path of its mask in the folder.
        settings: of the run.
    """
    suffix = PurePosixPath(mask).suffix
    paths = [folder / OVERLAYS / f"{name}.jpg"] if settings.overlays else []
    paths += [folder / CONFIDENCE / f"{name}{suffix}"] if settings.confidence_bits else []
    paths += [folder / MASKS / f"{name}.json"] if suffix != ".png" else []
    return [*paths, folder / mask]


def write_files(result: SegmentationResult, folder: Path, *, name: str, settings: FolderSettings) -> None:
    """Write the files of an image, each whole or not at all, the mask last."""
    for path in files_of(folder, name, settings=settings):
        kind = path.relative_to(folder).parts[0]
        if kind == OVERLAYS:
            write_bytes(path, _encoded(result.overlay(), "JPEG", quality=JPEG_QUALITY))
        elif kind == CONFIDENCE:
            write_bytes(path, _encoded(confidence_picture(result.confidence, bits=settings.confidence_bits), "PNG"))
        elif kind == SOFT:
            write_bytes(path, soft_file(result, classes=soft_classes(settings, names=result.label_map.names)))
        else:
            result.label_map.save(path)


def write_result(folder: Path, item: Segmented, *, settings: FolderSettings) -> ResultRecord:
    """Write the files of an image, or remove those of an earlier run where it failed.

    Returns:
        its record; to be written after the files, so that it vouches for them.
    """
    found = item.found
    if isinstance(found, SegmentationResult):
        try:
            write_files(found, folder, name=item.name, settings=settings)
        except PatchwordError as error:
            found = why_unwritten(error, folder=folder)
    if isinstance(found, LargeFacts):
        return _large_record(item, found)
    if isinstance(found, PatchwordError):
        in_tiles = large_files(folder, item.name, mask=f"{MASKS}/{item.name}.tif", settings=settings)
        remove_files([*files_of(folder, item.name, settings=settings), *in_tiles])
        return ResultRecord(
            name=item.name, status="failed", reason=str(found), content=item.content, second=item.second
        )
    height, width = found.label_map.indices.shape
    areas = class_areas(found.label_map, with_runs=settings.rle)
    return ResultRecord(
        name=item.name,
        status="ok",
        content=item.content,
        second=item.second,
        size=(height, width),
        classes=areas,
        ignored=height * width - sum(area.pixels for area in areas.values()),
        mean_confidence=round(float(found.confidence.mean(dtype=np.float64)), 6),
    )


def _large_record(item: Segmented, facts: LargeFacts) -> ResultRecord:
    height, width = facts.size
    on_ground = facts.square_metres or {}
    areas = {
        name: ClassArea(pixels=pixels, share=round(pixels / (height * width), 6), square_metres=on_ground.get(name))
        for name, pixels in facts.pixels.items()
    }
    on_earth = {} if facts.on_earth is None else asdict(facts.on_earth)
    return ResultRecord(
        name=item.name,
        status="ok",
        content=item.content,
        size=facts.size,
        classes=areas,
        ignored=facts.ignored,
        mean_confidence=facts.mean_confidence,
        large=TilesRecord(tiles=facts.tiles, mask=facts.mask, **on_earth),
    )


def class_areas(label_map: LabelMap, *, with_runs: bool) -> dict[str, ClassArea]:
    """Area of each class that is there.

    Args:
        label_map: of an image.
        with_runs: whether each has its run lengths.
    """
    indices = label_map.indices
    counts = np.bincount(indices.ravel(), minlength=len(label_map.names))
    return {
        name: ClassArea(
            pixels=int(counts[index]),
            share=round(int(counts[index]) / indices.size, 6),
            rle=RunLengthsRecord.model_validate(run_lengths(indices == index)) if with_runs else None,
        )
        for index, name in enumerate(label_map.names)
        if counts[index]
    }


def confidence_picture(confidence: NDArray[np.float32], *, bits: int) -> Image.Image:
    """Confidence (h, w) in [0, 1] as a grey picture: the value is confidence x 255 (8 bits) or x 65535 (16)."""
    scaled = np.rint(confidence * np.float32(2**bits - 1))
    return Image.fromarray(scaled.astype(np.uint8 if bits == 8 else np.uint16))


def soft_classes(settings: FolderSettings, *, names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes whose probabilities are asked for.

    Args:
        settings: of the run.
        names: of all classes, "background" among them where there is one.
    """
    if settings.soft == (ALL_CLASSES,) and ALL_CLASSES not in names:
        return names
    unknown = next((name for name in settings.soft if name not in names), None)
    if unknown is not None:
        raise PatchwordError(
            f"soft names the unknown class {unknown!r} (choose from {ALL_CLASSES}, {', '.join(names)})"
        )
    return settings.soft


def soft_file(result: SegmentationResult, *, classes: tuple[str, ...]) -> bytes:
    """Probabilities as a safetensors file: `probabilities` (n, h, w) float16, the names as JSON in its metadata."""
    from safetensors.numpy import save

    probabilities = np.ascontiguousarray(result.soft(classes), dtype=np.float16)
    return save({"probabilities": probabilities}, metadata={"classes": json.dumps(classes)})


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class OnEarth:
    """What is known of a result with a georeference.

    Attributes:
        crs: the system's name, or its text where it has none; None where the file names no system.
        transform: the six numbers from pixels to its coordinates, row by row.
        pixel_square_metres: area of a pixel on the map plane; None in degrees or without a system.
        value_range: values of the file that were shown as 0 and 255; None for 8 bits as they are.
    """

    crs: str | None
    transform: tuple[float, ...]
    pixel_square_metres: float | None
    value_range: tuple[float, float] | None


@dataclass(frozen=True)
class LargeFacts:
    """What became of a large image.

    Attributes:
        size: (height, width) in pixels.
        names: of the mask's values, from 0.
        pixels: of each class that is there, in the order of the classes.
        ignored: pixels of no class.
        mean_confidence: over the pixels that are valid; None when none is.
        tiles: how many there are.
        mask: its path in the folder, with forward slashes.
        on_earth: where it lies; None without a georeference.
    """

    size: tuple[int, int]
    names: tuple[str, ...]
    pixels: dict[str, int]
    ignored: int
    mean_confidence: float | None
    tiles: int
    mask: str
    on_earth: OnEarth | None

    @property
    def square_metres(self) -> dict[str, float] | None:
        """Of each class that is there; None where areas are not known."""
        area = None if self.on_earth is None else self.on_earth.pixel_square_metres
        return None if area is None else {name: round(count * area, 3) for name, count in self.pixels.items()}

    def sidecar(self) -> dict[str, Any]:
        """For the JSON file beside a mask with a georeference."""
        values = asdict(self)
        return {**values, **(values.pop("on_earth") or {}), "square_metres": self.square_metres}
