"""Frozen patch features of a set of photographs, computed once and kept on disk.

A cache folder holds one folder for each encoder, image size and type, named by their hash, with shards in it
(`shards.py`). A feature's name is the SHA-256 of its photograph's bytes, so that a photograph that moves, or appears in
a second data set, is not computed again, and one that changes is. Of a run that is killed every shard that was written
stays; one that is damaged, or removed by another run, is noticed when it is read and computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.feature_work import FeatureWork, encode_shard
from patchword.alignment.photographs import Photograph, Unreadable, encode_together, in_batches, read_photograph
from patchword.alignment.shards import (
    FEATURE_TYPES,
    GIGABYTE,
    CachedFeatures,
    DamagedShardError,
    Shard,
    Stamp,
    bytes_on_disk,
    image_bytes,
    make_room,
    mark_used,
    remove_leftovers,
    shard_files,
    stamp_of,
    write_shard,
)
from patchword.config.align import AlignSettings
from patchword.data.folders import write_json
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import nearest_multiple
from patchword.models.protocols import PatchEncoder
from patchword.runs.pipeline import Chunk, Executor, Written, read_ahead
from patchword.runs.progress import Progress
from patchword.versions import decisive_versions

_log = logging.getLogger(__name__)
_FORMAT = 2  # raised when a shard, or the features that an adapter gives for the same weights, become others
_NEW = ("computed_on", "versions")  # of an identity: what earlier versions did not have in it
_OPEN_SHARDS = 64  # files held open at once; a limit of the operating system, without effect on results


class FeatureCache:
    """The features of one encoder at one image size, as a folder that grows up to a limit.

    Photographs are resized to a square, the size of the settings rounded to the nearest multiple of the patch. Several
    processes may use one cache at once: shards are written whole, under names that do not meet.

    Args:
        folder: the cache; shared by any number of encoders, sizes and data sets.
        encoder: computes what the cache does not hold.
        settings: image size, feature type, batch and shard size, limit of the cache.
    """

    def __init__(self, folder: Path, *, encoder: PatchEncoder, settings: AlignSettings) -> None:
        self.side = nearest_multiple(settings.image_size, of=encoder.record.patch_size)
        self.grid = (self.side // encoder.record.patch_size,) * 2
        self._encoder = encoder
        self.settings = settings
        self._cache = folder
        self._identity = feature_identity(encoder, side=self.side, feature_dtype=settings.feature_dtype)
        self.folder = folder / _folder_name(self._identity)
        self._shard_of: dict[str, Path] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._paths: dict[str, Path] = {}
        self._open: dict[Path, Shard] = {}
        self._known: set[Path] = set()
        self._marked: set[Path] = set()
        self._checked: dict[Path, tuple[Stamp | None, set[str]]] = {}  # what was found right in a shard as it was then
        self._batches = Batches()
        self._lock = threading.RLock()
        self._take_over_earlier()
        remove_leftovers(self.folder)
        self._look()

    def _take_over_earlier(self) -> None:
        """Go on with the features of an earlier version, which did not record what they were computed on or by."""
        told_then = {name: value for name, value in self._identity.items() if name not in _NEW}
        earlier = self._cache / _folder_name(told_then)
        if earlier.is_dir() and not self.folder.exists():
            _log.warning(
                "feature cache: %s is of an earlier version of patchword, which did not record the device; its features"
                " are used, as of this kind of device",
                earlier,
            )
            earlier.replace(self.folder)
            self._write_identity()

    def _write_identity(self) -> None:
        write_json(self.folder / "cache.json", {**self._identity, "encoder_name": self._encoder.record.name})

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

    def size_of(self, key: str) -> tuple[int, int]:
        """(height, width) of a photograph that the cache holds, before it was resized."""
        return self._sizes[key]

    @property
    def image_bytes(self) -> int:
        """Bytes on disk of the features of one photograph."""
        return image_bytes(dim=self._encoder.record.dim, grid=self.grid, feature_dtype=self.settings.feature_dtype)

    def held_bytes(self, keys: Iterable[str]) -> int:
        """Bytes of the shards that hold features of these photographs."""
        return bytes_on_disk({self._shard_of[key] for key in keys if key in self._shard_of})

    @torch.no_grad()
    def seconds_an_image(self) -> float:
        """Time of the encoder on one image; of a whole batch, per image, where that is what an accelerator needs."""
        count = 1 if self._encoder.device.type == "cpu" else self.settings.feature_batch
        grey = torch.full((count, 3, self.side, self.side), 0.5)
        encode_together(self._encoder, grey, batches=self._batches).cpu()  # warms up
        started = time.perf_counter()
        encode_together(self._encoder, grey, batches=self._batches).cpu()
        return (time.perf_counter() - started) / count

    @torch.no_grad()
    def fill(
        self,
        photographs: Iterable[tuple[str, Path]],
        *,
        progress: Progress | None = None,
        processes: Processes = ALONE,
        executor: Executor | None = None,
    ) -> dict[str, str]:
        """Compute the features that the cache does not hold yet; what was written stays when the run is stopped.

        Which photographs share a shard follows from their order alone, so that several processes, which take shards in
        turn, write the same files as one. Where the limit of the cache is reached, shards of other runs go, the least
        recently used first.

        Args:
            photographs: (content hash, path) of each.
            executor: whoever computes, where this is not one of several processes.

        Returns:
            content hash -> reason, of photographs that cannot be read.
        """
        wanted = list(photographs)
        failed: dict[str, str] = {}
        with self._lock:
            self._paths |= dict(wanted)
            self._look()
            self._mark_used(key for key, _ in wanted)
            together = processes.count > 1 or executor is not None
            missing = processes.from_first(lambda: self._missing(wanted, room_for_all=together))
            if progress is not None:
                progress.advance(len(wanted) - len(missing))
            shards = list(in_batches(missing, size=self._images_a_shard()))
            if executor is not None:
                self._fill_elsewhere(shards, executor=executor, failed=failed, progress=progress)
                return failed
            threads = self.settings.decode_threads
            decoded = read_ahead(
                self._tasks(shards[processes.index :: processes.count]), ahead=threads, threads=threads
            )
            for turn in in_batches(shards, size=processes.count):
                mine = len(turn[processes.index]) if processes.index < len(turn) else 0
                if mine:
                    self._write_shard(self._usable(islice(decoded, mine), failed=failed, progress=progress))
                processes.wait()  # so that no process is far behind, and none waits long
                if progress is not None:
                    progress.advance(sum(map(len, turn)) - mine)
            self._look()
        return dict(processes.collect(list(failed.items())))

    def read(self, keys: Sequence[str]) -> Tensor:
        """Read features (b, D, h, w), in the cache's type on the CPU; what is damaged or gone is computed again."""
        return torch.stack([self._read_one(key) for key in keys])

    def _fill_elsewhere(
        self,
        shards: Sequence[Sequence[tuple[str, Path]]],
        *,
        executor: Executor,
        failed: dict[str, str],
        progress: Progress | None,
    ) -> None:
        if shards and not (self.folder / "cache.json").exists():
            self._write_identity()

        def done(written: Written) -> None:
            count, reasons = written.result
            failed.update(reasons)
            if progress is not None:
                progress.advance(count)

        work = FeatureWork(self.folder, self._encoder, self.settings, self.side)
        executor.run([Chunk(tuple(shard), lines=len(shard)) for shard in shards], work=work, done=done)
        self._look()

    def _missing(self, wanted: Sequence[tuple[str, Path]], *, room_for_all: bool) -> list[tuple[str, Path]]:
        """The photographs that the cache does not hold, each once; for several workers there is room for all now."""
        missing: dict[str, Path] = {}
        for key, path in wanted:
            if key not in self._shard_of:
                missing.setdefault(key, path)
        if room_for_all:
            self._make_room(len(missing))
        return list(missing.items())

    def _images_a_shard(self) -> int:
        """How many photographs make a shard: whole batches of the encoder."""
        dim, batch = self._encoder.record.dim, self.settings.feature_batch
        size = dim * self.grid[0] * self.grid[1] * FEATURE_TYPES[self.settings.feature_dtype].itemsize
        images = math.ceil(self.settings.shard_megabytes * 1_000_000 / size)
        return batch * math.ceil(images / batch)

    def _tasks(
        self, shards: Iterable[Sequence[tuple[str, Path]]]
    ) -> Iterator[Callable[[], Photograph | Unreadable | None]]:
        """A task for each photograph; one that another run has written meanwhile is nothing to do."""
        for shard in shards:
            for key, path in shard:
                yield (lambda: None) if key in self._shard_of else partial(read_photograph, key, path, side=self.side)

    def _usable(
        self, decoded: Iterable[Photograph | Unreadable | None], *, failed: dict[str, str], progress: Progress | None
    ) -> Iterator[Photograph]:
        """Those that could be read and are still wanted."""
        for photograph in decoded:
            if isinstance(photograph, Unreadable):
                failed[photograph.key] = photograph.reason
            elif photograph is not None:
                yield photograph
            if progress is not None:
                progress.advance()

    def _write_shard(self, photographs: Iterable[Photograph]) -> None:
        """Encode photographs and write them to one shard; none for no photographs."""
        shard = encode_shard(photographs, encoder=self._encoder, settings=self.settings, batches=self._batches)
        if shard:
            self._write(shard)

    def _write(self, shard: dict[str, CachedFeatures]) -> None:
        """Make room for a shard, write it, and take in what others have written meanwhile."""
        if not (self.folder / "cache.json").exists():
            self._write_identity()
        self._make_room(len(shard))
        write_shard(self.folder, shard)
        self._look()

    def _make_room(self, images: int) -> None:
        """Remove shards of other runs until the features of so many photographs fit the limit."""
        in_use = {self._shard_of[key] for key in self._paths if key in self._shard_of}
        needed = images * self.image_bytes
        limit = round(self.settings.cache_gigabytes * GIGABYTE)
        for path in make_room(self._cache, needed=needed, limit=limit, keep=in_use):
            self._forget(path)

    def _look(self) -> None:
        """Take in the shards that are new: of this run, and of others that use the cache at the same time."""
        for path in shard_files(self.folder):
            if path in self._known:
                continue
            self._known.add(path)
            try:
                sizes = Shard(path).sizes  # not kept open: to know what is there is not to use it
            except DamagedShardError:
                self._drop(path)
                continue
            for key, size in sizes.items():
                self._shard_of[key], self._sizes[key] = path, size

    def _read_one(self, key: str) -> Tensor:
        with self._lock:
            for _ in range(2):
                path = self._shard_of.get(key)
                if path is None:
                    self._remake([key])
                    continue
                try:
                    return self._checked_once(path, key)
                except DamagedShardError:
                    lost = [other for other, shard in self._shard_of.items() if shard == path and other in self._paths]
                    self._drop(path)
                    self._remake([key, *(other for other in lost if other != key)])
            try:
                return self._checked_once(self._shard_of[key], key)
            except DamagedShardError:
                raise PatchwordError(f"feature cache {self.folder} is damaged as often as it is written") from None

    def _checked_once(self, path: Path, key: str) -> Tensor:
        """Features from a shard, their checksum computed once in this process, and again when the file has changed."""
        shard, stamp = self._opened(path), stamp_of(path)
        before, right = self._checked.get(path, (None, set()))
        if stamp is None or stamp != before:
            right = set()
            self._checked[path] = stamp, right
        features = shard.read(key, check=key not in right)
        right.add(key)
        return features

    def _remake(self, keys: Sequence[str]) -> None:
        """Compute features again of which the photographs are known, the first of them in any case."""
        if keys[0] not in self._paths:
            raise PatchwordError(
                f"the features of photograph {keys[0]} are not in the cache {self.folder} any more; run again"
            )
        failed = self.fill([(key, self._paths[key]) for key in keys])
        if keys[0] in failed:
            raise PatchwordError(f"features are lost and cannot be computed again: {failed[keys[0]]}")

    def _drop(self, path: Path) -> None:
        """Take a shard that cannot be used out of the cache."""
        state = "damaged" if path.exists() else "gone"
        _log.warning("feature cache: %s is %s; its features are computed again", path, state)
        path.unlink(missing_ok=True)
        self._forget(path)

    def _forget(self, path: Path) -> None:
        self._open.pop(path, None)
        self._known.discard(path)
        self._marked.discard(path)
        self._checked.pop(path, None)
        for key in [key for key, shard in self._shard_of.items() if shard == path]:
            del self._shard_of[key]

    def _mark_used(self, keys: Iterable[str]) -> None:
        """Mark the shards that hold features of a run as used now, each once; what another run removed is forgotten."""
        for path in {self._shard_of[key] for key in keys if key in self._shard_of} - self._marked:
            if mark_used(path):
                self._marked.add(path)
            else:
                self._forget(path)

    def _opened(self, path: Path) -> Shard:
        if path not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            self._open[path] = Shard(path)
            before = stamp_of(path)
            mark_used(path)
            if path in self._checked and self._checked[path][0] == before:  # the mark is no change
                self._checked[path] = stamp_of(path), self._checked[path][1]
        return self._open[path]


def feature_identity(encoder: PatchEncoder, *, side: int, feature_dtype: str) -> dict[str, object]:
    """All that features depend on besides their photograph; two runs that differ in any of it share nothing.

    Args:
        side: in pixels of the square that photographs are resized to.
    """
    record = encoder.record
    return {
        "format": _FORMAT,
        "encoder": record.fingerprint,
        "family": record.family,
        "patch_size": record.patch_size,
        "dim": record.dim,
        "mean": list(record.mean),
        "std": list(record.std),
        "computed_in": str(getattr(encoder, "dtype", "")),
        "computed_on": encoder.device.type,
        "versions": {name: found for name, found in decisive_versions().items() if name != "patchword"},
        "image_size": side,
        "feature_dtype": feature_dtype,
    }


def _folder_name(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
