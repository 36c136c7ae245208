"""Photographs as a frozen encoder takes them, and the contents of files."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from patchword.data.folders import write_json
from patchword.data.images import read_image, to_tensor
from patchword.data.storage import held, is_stored
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import resize
from patchword.models.protocols import PatchEncoder

T = TypeVar("T")


@dataclass(frozen=True)
class Photograph:
    """A photograph as the encoder takes it, (1, 3, side, side) in [0, 1], and its own (height, width)."""

    key: str
    pixels: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class Unreadable:
    """A photograph that cannot be read, and why."""

    key: str
    reason: str


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    A file is read once in a process, and again only when its size, its times or its place on the disk have changed.
    """
    if is_stored(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        stamp, now = _stamp(path), time.time_ns()
        known = _known.get(path)
        if known is not None and known.stamp == stamp:
            return known.key
        with path.open("rb") as file:
            key = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    if now - stamp[1] > _SETTLED:
        _known[path] = KnownContent(path, stamp, key)
    return key


@dataclass(frozen=True)
class KnownContent:
    """The hash of a file, and by what it is seen that the file has not changed since."""

    path: Path
    stamp: tuple[int, ...]
    key: str


def known_contents(paths: Iterable[Path]) -> list[KnownContent]:
    """What this process knows of the contents of files, to spare another process the reading."""
    return [_known[path] for path in paths if path in _known]


def remember_contents(contents: Iterable[KnownContent]) -> None:
    """Take over what another process of the run knows."""
    _known.update((each.path, each) for each in contents)


def read_contents(file: Path, paths: Iterable[Path]) -> None:
    """Take over what an earlier run knew of these files; a file that cannot be read spares nobody any work."""
    try:
        kept = json.loads(file.read_bytes())
        for path in paths:
            if told := kept.get(str(path.absolute())):
                _known.setdefault(path, KnownContent(path, tuple(map(int, told["stamp"])), str(told["sha256"])))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return


def write_contents(file: Path, paths: Iterable[Path]) -> None:
    """Keep what is known of these files for later runs."""
    known = {str(each.path.absolute()): {"stamp": each.stamp, "sha256": each.key} for each in known_contents(paths)}
    write_json(file, known)


_known: dict[Path, KnownContent] = {}


_SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again within one tick of its time of change


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def read_photograph(key: str, path: Path, *, side: int) -> Photograph | Unreadable:
    """Read a photograph and resize it to a square of so many pixels a side.

    Args:
        side: in pixels.
    """
    path = held(path)
    try:
        if content_hash(path) != key:
            return Unreadable(key, changed(path))
        return decode(key, path, side=side)
    except PatchwordError as error:
        return Unreadable(key, str(error))


def changed(path: Path) -> str:
    """What is said of a photograph that is another now."""
    return f"{path} has changed since the run began"


def decode(key: str, path: Path, *, side: int) -> Photograph:
    """Decode a photograph and resize it to a square of so many pixels a side."""
    pixels = to_tensor(read_image(path))  # (1, 3, h, w)
    return Photograph(key, resize(pixels, size=(side, side)), (pixels.shape[-2], pixels.shape[-1]))


def encode_together(encoder: PatchEncoder, images: Tensor, *, batches: Batches) -> Tensor:
    """The features (b, D, h, w) of images (b, 3, side, side), all at once or, where memory runs out, some at a time."""
    count = len(images)
    parts = batches.run(lambda start, stop: encoder(images[start:stop]), count=count, size=count, what="photographs")
    return torch.cat(parts)


def in_batches(items: Iterable[T], *, size: int) -> Iterator[list[T]]:
    """Lists of `size` items each, the last of what is left."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
