"""The files of one large image: masks and confidences as PNG or GeoTIFF, an overlay, and what is in them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.folders import replacing, write_bytes, write_json
from patchword.data.masks import LabelMap, ignore_index, png_palette
from patchword.segmentation.files import CONFIDENCE, JPEG_QUALITY, LargeFacts, OnEarth
from patchword.segmentation.large.geo import BLOCK, BandMeaning, GeoReader, GeoReference, write_geotiff
from patchword.segmentation.large.readers import WindowReader, sample_positions
from patchword.segmentation.large.unfinished import PixelStore, Shown, Unfinished
from patchword.segmentation.result import MASKS, OVERLAYS
from patchword.visualization.overlays import overlay


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
        indices = self.unfinished.indices.sample(rows, columns).astype(np.int64)
        indices[indices == self.unfinished.ignore] = ignore_index(len(self.shown.names))
        picture = overlay(self.reader.preview((height, width)), LabelMap(indices, *self.shown))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        write_bytes(self.out / OVERLAYS / f"{self.name}.jpg", buffer.getvalue())

    def _write(self, path: Path, store: PixelStore, reference: GeoReference | None, shown: Shown | None) -> None:
        """Write indices, or confidences where no classes are `shown`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        dtype = store.dtype if shown is None or ignore_index(len(shown.names)) == store.full else np.dtype(np.uint8)
        strips = (strip.astype(dtype, copy=False) for strip in store.strips(BLOCK))  # of 65535, ignore, 255 remains
        if reference is None:
            palette = png_palette(shown.colours) if shown is not None and dtype == np.uint8 else None
            with replacing(path) as file:
                write_png(file, size=store.size, strips=strips, palette=palette)
            return
        write_geotiff(
            path,
            size=store.size,
            strips=strips,
            dtype=dtype.name,
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


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3
_LEVEL = 6  # of zlib


def write_png(
    file: IO[bytes], *, size: tuple[int, int], strips: Iterable[NDArray[Any]], palette: bytes | None = None
) -> None:
    """Write a PNG of 8-bit palette indices, or of 8-bit or 16-bit grey values.

    Args:
        file: open for writing.
        size: (height, width) in pixels.
        strips: (rows, width) uint8 or uint16, from top to bottom, all of one type.
        palette: red, green and blue of each of 256 indices; None for grey.

    Source: the PNG specification (ISO/IEC 15948), without filters, as indices want it.
    """
    file.write(_SIGNATURE)
    packer = zlib.compressobj(_LEVEL)
    started = False
    for strip in strips:
        if not started:
            _chunk(file, b"IHDR", _header(size, bits=8 * strip.itemsize, indexed=palette is not None))
            if palette is not None:
                _chunk(file, b"PLTE", palette)
            started = True
        _chunk(file, b"IDAT", packer.compress(_lines(strip)))
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _header(size: tuple[int, int], *, bits: int, indexed: bool) -> bytes:
    return struct.pack(">IIBBBBB", size[1], size[0], bits, _INDEXED if indexed else _GREY, 0, 0, 0)


def _lines(strip: NDArray[Any]) -> bytes:
    """The rows as PNG has them: a byte for the filter, none, and then the values, highest byte first."""
    values = np.ascontiguousarray(strip.astype(strip.dtype.newbyteorder(">"), copy=False))
    lines = np.zeros((len(values), 1 + values.shape[1] * values.itemsize), dtype=np.uint8)
    lines[:, 1:] = values.view(np.uint8).reshape(len(values), -1)
    return lines.tobytes()


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if not data and kind == b"IDAT":
        return
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
