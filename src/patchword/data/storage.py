"""Paths of what no disk of this machine holds: objects that fsspec reaches by URL, such as `s3://bucket/photos/a.jpg`.

A `StoredPath` is a path like any other: names are taken from it, files are read from it and written to it. An object is
read with one request and written with one, whole or not at all. Plain paths never come here.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from patchword.errors import PatchwordError, StorageError, first_line

if sys.platform == "win32":
    from pathlib import WindowsPath as _Path
else:
    from pathlib import PosixPath as _Path

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+", re.IGNORECASE)
_SCHEME_OF_PATH = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)")  # as `Path` leaves it of a URL
_TELLING = frozenset({"size", "etag", "md5hash", "generation", "lastmodified", "mtime", "created", "updated"})
_S3 = frozenset({"s3:", "s3a:"})
_OF_OBJECTS = frozenset({*_S3, "gs:", "gcs:", "az:", "abfs:", "abfss:", "oci:", "oss:", "memory:"})  # written at once
TEMPORARY = ".patchword-{}.tmp"


def as_path(place: str | Path) -> Path:
    """The path of a file, or of what a URL stands for; `file://` is a plain path."""
    if isinstance(place, Path):
        return place
    scheme, found, rest = place.partition("://")
    if not found or not _SCHEME.fullmatch(scheme):
        return Path(place)
    if scheme.lower() == "file":
        return Path(rest)
    _check_url(place, scheme=scheme)
    return StoredPath(f"{scheme.lower()}://{rest}")


def is_stored(path: Path) -> bool:
    """Whether a path is read by requests and not from a disk."""
    return isinstance(path, StoredPath)


def held(path: Path) -> Path:
    """The same path; a stored one with its bytes, fetched once for all who read them. Where there are none it is left
    as it is, for the reader to say why."""
    try:
        return path.holding() if isinstance(path, StoredPath) else path
    except OSError:
        return path


def beginning(path: Path, size: int) -> Path:
    """The same path; a stored one with its first bytes alone, as if it ended there."""
    if not isinstance(path, StoredPath):
        return path
    try:
        return path.holding(size)
    except StorageError:  # of an empty object there is no beginning
        return path.holding()


def opened(path: Path) -> Path | IO[bytes]:
    """What decoders open: a path, or the bytes of a stored one."""
    return path.open("rb") if isinstance(path, StoredPath) else path


def _check_url(url: str, *, scheme: str) -> None:
    """Refuse URLs that cannot be used, without repeating what may be secret in them."""
    place = url.partition("://")[2]
    server = place.partition("/")[0]
    if "@" in server or (scheme.startswith("http") and "?" in place):
        shown = f"{scheme}://{server.rpartition('@')[2]}/..."
        raise PatchwordError(
            f"the URL {shown} has credentials in it, which would be written into records; leave them out and set them "
            "in the environment, as fsspec and the tools of the store do"
        )
    if "::" in url:
        raise PatchwordError(f"{url} is several URLs in one; give the URL of a folder, an object or a pattern")
    if not server:
        raise PatchwordError(f"{url} names no bucket; give {scheme}://BUCKET/FOLDER")
    try:
        import fsspec
    except ImportError:
        raise PatchwordError(f"{url} needs the package fsspec; install patchword[storage]") from None
    try:
        fsspec.get_filesystem_class(scheme.lower())
    except (ImportError, ValueError) as error:
        raise PatchwordError(f"{url} cannot be used: {first_line(error)}") from None


class StoredPath(_Path):
    """A path below a URL. What it cannot do on a store, such as to be changed in place, ends as an `OSError`."""

    _held: bytes | None = None

    def holding(self, size: int | None = None) -> Self:
        """A path of the same name that has its bytes, all or the first `size`, and needs no request any more."""
        if self._held is not None:
            return self
        same = type(self)(str(self))
        same._held = self._fetch(0, size)
        return same

    def _fetch(self, start: int, stop: int | None) -> bytes:
        try:
            with reaching(self):
                store, key = self._store()
                data: bytes = store.cat_file(
                    key, **({"start": start, "end": stop} if start or stop is not None else {})
                )
                return data
        except FileNotFoundError:
            raise FileNotFoundError(2, "no such object", str(self)) from None

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes from `start` to `stop`, by one request."""
        return self._fetch(start, stop)

    def version(self) -> str:
        """By what it is seen that an object has changed, as far as its store tells."""
        found = self._info() or {}
        return " ".join(f"{key}={found[key]}" for key in sorted(found) if key.lower() in _TELLING)

    def _store(self) -> tuple[Any, str]:
        import fsspec.core

        options = {"max_concurrency": 1} if self.parts[0] in _S3 else {}  # else the size is asked for before each read
        server = "/".join(str(self).split("/", 3)[:3])  # in a whole URL `::` would have a meaning
        store, _ = fsspec.core.url_to_fs(server, use_listings_cache=False, **options)
        return store, str(store._strip_protocol(str(self))).rstrip("/")

    def _info(self) -> dict[str, Any] | None:
        try:
            with reaching(self):
                store, key = self._store()
                found: dict[str, Any] = store.info(key)
                return found
        except FileNotFoundError:
            return None

    def __str__(self) -> str:
        text = super().__str__().replace("\\", "/") if sys.platform == "win32" else super().__str__()
        return _SCHEME_OF_PATH.sub(r"\1://", text, count=1) if _SCHEME_OF_PATH.match(text) else text

    def __fspath__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (str(self),)

    def as_posix(self) -> str:
        return str(self)

    def relative_to(self, *other: Any, **_: Any) -> Any:
        """The rest of a path, which is a plain one."""
        return PurePosixPath(*self.parts).relative_to(PurePosixPath(*Path(*other).parts))

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> Self:
        return self

    def resolve(self, strict: bool = False) -> Self:
        return self

    def expanduser(self) -> Self:
        return self

    def is_symlink(self) -> bool:
        return False

    def exists(self, **_: Any) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        if self._held is not None:
            return True
        found = self._info()
        return found is not None and found["type"] == "file"

    def is_dir(self, **_: Any) -> bool:
        if self._held is not None:
            return False
        try:
            with reaching(self):
                store, key = self._store()
                if _is_s3(store):  # fsspec would list all that is in it
                    return next(_keys_of_s3(store, f"{key}/", at_once=1), None) is not None
                return bool(store.isdir(key))
        except FileNotFoundError:  # not even a bucket
            return False

    def stat(self, **_: Any) -> os.stat_result:
        size = len(self._held) if self._held is not None else None
        if size is None:
            found = self._info()
            if found is None:
                raise FileNotFoundError(2, "No such object", str(self))
            size = int(found.get("size") or 0)
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Only for reading bytes, which are fetched whole."""
        if mode != "rb":
            raise OSError(95, f"cannot be opened as {mode!r} on a store of objects", str(self))
        return io.BytesIO(self.read_bytes())

    def read_bytes(self) -> bytes:
        return self._held if self._held is not None else self._fetch(0, None)

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def put(self, data: bytes) -> None:
        """Write the object, whole or not at all; where the store has files, by another name that is changed at last."""
        with reaching(self):
            store, key = self._store()
            if self._is_of_objects():
                store.pipe_file(key, data)
                return
            folder = key.rpartition("/")[0]
            temporary = f"{folder}/{TEMPORARY.format(secrets.token_hex(8))}"
            store.makedirs(folder, exist_ok=True)
            store.pipe_file(temporary, data)
            store.mv(temporary, key)

    def _is_of_objects(self) -> bool:
        return self.parts[0] in _OF_OBJECTS

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Objects need no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with reaching(self):
                store, key = self._store()
                store.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_all(self, *, but: str) -> None:
        """Remove what is below, those at the top first and one of them not at all."""
        names = sorted(self.names(), key=lambda name: ("/" in name, name))
        with reaching(self):
            store, key = self._store()
            keys = [f"{key}/{name}" for name in names if name != but]
            for start in range(0, len(keys), 1000):
                store.rm(keys[start : start + 1000])

    def remove_leftovers(self) -> None:
        """Remove files with another name than they were to have."""
        for name in [] if self._is_of_objects() else list(self.names()):
            if PurePosixPath(name).match(TEMPORARY.format("*")):
                (self / name).unlink(missing_ok=True)

    def matching(self) -> list[Path]:
        """The objects of a pattern such as `s3://bucket/photos/*.jpg`, sorted."""
        with reaching(self):
            store, key = self._store()
            return sorted(StoredPath(store.unstrip_protocol(found)) for found in store.glob(key))

    def names(self) -> Iterator[str]:
        """The names of all objects below, relative to this one, as the store lists them.

        A name that no file could have, such as one with `//` or `..` in it, is left out.
        """
        with reaching(self):
            store, key = self._store()
            prefix = f"{key}/"
            for found in _keys_of_s3(store, prefix) if _is_s3(store) else map(str, store.find(key)):
                name = found[len(prefix) :]
                if name and PurePosixPath(name).as_posix() == name and ".." not in name.split("/"):
                    yield name


def _is_s3(store: Any) -> bool:
    return hasattr(store, "call_s3")


def _keys_of_s3(store: Any, prefix: str, *, at_once: int = 1000) -> Iterator[str]:
    """Keys below a prefix, page by page, of which fsspec's own listing keeps a record of a kilobyte each."""
    bucket, _, folder = prefix.partition("/")
    more: dict[str, str] = {}
    while True:
        page = store.call_s3("list_objects_v2", Bucket=bucket, Prefix=folder, MaxKeys=at_once, **more)
        for each in page.get("Contents", ()):
            yield f"{bucket}/{each['Key']}"
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Errors of a store as one that ends the run; that there is no such object is left to the caller."""
    try:
        yield
    except (FileNotFoundError, PatchwordError, GeneratorExit):
        raise
    except Exception as error:  # each store has its own
        raise StorageError(f"cannot reach {path}: {first_line(error)}; --resume goes on when it can be") from None


def find_stored(
    folder: StoredPath, *, extensions: frozenset[str], marker: str, skipped: Counter[str]
) -> tuple[list[str], list[str]]:
    """The names of photographs and of tar files below a URL, each sorted, by a listing that is gone through once.

    Hidden objects do not count, and neither does what lies in a folder that has a `marker`.
    """
    found: list[str] = []
    shards: list[str] = []
    results: set[str] = set()
    for name in folder.names():
        inside, _, last = name.rpartition("/")
        if last == marker:
            results.add(inside)
        if name.startswith(".") or "/." in name:
            continue
        suffix = PurePosixPath(last).suffix.lower()
        if suffix in extensions:
            found.append(name)
        elif last.endswith(".tar"):
            shards.append(name)
        else:
            skipped[suffix or "without an extension"] += 1
    if results:
        inner = tuple(f"{each}/" if each else "" for each in sorted(results))
        there = len(found)
        found = [name for name in found if not name.startswith(inner)]
        skipped["in results of patchword"] += there - len(found)
    found.sort()
    return found, sorted(shards)
