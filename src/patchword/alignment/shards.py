"""One file of the feature cache: features by photograph, each with a checksum; and room for the next.

A shard is a safetensors file named by the hash of what it holds. Its metadata has, for each photograph, its size in
pixels and a CRC-32 over key, size, shape, type and values, so that no flipped bit is ever taken for a feature.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from patchword.data.folders import write_bytes
from patchword.errors import PatchwordError

SUFFIX = ".safetensors"
_NAME = re.compile(r"[0-9a-f]{16}" + re.escape(SUFFIX))
_LEFTOVER = ".patchword-*.tmp"
_JUST_NOW = 60.0  # seconds
_LEFTOVER_AGE = 3600.0  # seconds; a shard is written in far less, so that an older part of one belongs to nobody


class DamagedShardError(Exception):
    """A shard that cannot be read, or does not hold what it held when it was written."""


@dataclass(frozen=True)
class CachedFeatures:
    """Features (D, h, w) of a photograph on the CPU, and its (height, width) in pixels before it was resized."""

    features: Tensor
    size: tuple[int, int]


class Shard:
    """A shard on disk, open for reading.

    Args:
        path: the file.

    Raises:
        DamagedShardError: when the file is gone or is no whole shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = cast("Any", safe_open(path, framework="pt"))
            metadata: dict[str, str] = self._file.metadata() or {}
            self._entries = {key: _Entry.parse(metadata[key]) for key in self._file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError):
            raise DamagedShardError(path) from None

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) of each photograph that it holds, by key."""
        return {key: entry.size for key, entry in self._entries.items()}

    def read(self, key: str, *, check: bool = True) -> Tensor:
        """The features (D, h, w) of one photograph that it holds; `check` whether they are what was written.

        Raises:
            DamagedShardError: when they are not what was written.
        """
        entry = self._entries[key]
        try:
            features: Tensor = self._file.get_tensor(key)
        except SafetensorError:
            raise DamagedShardError(self.path) from None
        if check and _checksum(key, CachedFeatures(features, entry.size)) != entry.checksum:
            raise DamagedShardError(self.path)
        return features


@dataclass(frozen=True)
class _Entry:
    size: tuple[int, int]
    checksum: int

    @classmethod
    def parse(cls, text: str) -> _Entry:
        height, width, checksum = text.split()
        return cls((int(height), int(width)), int(checksum, 16))


def write_shard(folder: Path, entries: Mapping[str, CachedFeatures]) -> Path:
    """Write features under the hash of their keys, whole or not at all, so that runs side by side do not meet."""
    path = folder / (hashlib.sha256("".join(sorted(entries)).encode()).hexdigest()[:16] + SUFFIX)
    metadata = {key: f"{entry.size[0]} {entry.size[1]} {_checksum(key, entry):08x}" for key, entry in entries.items()}
    tensors = {key: entry.features.contiguous() for key, entry in entries.items()}
    write_bytes(path, _in_order(save(tensors, metadata=metadata)))
    return path


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted, which the library writes in an order of chance."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([data[:8], text.ljust(length), data[8 + length :]])


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, by name; whatever else lies there is nobody's business."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))


Stamp = tuple[int, int, int]


def stamp_of(shard: Path) -> Stamp | None:
    """What changes when a shard is written again or in part; None where it is gone."""
    try:
        status = shard.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def mark_used(shard: Path) -> bool:
    """Set the time of a shard's last use, which is its time of change, to now; False where it is gone.

    Within a minute it is left as it is: that is near enough, and readers take a shard that changes for a new one.
    """
    try:
        if not 0 <= time.time() - shard.stat().st_mtime < _JUST_NOW:
            os.utime(shard)
    except FileNotFoundError:
        return False
    except OSError:  # of another user, or a disk that cannot be written: it is only not marked
        return True
    return True


def bytes_held(cache: Path) -> int:
    """Bytes of all shards of a cache, of whatever encoder."""
    return sum(size for _, size, _ in _by_last_use(cache))


def bytes_on_disk(shards: Iterable[Path]) -> int:
    """Bytes of these shards; one that another run removes in this moment counts as none."""
    total = 0
    for path in shards:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def make_room(cache: Path, *, needed: int, limit: int, keep: Collection[Path]) -> list[Path]:
    """Remove the least recently used shards of a cache until so many bytes more stay within the limit."""
    shards = _by_last_use(cache)
    held = sum(size for _, size, _ in shards)
    removed = []
    for _, size, path in shards:
        if held + needed <= limit:
            break
        if path not in keep:
            path.unlink(missing_ok=True)
            removed.append(path)
            held -= size
    if held + needed > limit:
        raise PatchwordError(
            f"the feature cache {cache} may hold {limit:,} bytes, has {held:,} in use and needs {needed:,} more; "
            "use a higher `cache_gigabytes` or `features` online"
        )
    return removed


def remove_leftovers(folder: Path, *, now: float | None = None) -> None:
    """Remove parts of shards that a killed run has left, but none that another run may be writing."""
    moment = time.time() if now is None else now
    for path in folder.glob(_LEFTOVER):
        with suppress(OSError):
            if moment - path.stat().st_mtime > _LEFTOVER_AGE:
                path.unlink(missing_ok=True)


def _by_last_use(cache: Path) -> list[tuple[float, int, Path]]:
    """Time of last use, bytes and path of every shard of a cache, the least recently used first."""
    found = []
    for folder in cache.iterdir() if cache.is_dir() else ():
        for path in shard_files(folder):
            with suppress(OSError):  # removed by another run in this moment
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    return sorted(found)


def _checksum(key: str, entry: CachedFeatures) -> int:
    features = entry.features.contiguous()
    what = f"{key} {entry.size[0]} {entry.size[1]} {tuple(features.shape)} {features.dtype}"
    return zlib.crc32(features.view(uint8).numpy().reshape(-1).data, zlib.crc32(what.encode()))


GIGABYTE = 1_000_000_000
FEATURE_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_ENTRY = 250  # bytes of a feature's name, place and checksum in its shard; a little more than there are


def image_bytes(*, dim: int, grid: tuple[int, int], feature_dtype: str) -> int:
    """Bytes on disk of the features (dim, rows, columns) of one photograph."""
    return dim * grid[0] * grid[1] * FEATURE_TYPES[feature_dtype].itemsize + _ENTRY
