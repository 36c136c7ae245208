"""Files that are no photographs any more: a seeded mutator of real ones, of every common format that Pillow writes."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from label_fakes import picture
from PIL import Image

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {}),
    ".jpeg": ("JPEG", {"progressive": True}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".bmp": ("BMP", {}),
    ".gif": ("GIF", {}),
    ".ppm": ("PPM", {}),
    ".tga": ("TGA", {"compression": "tga_rle"}),
    ".ico": ("ICO", {}),
    ".jp2": ("JPEG2000", {}),
}


def photograph(colours: Sequence[Sequence[str]], suffix: str) -> bytes:
    """A file of a drawn picture of coloured squares, 8 pixels each, with an EXIF orientation where there is a place."""
    name, options = FORMATS[suffix]
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 1
    more = {"exif": exif} if name in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    Image.fromarray(picture(colours, scale=8)).save(file, format=name, **options, **more)
    return file.getvalue()


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 10, 40))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def _spoil_header(data: bytearray, rng: random.Random) -> None:
    count = rng.randrange(1, 13)
    data[:count] = rng.randbytes(count)


def _swap_chunks(data: bytearray, rng: random.Random) -> None:
    length = max(1, len(data) // 8)
    first, second = sorted(rng.sample(range(len(data) - length), 2))
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


def _zero_range(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 200))
    data[start:end] = bytes(end - start)


def _declare_huge(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(4, min(len(data) - 4, 48))
    data[start : start + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff\xff"))


def _empty(data: bytearray, rng: random.Random) -> None:
    data.clear()


def _text(data: bytearray, rng: random.Random) -> None:
    data[:] = "\n".join(rng.choice(("Füße", "<svg/>", "{}", "\x1b[31m")) for _ in range(20)).encode()


def _nest_garbage(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place:place] = rng.randbytes(rng.randrange(1, 64)) + bytes(data[: rng.randrange(len(data))])


def _garbage(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(0, 16) :] = rng.randbytes(len(data))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits,
    _truncate,
    _spoil_header,
    _swap_chunks,
    _zero_range,
    _declare_huge,
    _empty,
    _text,
    _nest_garbage,
    _garbage,
)


def malformed(rng: random.Random) -> tuple[str, bytes]:
    """A mutated photograph: its suffix, which may be another's, and its bytes."""
    suffix = rng.choice(list(FORMATS))
    data = bytearray(photograph([["red", "blue"], ["yellow", rng.choice(("red", "green"))]], suffix))
    rng.choice(MUTATIONS)(data, rng)
    return rng.choice(list(FORMATS)) if rng.random() < 0.1 else suffix, bytes(data)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 by 60,000 pixels."""
    data = bytearray(photograph([["red"]], ".png"))
    data[16:24] = np.array([60_000, 60_000], dtype=">u4").tobytes()
    data[29:33] = np.array([zlib.crc32(data[12:29])], dtype=">u4").tobytes()
    return bytes(data)
