"""Frozen patch features of a set of photographs, computed once and kept on disk.

A cache folder holds one folder for each encoder, image size and type, named by their hash, with safetensors files
("shards") in it. A feature's name in a shard is the SHA-256 of its photograph's bytes, so that a photograph that moves,
or appears in a second data set, is not computed again, and one that changes is.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from patchword.align.settings import AlignSettings
from patchword.errors import PatchwordError
from patchword.folders import write_bytes, write_json
from patchword.images import read_image, to_tensor
from patchword.models.pixels import nearest_multiple, resize
from patchword.models.protocols import PatchEncoder
from patchword.progress import Progress

T = TypeVar("T")

_FORMAT = 1
_OPEN_SHARDS = 64  # files held open at once; a limit of the operating system, without effect on results
_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        PatchwordError: when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None


@dataclass(frozen=True)
class ImageSize:
    """Size of a photograph in pixels, upright."""

    height: int
    width: int


class FeatureCache:
    """The features of one encoder at one image size, as a folder that grows.

    Photographs are resized to a square, the size of the settings rounded to the nearest multiple of the patch.

    Args:
        folder: the cache; shared by any number of encoders, sizes and data sets.
        encoder: computes what the cache does not hold.
        settings: image size, feature type, batch and shard size.

    Raises:
        PatchwordError: when a shard is damaged.
    """

    def __init__(self, folder: Path, *, encoder: PatchEncoder, settings: AlignSettings) -> None:
        self.side = nearest_multiple(settings.image_size, of=encoder.record.patch_size)
        self.grid = (self.side // encoder.record.patch_size,) * 2
        self._encoder = encoder
        self._settings = settings
        identity = {
            "format": _FORMAT,
            "encoder": encoder.record.fingerprint,
            "image_size": self.side,
            "feature_dtype": settings.feature_dtype,
        }
        self.folder = folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._identity = {**identity, "encoder_name": encoder.record.name}
        self._shard_of: dict[str, Path] = {}
        self._sizes: dict[str, ImageSize] = {}
        self._open: dict[Path, Any] = {}
        for shard in sorted(self.folder.glob("*.safetensors")):
            self._add(shard)

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

    def size_of(self, key: str) -> ImageSize:
        """The size of a photograph that the cache holds, as it was before resizing."""
        return self._sizes[key]

    @torch.no_grad()
    def fill(self, photographs: Iterable[tuple[str, Path]], *, progress: Progress | None = None) -> dict[str, str]:
        """Compute the features that the cache does not hold yet; what was written stays when the run is stopped.

        Args:
            photographs: (content hash, path) of each.
            progress: advanced by one for every photograph.

        Returns:
            content hash -> reason, of photographs that cannot be read.

        Raises:
            PatchwordError: when features are too large for their type, or a file cannot be written.
        """
        failed: dict[str, str] = {}
        shard: dict[str, Tensor] = {}
        sizes: dict[str, ImageSize] = {}
        for batch in _batches(
            self._decode(photographs, failed=failed, progress=progress), self._settings.feature_batch
        ):
            encoded = self._encode(torch.cat([decoded.pixels for decoded in batch]))  # (b, D, h, w)
            for decoded, features in zip(batch, encoded, strict=True):
                shard[decoded.key], sizes[decoded.key] = features, decoded.size
            if sum(features.nbytes for features in shard.values()) >= self._settings.shard_megabytes * 1_000_000:
                self._write(shard, sizes)
                shard, sizes = {}, {}
        if shard:
            self._write(shard, sizes)
        return failed

    def read(self, keys: Sequence[str]) -> Tensor:
        """Read the features of photographs.

        Args:
            keys: content hashes, all in the cache.

        Returns:
            (b, D, h, w) in the cache's type, on the CPU.

        Raises:
            PatchwordError: when a shard is damaged.
        """
        return torch.stack([self._read_one(key) for key in keys])

    def _decode(
        self, photographs: Iterable[tuple[str, Path]], *, failed: dict[str, str], progress: Progress | None
    ) -> Iterator[_Decoded]:
        """The photographs that the cache does not hold, each once, in their order."""
        for decoded in in_order(self._read_new(photographs), threads=self._settings.decode_threads):
            if isinstance(decoded, _Failed):
                failed[decoded.key] = decoded.reason
            elif decoded is not None:
                yield decoded
            if progress is not None:
                progress.advance()

    def _read_new(self, photographs: Iterable[tuple[str, Path]]) -> Iterator[Callable[[], _Decoded | _Failed | None]]:
        """A task for each photograph; one that the cache holds, or that came before, is nothing to do."""
        seen: set[str] = set()
        for key, path in photographs:
            known = key in self._shard_of or key in seen
            seen.add(key)
            yield (lambda: None) if known else partial(_decode_one, key, path, side=self.side)

    def _encode(self, images: Tensor) -> Tensor:
        features = self._encoder(images).to(_TYPES[self._settings.feature_dtype]).cpu()
        if not torch.isfinite(features).all():
            raise PatchwordError(
                f"features of {self._encoder.record.name} do not fit {self._settings.feature_dtype} or are not finite; "
                "allowed settings of feature_dtype with more room are bfloat16 and float32"
            )
        return features

    def _write(self, shard: dict[str, Tensor], sizes: dict[str, ImageSize]) -> None:
        """Write a shard under the hash of what it holds, so that runs side by side do not meet."""
        if not (self.folder / "cache.json").exists():
            write_json(self.folder / "cache.json", self._identity)
        path = self.folder / f"{hashlib.sha256(''.join(sorted(shard)).encode()).hexdigest()[:16]}.safetensors"
        metadata = {key: f"{size.height} {size.width}" for key, size in sizes.items()}
        write_bytes(path, save({key: features.contiguous() for key, features in shard.items()}, metadata=metadata))
        self._add(path)

    def _add(self, shard: Path) -> None:
        metadata = self._opened(shard).metadata() or {}
        for key in self._opened(shard).keys():  # noqa: SIM118 - a file, not a dict
            try:
                height, width = (int(side) for side in metadata[key].split())
            except (KeyError, ValueError):
                raise _damaged(shard) from None
            self._shard_of[key], self._sizes[key] = shard, ImageSize(height, width)

    def _read_one(self, key: str) -> Tensor:
        shard = self._shard_of[key]
        try:
            return self._opened(shard).get_tensor(key)  # type: ignore[no-any-return]
        except SafetensorError:
            raise _damaged(shard) from None

    def _opened(self, shard: Path) -> Any:
        if shard not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            try:
                self._open[shard] = safe_open(shard, framework="pt")
            except (SafetensorError, OSError):
                raise _damaged(shard) from None
        return self._open[shard]


@dataclass(frozen=True)
class _Decoded:
    """A photograph as the encoder takes it, (1, 3, side, side), and its own size."""

    key: str
    pixels: Tensor
    size: ImageSize


@dataclass(frozen=True)
class _Failed:
    key: str
    reason: str


def _decode_one(key: str, path: Path, *, side: int) -> _Decoded | _Failed:
    try:
        pixels = to_tensor(read_image(path))  # (1, 3, h, w)
    except PatchwordError as error:
        return _Failed(key, str(error))
    return _Decoded(key, resize(pixels, size=(side, side)), ImageSize(*pixels.shape[-2:]))


def in_order(tasks: Iterable[Callable[[], T]], *, threads: int) -> Iterator[T]:
    """Run tasks in threads, a few ahead of their use, and give their results in the order of the tasks.

    Args:
        tasks: taken as they are needed.
        threads: at least 1; twice as many results wait at most.
    """
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="patchword-decode") as pool:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _damaged(shard: Path) -> PatchwordError:
    return PatchwordError(f"feature cache {shard} is damaged; delete that file and run again")


def _batches(items: Iterable[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
