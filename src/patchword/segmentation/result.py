"""What a segmentation gives back, and its files: a mask, what lies beside it, a line of the results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import ALL_CLASSES, FolderSettings
from patchword.data.folders import write_bytes
from patchword.data.masks import LabelMap
from patchword.data.run_lengths import run_lengths
from patchword.errors import PatchwordError
from patchword.runs.pipeline import remove_files, why_unwritten
from patchword.segmentation.pixels import class_shares
from patchword.segmentation.records import MASKS, ClassArea, ResultRecord, RunLengthsRecord
from patchword.segmentation.scores import PixelScores
from patchword.visualization.notebook import notebook_html, notebook_picture
from patchword.visualization.overlays import overlay
from patchword.visualization.pages import encoded, hex_colour, number, percent, share

OVERLAYS = "overlays"
CONFIDENCE, SOFT = "confidence", "soft"
JPEG_QUALITY = 90


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """A class for every pixel of an image. A notebook shows it as a picture with a table of its classes.

    `result["cat"]` is the mask (h, w) of a class, boolean.

    Attributes:
        label_map: indices of the classes asked for; ignore where the confidence is below the threshold.
        confidence: (h, w) float32 in (0, 1], the share of the pixel's class in a softmax over the classes asked for.
        image: (h, w, 3) uint8, the image as it was segmented.
        scores: of every class, or of every word, at any pixel; None where they were not kept.
        class_of: (maps,) int64, the label map's index that each map of `scores` speaks for.
        temperature: of the softmax over those maps.
    """

    label_map: LabelMap
    confidence: NDArray[np.float32]
    image: NDArray[np.uint8]
    scores: PixelScores | None = None
    class_of: NDArray[np.int64] | None = None
    temperature: float | None = None

    @property
    def mask(self) -> NDArray[np.integer[Any]]:
        """The classes' indices (h, w) in `label_map.names`; `label_map.ignore` where the confidence is too low."""
        return self.label_map.indices

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        (index,) = self._positions([name])
        found: NDArray[np.bool_] = self.label_map.indices == index
        return found

    def __repr__(self) -> str:
        height, width = self.label_map.indices.shape
        found = [f"{name} {percent(area / (height * width))}" for name, area in self.areas().items()]
        more = f", {len(found) - 5} more" if len(found) > 5 else ""
        return f"SegmentationResult({width} x {height} pixels: {', '.join(found[:5]) or 'no class'}{more})"

    def _repr_png_(self) -> bytes:
        return notebook_picture(self.image, self.label_map)

    def _repr_html_(self) -> str:
        indices, names = self.label_map.indices, self.label_map.names
        height, width = indices.shape
        areas = self.areas()
        counts = np.bincount(indices.ravel(), minlength=len(names))
        sums = np.bincount(indices.ravel(), weights=self.confidence.ravel(), minlength=len(names))
        means = dict(zip(names, sums[: len(names)] / np.maximum(counts[: len(names)], 1), strict=True))
        rows = [(name, share(area / indices.size), number(means[name])) for name, area in areas.items()]
        unnamed = indices.size - sum(areas.values())
        if unnamed:
            below = float(self.confidence[indices == self.label_map.ignore].mean(dtype=np.float64))
            rows.append(("no class", share(unnamed / indices.size), number(below)))
        colours = self.label_map.class_colours().tolist()
        return notebook_html(
            f"Segmentation, {width} x {height} pixels",
            facts=[("mean confidence", number(float(self.confidence.mean(dtype=np.float64))))],
            pictures=[("", notebook_picture(self.image, self.label_map, legend=False))],  # the table has the colours
            columns=("class", "share", "confidence"),
            rows=rows,
            colours={name: hex_colour(colour) for name, colour in zip(names, colours, strict=True)},
        )

    def _positions(self, names: Sequence[str]) -> list[int]:
        known = self.label_map.names
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise PatchwordError(f"unknown class {unknown!r} (choose from {', '.join(known)})")
        return [known.index(name) for name in names]

    def overlay(self, *, opacity: float = 0.55, legend: bool = True) -> Image.Image:
        """Paint the label map over the image; see `patchword.visualization.overlays.overlay`."""
        return overlay(self.image, self.label_map, opacity=opacity, legend=legend)

    def soft(
        self,
        classes: Sequence[str] | str | None = None,
        *,
        rows: range | None = None,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> NDArray[np.floating[Any]]:
        """Probabilities of classes at every pixel, before any threshold, and before PAMR and masks refine edges.

        What the label map needs of memory does not grow with the number of classes; this does, so it is for some
        classes, or for some rows.

        Args:
            classes: names out of the label map's; None for all of them.
            rows: of the image; None for all.
            dtype: of the result.

        Returns:
            (len(classes), len(rows), width): each class's share in the softmax that the confidence is taken from. Where
            that is over words, it is the share of the class's best word. A class that only a threshold makes has 0.
        """
        if self.scores is None or self.class_of is None or self.temperature is None:
            raise PatchwordError("there are no probabilities: the scores of this segmentation were not kept")
        height = len(self.label_map.indices)
        asked = range(height) if rows is None else rows
        if asked.step != 1 or not 0 <= asked.start <= asked.stop <= height:
            raise PatchwordError(f"rows is {asked}; it must be a range within 0 to {height}, in steps of 1")
        named = self.label_map.names if classes is None else [classes] if isinstance(classes, str) else classes
        shares = class_shares(
            self.scores,
            class_of=self.class_of,
            classes=self._positions(named),
            temperature=self.temperature,
            rows=asked,
            dtype=getattr(torch, dtype),
        )
        return shares.cpu().numpy()

    def areas(self) -> dict[str, int]:
        """Pixels of each class that is there, largest first."""
        counts = self.label_map.counts()
        found = [(name, int(counts[index])) for index, name in enumerate(self.label_map.names) if counts[index]]
        return dict(sorted(found, key=lambda entry: -entry[1]))

    def save(
        self, folder: str | Path, *, name: str, settings: FolderSettings | Mapping[str, Any] | None = None
    ) -> Path:
        """Write the mask, and beside it what the settings ask for; each file whole or not at all, the mask last.

        Args:
            folder: made when missing.
            name: of the image, relative, with forward slashes; its suffix is kept, as in `a/b.jpg` ->
                `masks/a/b.jpg.png`.
            settings: which files are written: of `FolderSettings`, `overlays`, `confidence_bits` and `soft`.

        Returns:
            Path of the mask.
        """
        write_files(self, Path(folder), name=name, settings=FolderSettings.of(settings))
        return mask_path(Path(folder), name)


@dataclass(frozen=True)
class Segmented:
    """A photograph or a frame that was segmented.

    Attributes:
        name: see `ResultRecord`.
        found: the result, why there is none, or the line of one that is on disk already.
        content, second: see `ResultRecord`.
    """

    name: str
    found: SegmentationResult | PatchwordError | ResultRecord
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
            write_bytes(path, encoded(result.overlay(), "JPEG", quality=JPEG_QUALITY))
        elif kind == CONFIDENCE:
            write_bytes(path, encoded(confidence_picture(result.confidence, bits=settings.confidence_bits), "PNG"))
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
    if isinstance(found, ResultRecord):
        return found
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


def class_areas(label_map: LabelMap, *, with_runs: bool) -> dict[str, ClassArea]:
    """Area of each class that is there.

    Args:
        label_map: of an image.
        with_runs: whether each has its run lengths.
    """
    indices, counts = label_map.indices, label_map.counts()
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
