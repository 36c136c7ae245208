"""Label Studio's brush: a mask as packed run lengths of the four channels of its picture, opaque where it is inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError

_COUNT_BITS = (3, 4, 8, 16)
_WORD_BITS = 8
_CHANNELS = 4
_LONGEST = 1 << _COUNT_BITS[-1]
_MOST_WORDS = (1 << 32) - 1
_OPAQUE = 128


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    words = mask.size * _CHANNELS
    if words > _MOST_WORDS:
        raise PatchwordError(f"mask has {mask.size:,} pixels; label-studio's brush holds {_MOST_WORDS // _CHANNELS:,}")
    lengths, values = _runs(mask.ravel())
    size = np.searchsorted(np.array([1 << bits for bits in _COUNT_BITS]), lengths)
    count_bits = np.array(_COUNT_BITS)[size]
    codes = (((4 + size) << count_bits) | (lengths - 1)) << _WORD_BITS | values
    codes = np.concatenate([[words, _WORD_BITS - 1, *(bits - 1 for bits in _COUNT_BITS)], codes])
    widths = np.concatenate([[32, 5, 4, 4, 4, 4], 3 + count_bits + _WORD_BITS])
    return _pack(codes, widths)


def decode_brush(packed: Sequence[int], *, size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    """Unpack a mask (h, w); a pixel is inside where it is at least half opaque."""
    try:
        bits = _Bits(bytes(packed))
        words = bits.read(32)
        if words != size[0] * size[1] * _CHANNELS:
            raise PatchwordError(f"{place}: brush region holds {words} bytes; {size[0]} x {size[1]} pixels need 4 each")
        word_bits = bits.read(5) + 1
        count_bits = [bits.read(4) + 1 for _ in range(4)]
        picture: NDArray[np.unsignedinteger[Any]] = np.zeros(
            words, dtype=np.uint8 if word_bits <= _WORD_BITS else np.uint32
        )
        done = 0
        while done < words:
            repeated = bits.read(1)
            until = done + bits.read(count_bits[bits.read(2)]) + 1
            if until > words:
                raise PatchwordError(f"{place}: brush region is damaged: it holds more than its {words} bytes")
            if repeated:
                picture[done:until] = bits.read(word_bits)
            else:
                picture[done:until] = [bits.read(word_bits) for _ in range(until - done)]
            done = until
    except (EOFError, TypeError, ValueError) as error:
        if isinstance(error, PatchwordError):
            raise
        raise PatchwordError(f"{place}: brush region is damaged: {error}") from None
    alpha: NDArray[np.bool_] = picture.reshape(*size, _CHANNELS)[:, :, 3] >= _OPAQUE
    return alpha


def _runs(flat: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths in bytes, none above the longest, and values 0 or 255 of a row of pixels."""
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    values = np.where(flat[starts], 255, 0)
    blocks = -(-lengths // _LONGEST)
    last = np.cumsum(blocks) - 1
    parts = np.full(int(blocks.sum()), _LONGEST)
    parts[last] = lengths - (blocks - 1) * _LONGEST
    return parts, np.repeat(values, blocks)


def _pack(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> list[int]:
    """Numbers of so many bits each, one after the other."""
    place = np.arange(int(widths.sum())) - np.repeat(np.cumsum(widths) - widths, widths)
    bits = np.repeat(codes, widths) >> (np.repeat(widths, widths) - 1 - place) & 1
    packed: list[int] = np.packbits(bits.astype(np.uint8)).tolist()
    return packed


class _Bits:
    """Reads numbers of up to 32 bits from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, count: int) -> int:
        first, skipped = divmod(self._place, 8)
        self._place += count
        if self._place > len(self._data) * 8:
            raise EOFError("it ends too early")
        window = int.from_bytes(self._data[first : first + 5].ljust(5, b"\0"), "big")
        return window >> (40 - skipped - count) & ((1 << count) - 1)
