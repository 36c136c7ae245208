"""Segments one large image, tile by tile, into files; goes on where an earlier run was stopped."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.data.folders import replacing, write_bytes, write_json
from patchword.data.images import read_image
from patchword.data.masks import LabelMap, ignore_index, png_palette
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.heads import reads_by_windows
from patchword.segmentation.large.geo import BLOCK, BandMeaning, GeoReader, GeoReference, write_geotiff
from patchword.segmentation.large.tiles import (
    ArrayReader,
    Pixels,
    Tile,
    WindowReader,
    plan_tiles,
    sample_positions,
    settings_of_tile,
)
from patchword.segmentation.large.unfinished import PixelStore, Shown, Unfinished, nothing
from patchword.segmentation.records import MASKS, ClassArea, ResultRecord, TilesRecord
from patchword.segmentation.result import CONFIDENCE, JPEG_QUALITY, OVERLAYS, SegmentationResult
from patchword.segmentation.words import Classes, mask_names
from patchword.visualization.overlays import overlay

UNFINISHED = "unfinished"


def segment_large(
    path: str | Path,
    *,
    segmenter: AnySegmenter,
    classes: Classes,
    out: str | Path,
    name: str,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | None = None,
    overlays: bool = True,
    confidence_bits: Literal[0, 8, 16] = 0,
    note: Callable[[str], None] | None = None,
) -> LargeFacts:
    """Segment an image tile by tile and write its files; memory depends on the tile, not on the image.

    Every tile is shown with context around it, of which only the middle is kept (`tiles.plan_tiles`). What is done is
    on disk after every tile, in `out/unfinished/<name>`, so that a run that was stopped goes on with the next.

    Args:
        path: of the image.
        segmenter: whatever segments.
        classes, background: as of `Segmenter.segment`.
        out: folder of the result. The mask is `masks/<name>.png`, or for an image with a georeference
            `masks/<name>.tif` with `masks/<name>.json` beside it; likewise `confidence/<name>` on request.
        name: of the image, relative, with forward slashes.
        settings: `tile`, `overlap`, `bands`, `overview_side` and those named `value_...` are of large images.
        overlays: whether to write `overlays/<name>.jpg`, at most `settings.overview_side` pixels a side.
        confidence_bits: of the confidences that are written, 0 to 255 (8) or to 65535 (16); 0 writes none.
        note: told how far it is.
    """
    path, out, chosen = Path(path), Path(out), settings or SegmentSettings()
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    try:
        with (
            closing(open_reader(path, settings=chosen)) as reader,
            Unfinished(
                out / UNFINISHED / name,
                what=_identity(path, segmenter, vocabulary, chosen, confidence_bits),
                size=reader.size,
                classes=len(vocabulary) + 1,
                confidence_bits=confidence_bits,
            ) as unfinished,
        ):
            try:
                tiles = _segment_tiles(
                    _Work(segmenter, vocabulary, chosen, reader), unfinished, note or (lambda _: None)
                )
            except PatchwordError:  # what a damaged image has filled would stay beside the results for good
                unfinished.remove(below=out / UNFINISHED)
                raise
            shown = unfinished.shown or _asked_for(vocabulary, settings=chosen)
            files = LargeFiles(out, name, reader, unfinished, tiles, shown)
            facts = files.write(overview_side=chosen.overview_side if overlays else None)
            unfinished.remove(below=out / UNFINISHED)
    except OSError as error:
        raise WriteError(f"cannot write the result of {name}: {error.strerror or error}") from None
    return facts


@dataclass(frozen=True)
class _Work:
    """Who segments what."""

    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    reader: WindowReader


def _identity(
    path: Path, segmenter: AnySegmenter, vocabulary: Vocabulary, settings: SegmentSettings, confidence_bits: int
) -> dict[str, Any]:
    """All that the tiles of an image depend on."""
    file = path.stat()
    return {
        "bytes": file.st_size,
        "modified": file.st_mtime_ns,
        "vocabulary": vocabulary.to_text(),
        "segmenter": segmenter.describe(),
        "settings": settings.recorded(),
        "confidence_bits": confidence_bits,
    }


def _segment_tiles(work: _Work, unfinished: Unfinished, note: Callable[[str], None] | None) -> int:
    """Segment what is not done yet; how many tiles there are.

    Tiles that share a batch do so by their place in the image, and a batch of which a part is missing is done anew as
    a whole: results differ in the last digits with what shares a batch.
    """
    tiles = plan_tiles(work.reader.size, tile=work.settings.tile, overlap=work.settings.overlap)
    own_size = work.segmenter.describe().get("image_size")
    settings = settings_of_tile(work.settings, seen=tiles[0].seen, own_size=own_size)
    for start in range(0, len(tiles), settings.batch):
        chunk = tiles[start : start + settings.batch]
        if not all(map(unfinished.has, chunk)):
            _segment_chunk(chunk, work=work, settings=settings, unfinished=unfinished)
        if note is not None:
            note(f"tile {start + len(chunk)} of {len(tiles)}")
    return len(tiles)


def _segment_chunk(chunk: Sequence[Tile], *, work: _Work, settings: SegmentSettings, unfinished: Unfinished) -> None:
    """Read tiles, and segment those in which there is anything."""
    batch: list[tuple[Tile, Pixels]] = []
    for tile in chunk:
        pixels = work.reader.read(tile.seen)
        if _is_empty(tile, pixels):
            indices, confidence, valid = nothing(tile.kept)
            unfinished.add(tile, indices=indices, confidence=confidence, valid=valid)
        else:
            batch.append((tile, pixels))
    if batch:
        _segment_batch(batch, work=work, settings=settings, unfinished=unfinished)


def _segment_batch(
    batch: Sequence[tuple[Tile, Pixels]], *, work: _Work, settings: SegmentSettings, unfinished: Unfinished
) -> None:
    images = [pixels.image for _, pixels in batch]
    results = work.segmenter.segment_batch(images, classes=work.vocabulary, settings=settings)
    for (tile, pixels), result in zip(batch, results, strict=True):
        if isinstance(result, PatchwordError):
            raise result
        if unfinished.shown is None:
            unfinished.show(result.label_map)
        _add(tile, pixels, result, unfinished)


def _add(tile: Tile, pixels: Pixels, result: SegmentationResult, unfinished: Unfinished) -> None:
    kept = tile.kept.within(tile.seen)
    found = result.label_map.indices[kept].astype(np.int64)
    indices = np.where(found == result.label_map.ignore, unfinished.ignore, found)
    valid = np.ones(found.shape, dtype=np.bool_) if pixels.valid is None else pixels.valid[kept]
    unfinished.add(tile, indices=indices, confidence=result.confidence[kept], valid=valid)


def _is_empty(tile: Tile, pixels: Pixels) -> bool:
    return pixels.valid is not None and not pixels.valid[tile.kept.within(tile.seen)].any()


def _asked_for(vocabulary: Vocabulary, *, settings: SegmentSettings) -> Shown:
    """The classes of an image without a single valid pixel."""
    names = mask_names(vocabulary, settings=settings)
    label_map = LabelMap(np.full((1, 1), ignore_index(len(names))), names)
    return Shown(names, label_map.class_colours())


def open_reader(path: Path, *, settings: SegmentSettings) -> WindowReader:
    """Open an image to read parts of it.

    A TIFF is read by windows with rasterio, so that memory is of a window; without that package, and for all other
    formats, an image without a georeference is decoded once and kept whole, 3 bytes a pixel.
    """
    return GeoReader(path, settings=settings) if reads_by_windows(path) else ArrayReader(read_image(path))


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

    def record(self, name: str, *, content: str | None) -> ResultRecord:
        """The image's line of the results."""
        height, width = self.size
        on_ground = self.square_metres or {}
        areas = {
            name: ClassArea(pixels=pixels, share=round(pixels / (height * width), 6), square_metres=on_ground.get(name))
            for name, pixels in self.pixels.items()
        }
        on_earth = {} if self.on_earth is None else asdict(self.on_earth)
        return ResultRecord(
            name=name,
            status="ok",
            content=content,
            size=self.size,
            classes=areas,
            ignored=self.ignored,
            mean_confidence=self.mean_confidence,
            large=TilesRecord(tiles=self.tiles, mask=self.mask, **on_earth),
        )


