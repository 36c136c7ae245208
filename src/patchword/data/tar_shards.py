"""Photographs in tar files, in the layout of WebDataset: read where they lie, by an index of offsets that is made once.

Reference: github.com/webdataset/webdataset. A file `a/b.seg.png` in a shard is the part `seg.png` of the sample `a/b`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, cast

from patchword.data.folders import cache_folder, write_text
from patchword.data.storage import StoredPath, as_path, is_stored
from patchword.errors import PatchwordError, WriteError, warn

SUFFIX = ".tar"
_INTO_SHARD = re.compile(r"\.tar(?=/.)", re.DOTALL)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_TAR_BLOCK = 512  # bytes
_BLOCK = 8 << 20  # bytes of a stored shard that are fetched at once
_BLOCKS, _INDICES = 4, 64  # that are in memory
_VERSION = 1  # of an index that is kept
_CUT_OFF = "the tar file is cut off or damaged"
_lock = threading.RLock()  # what several threads want at once is fetched once


@dataclass(frozen=True)
class ShardIndex:
    """Where the photographs of a tar file are.

    Attributes:
        members: name -> offset and size in bytes, in the order of the file.
        left_out: what else was there: kind -> how many.
        trouble: what is wrong with the file as a whole; "" for nothing.
        size: of the file, in bytes.
    """

    members: dict[str, tuple[int, int]]
    left_out: dict[str, int]
    trouble: str
    size: int


class ShardMember(StoredPath):
    """A photograph in a tar file on a disk or on a store, such as `photos/000.tar/a.jpg`."""

    def _fetch(self, start: int, stop: int | None) -> bytes:
        shard, name = _split(self)
        index = index_of(shard)
        place = index.members.get(name)
        if place is None:
            raise FileNotFoundError(2, f"no such photograph in {shard.name}", str(self))
        first, size = place[0] + start, place[1] - start
        wanted = size if stop is None else min(stop - start, size)
        data = _read(shard, first, min(first + wanted, index.size), of=index.size)
        if len(data) < wanted:
            raise OSError(5, f"{shard.name} is cut off", str(self))
        return data

    def _info(self) -> dict[str, Any] | None:
        shard, name = _split(self)
        place = index_of(shard).members.get(name) if shard.is_file() else None
        return None if place is None else {"type": "file", "size": place[1]}

    def is_dir(self, **_: Any) -> bool:
        return False


def photograph_at(root: Path, name: str) -> Path:
    """Where a photograph is that has a name below a folder: a file, an object, or a part of a tar file."""
    path = root / PurePosixPath(name)
    if f"{SUFFIX}/" not in name or (not is_stored(root) and path.exists()):
        return path
    return ShardMember(str(path))


def absent(root: Path, names: Iterable[str]) -> frozenset[str]:
    """Which of some photographs are not there; below a URL one listing tells."""
    if not is_stored(root):
        return frozenset(name for name in names if not photograph_at(root, name).is_file())
    left = set(names)
    for name in cast(StoredPath, root).names():
        left.discard(name)
    return frozenset(name for name in left if f"{SUFFIX}/" not in name or not photograph_at(root, name).is_file())


def _split(path: Path) -> tuple[Path, str]:
    """The tar file that a path leads into, and the name in it."""
    text = str(path)
    for found in _INTO_SHARD.finditer(text):
        shard = as_path(text[: found.end()])
        if is_stored(shard) or not shard.is_dir():  # a folder may be called so
            return shard, text[found.end() + 1 :]
    raise FileNotFoundError(2, "not in a tar file", text)


def expand_braces(pattern: str) -> list[str]:
    """The names that `photos/{000..119}.tar` or `{a,b}.tar` stands for."""
    pieces, end = [], 0
    for found in _BRACES.finditer(pattern):
        first, last, words = found.groups()
        if first is None:
            choices = words.split(",")
        else:
            choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        pieces += [[pattern[end : found.start()]], choices]
        end = found.end()
    return ["".join(each) for each in product(*pieces, [pattern[end:]])]


def find_in_shard(shard: Path, *, extensions: frozenset[str], skipped: Counter[str]) -> list[Path]:
    """The photographs of a tar file, in its order.

    A file is one where what stands behind the first dot of its name is an extension of photographs: of `a.jpg` and
    `a.mask.png` the first one. What is wrong with the file is said in a warning.
    """
    if is_stored(shard):
        with _lock:
            _index.cache_clear()  # what is known of it may be of an earlier run
    index = index_of(shard)
    if index.trouble:
        warn(f"{shard}: {index.trouble}")
        skipped["damaged tar files"] += 1
    skipped.update(index.left_out)
    taken, keys = [], set[str]()
    for name in index.members:
        key, suffix = _key(name)
        if suffix not in extensions:
            skipped[suffix or "without an extension"] += 1
        elif key in keys:
            skipped["in tar files, with the key of another photograph"] += 1
        else:
            keys.add(key)
            taken.append(ShardMember(f"{shard}/{name}"))
    return list[Path](taken)


def _key(name: str) -> tuple[str, str]:
    """The key of the sample that a file is of, and its extension: all from the first dot of the name on."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{suffix}".lower()


