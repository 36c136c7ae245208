"""PNG of one value a pixel, written a few rows at a time: the picture is never in memory as a whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

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
