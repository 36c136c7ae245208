"""Images that clients send: what they are and how large is known before they are decoded; only pixels are kept."""

from __future__ import annotations

import base64
import binascii
import re

import numpy as np
from numpy.typing import NDArray

from patchword.config.serve import ServeSettings
from patchword.data.images import decode_image
from patchword.errors import PatchwordError
from patchword.serving.limits import RefusedError

FORMATS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM", "WEBP": b"RIFF"}
"""What is taken -> what its files begin with."""

# A file may be an image and a web page, an archive or a document at once. No upload is ever sent back, but such a file
# is no photograph. Each pattern is so long that chance does not make it.
_SOMETHING_ELSE = {
    "a web page": re.compile(rb"<!doctype|<script[\s>]|<html[\s>]|<\?php\s", re.IGNORECASE),
    "an archive": re.compile(rb"PK\x05\x06\0\0\0\0|PK\x03\x04[\x0a\x14\x2d]\0"),
    "a document": re.compile(rb"%PDF-1\.|%!PS-Adobe"),
}


def media_allowed(kind: str | None) -> None:
    """Refuse a declared type that is no image."""
    plain = (kind or "").partition(";")[0].strip().lower()
    if plain.startswith("image/svg") or (plain not in ("", "application/octet-stream") and plain[:6] != "image/"):
        raise _no_image(f"it is declared as {plain[:60]!r}")


def check_upload(data: bytes) -> tuple[str, ...]:
    """The format of an image file by its first bytes; what is none, or something else too, is refused."""
    if not data:
        raise RefusedError(422, "the image is empty", kind="values")
    found = tuple(name for name, beginning in FORMATS.items() if data.startswith(beginning))
    if not found:
        raise _no_image("its content is none of these")
    for what, pattern in _SOMETHING_ELSE.items():
        if pattern.search(data):
            raise RefusedError(415, f"the file is an image and {what} at once; send an image alone", kind="type")
    return found


def decode_upload(data: bytes, *, limits: ServeSettings) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of an image file in memory.

    Args:
        data: the file.
        limits: of its pixels, checked before they are decoded.
    """
    formats = check_upload(data)

    def check(size: tuple[int, int]) -> None:
        height, width = size
        if height * width > limits.megapixels * 1e6:
            raise RefusedError(
                413, f"the image has {width} x {height} pixels; {limits.megapixels:g} million is the limit", kind="size"
            )
        if max(size) > limits.longest_side:
            raise RefusedError(
                413, f"the image has {width} x {height} pixels; {limits.longest_side} a side is the limit", kind="size"
            )

    try:
        return decode_image(data, name="the image", formats=formats, check=check)
    except RefusedError:
        raise
    except PatchwordError as error:
        status = 413 if "too large" in str(error) else 422
        raise RefusedError(status, str(error), kind="size" if status == 413 else "values") from None


def of_base64(text: str) -> bytes:
    """The bytes of an image in a JSON document, with or without the beginning of a data address."""
    if text.startswith("data:"):
        declared, _, text = text.partition(",")
        media_allowed(declared[5:].removesuffix(";base64"))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(422, "image is not base64", kind="values") from None


def _no_image(why: str) -> RefusedError:
    return RefusedError(415, f"the file is not an image that is taken ({', '.join(FORMATS)}): {why}", kind="type")