def index_of(shard: Path) -> ShardIndex:
    """The index of a tar file; of a stored one, which is looked at once, it may be older than the file."""
    with _lock:
        return _index(shard, None if is_stored(shard) else _stamp(shard))


def _stamp(shard: Path) -> str:
    """By what it is seen that a tar file has changed."""
    if isinstance(shard, StoredPath):
        return shard.version()
    status = shard.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


@lru_cache(maxsize=_INDICES)
def _index(shard: Path, stamp: str | None) -> ShardIndex:
    folder = cache_folder()
    if folder is None:
        return _made(shard)
    place = f"{shard.absolute()} {stamp or _stamp(shard)}"
    kept = folder / "shards" / f"{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    try:
        values = json.loads(kept.read_bytes())
        if values.pop("version") == _VERSION:
            members = {name: (int(offset), int(size)) for name, (offset, size) in values.pop("members").items()}
            return ShardIndex(members, **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not there or damaged: made again
    index = _made(shard)
    with suppress(WriteError):  # a cache that cannot be written spares nothing, and harms nothing
        write_text(kept, json.dumps({"version": _VERSION, **asdict(index)}))
    return index


def _made(shard: Path) -> ShardIndex:
    """Go through a tar file once, from head to head."""
    size = shard.stat().st_size
    members: dict[str, tuple[int, int]] = {}
    left_out = Counter[str]()
    seen, trouble = 0, ""
    with io.BufferedReader(_Reader(shard, size)) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
                while (member := tar.next()) is not None:
                    seen += 1
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    name = member.name.removeprefix("./")
                    if member.isdir():
                        continue
                    if member.type not in tarfile.REGULAR_TYPES or member.issparse():
                        left_out["links and the like in tar files"] += 1
                    elif not _is_safe(name):
                        left_out["in tar files, with a path that leads out of them"] += 1
                    elif name in members:
                        left_out["in tar files, twice with one name"] += 1
                    elif not PurePosixPath(name).name.startswith("."):
                        members[name] = (member.offset_data, member.size)
                file.seek(tar.offset)
                if file.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):  # tarfile takes anything for the end
                    trouble = _CUT_OFF
        except PatchwordError:
            raise
        except (tarfile.TarError, OSError, ValueError, EOFError):
            trouble = _CUT_OFF if seen else "not a tar file that can be read"
    return ShardIndex(members, dict(left_out), trouble, size)


def _is_safe(name: str) -> bool:
    return bool(name) and not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))


class _Reader(io.RawIOBase):
    """A tar file as something that is read and sought in."""

    def __init__(self, shard: Path, size: int) -> None:
        self._shard, self._size, self._place = shard, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        data = _read(self._shard, self._place, min(self._place + len(buffer), self._size), of=self._size)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _read(shard: Path, start: int, stop: int, *, of: int) -> bytes:
    """Bytes of a tar file; of a stored one in blocks that many photographs share."""
    if stop <= start:
        return b""
    if not isinstance(shard, StoredPath):
        with shard.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    numbers = range(start // _BLOCK, (stop - 1) // _BLOCK + 1)
    with _lock:
        data = b"".join(_block(shard, number, of) for number in numbers)
    offset = numbers[0] * _BLOCK
    return data[start - offset : stop - offset]


@lru_cache(maxsize=_BLOCKS)
def _block(shard: StoredPath, number: int, size: int) -> bytes:
    return shard.read_range(number * _BLOCK, min((number + 1) * _BLOCK, size))