@dataclass(frozen=True)
class LargeFiles:
    """What is written of one image whose tiles are all done.

    Attributes:
        out: folder of the result.
        name: of the image, relative, with forward slashes.
        reader: of the image.
        unfinished: what its tiles gave.
        tiles: how many.
        shown: the classes.
    """

    out: Path
    name: str
    reader: WindowReader
    unfinished: Unfinished
    tiles: int
    shown: Shown

    def write(self, *, overview_side: int | None) -> LargeFacts:
        """Write all files, the mask last, and say what is in them."""
        reference = _reference(self.reader)
        suffix = "png" if reference is None else "tif"
        facts = self._facts(f"{MASKS}/{self.name}.{suffix}", reference)
        if reference is not None:
            write_json(self.out / MASKS / f"{self.name}.json", facts.sidecar())
        if overview_side is not None:
            self._write_overlay(overview_side)
        if self.unfinished.confidence is not None:
            self._write(self.out / CONFIDENCE / f"{self.name}.{suffix}", self.unfinished.confidence, reference, None)
        self._write(self.out / facts.mask, self.unfinished.indices, reference, self.shown)
        return facts

    def _facts(self, mask: str, reference: GeoReference | None) -> LargeFacts:
        height, width = self.reader.size
        pixels = dict(zip(self.shown.names, self.unfinished.pixels(len(self.shown.names)), strict=True))
        mean = self.unfinished.mean_confidence()
        return LargeFacts(
            size=(height, width),
            names=self.shown.names,
            pixels={name: count for name, count in pixels.items() if count},
            ignored=height * width - sum(pixels.values()),
            mean_confidence=None if mean is None else round(mean, 6),
            tiles=self.tiles,
            mask=mask,
            on_earth=None if reference is None else self._on_earth(reference),
        )

    def _on_earth(self, reference: GeoReference) -> OnEarth:
        return OnEarth(
            crs=reference.crs_name,
            transform=tuple(float(number) for number in tuple(reference.transform)[:6]),
            pixel_square_metres=reference.square_metres(),
            value_range=self.reader.value_range if isinstance(self.reader, GeoReader) else None,
        )

    def _write_overlay(self, side: int) -> None:
        scale = min(1.0, side / max(self.reader.size))
        height, width = (max(1, round(length * scale)) for length in self.reader.size)
        rows, columns = (
            sample_positions(length, count=count)
            for length, count in zip(self.reader.size, (height, width), strict=True)
        )
        indices = self.unfinished.indices.values[rows[:, None], columns].astype(np.int64)
        indices[indices == self.unfinished.ignore] = ignore_index(len(self.shown.names))
        picture = overlay(self.reader.preview((height, width)), LabelMap(indices, *self.shown))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        write_bytes(self.out / OVERLAYS / f"{self.name}.jpg", buffer.getvalue())

    def _write(self, path: Path, store: PixelStore, reference: GeoReference | None, shown: Shown | None) -> None:
        """Write indices, or confidences where no classes are `shown`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = store.values
        if shown is not None and ignore_index(len(shown.names)) != store.full:
            values = values.astype(np.uint8)  # of 65535, ignore, 255 remains
        if reference is None:
            kind = "P" if shown is not None and values.dtype == np.uint8 else "L" if values.itemsize == 1 else "I;16"
            picture = Image.frombuffer(kind, values.shape[::-1], values, "raw", kind, 0, 1)
            if shown is not None and kind == "P":
                picture.putpalette(png_palette(shown.colours))
            with replacing(path) as file:
                picture.save(file, format="PNG")
            return
        strips = (np.ascontiguousarray(values[top : top + BLOCK]) for top in range(0, len(values), BLOCK))
        write_geotiff(
            path,
            size=store.size,
            strips=strips,
            dtype=values.dtype.name,
            reference=reference,
            meaning=BandMeaning("confidence", scale=1 / store.full) if shown is None else _class_indices(shown),
        )


def _class_indices(shown: Shown) -> BandMeaning:
    """What the values of a mask are; QGIS and gdalinfo show the names among the file's metadata."""
    names = json.dumps(list(shown.names), ensure_ascii=False)
    return BandMeaning(
        "class index", nodata=ignore_index(len(shown.names)), colours=shown.colours, tags={"CLASSES": names}
    )


def _reference(reader: WindowReader) -> GeoReference | None:
    """Where the image lies, if its file says so."""
    return reader.reference if isinstance(reader, GeoReader) and reader.georeferenced else None
