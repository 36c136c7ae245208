"""Photographs of a run: decoded ahead, written behind, told apart by name and content."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from patchword.data.images import read_image
from patchword.data.storage import held
from patchword.errors import PatchwordError, StorageError, printable
from patchword.runs.progress import Progress, photograph_count
from patchword.runs.records import LineRecord

_THREADS = 4  # that read at once; a disk is kept busy, and hashing is faster than most


def content_of(path: Path) -> str | None:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; None for what is no file or cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for; the reader says what is wrong
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def contents_of(paths: Iterable[Path], *, quiet: bool = True) -> dict[Path, str | None]:
    """What `content_of` says of files, each read once, with progress on standard error."""
    files = list(dict.fromkeys(paths))
    found: dict[Path, str | None] = {}
    tasks = (partial(content_of, path) for path in files)
    with (
        Progress(len(files), "checking photographs", "files", quiet=quiet) as progress,
        closing(read_ahead(tasks, threads=_THREADS)) as contents,
    ):
        for path, content in zip(files, contents, strict=True):
            found[path] = content
            progress.advance()
    return found


def told(names: Sequence[str], one: str, *, more: str = "") -> str:
    """`1 photograph is gone: a.jpg`, or `2 photographs are gone, such as a.jpg`.

    Args:
        names: of the photographs, at least one.
        one: what is said of a single one.
        more: what is said of several; the same by default.
    """
    if len(names) == 1:
        return f"{photograph_count(1)} {one}: {names[0]}"
    return f"{photograph_count(len(names))} {more or one}, such as {min(names)}"


T = TypeVar("T")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """A photograph that was read.

    Attributes:
        name: path relative to the photographs' folder, with forward slashes.
        path: where it is.
        pixels: (h, w, 3), or why there are none.
        content: sha256 of the file; none when it could not be read.
    """

    name: str
    path: Path
    pixels: Pixels | PatchwordError
    content: str | None


def read_ahead(tasks: Iterable[Callable[[], T]], *, ahead: int = 2, threads: int = 1) -> Generator[T, None, None]:
    """Do tasks in threads while the caller works on the results before; results come in the order of the tasks.

    Args:
        tasks: taken as they are needed, in the caller's thread; with one thread they may share what they read from.
        ahead: most results that wait, 1 or more; bounds the memory.
        threads: tasks that are done at once, 1 or more.
    """
    waiting = iter(tasks)
    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="patchword-decode")
    try:
        under_way = deque(pool.submit(task) for task in islice(waiting, max(1, ahead) + max(1, threads)))
        while under_way:
            first = under_way.popleft().result()
            under_way.extend(pool.submit(task) for task in islice(waiting, 1))
            yield first
    finally:
        pool.shutdown(cancel_futures=True)


def decoded(
    photographs: Iterable[tuple[str, Path]],
    *,
    read: Callable[[Path], Pixels] = read_image,
    ahead: int = 2,
    threads: int = 1,
) -> Generator[Photograph, None, None]:
    """Read photographs ahead of their use, in order, each with its pixels or with the reason why it cannot be read.

    Args:
        photographs: name and path.
        read: turns a path into pixels (h, w, 3).
        ahead, threads: as of `read_ahead`.
    """
    tasks = (partial(read_photograph, name, path, read=read) for name, path in photographs)
    return read_ahead(tasks, ahead=ahead, threads=threads)


def read_photograph(name: str, path: Path, *, read: Callable[[Path], Pixels] = read_image) -> Photograph:
    """Read a photograph; what is wrong with it is in the place of its pixels."""
    content = None
    try:
        whole = held(path)  # what is stored elsewhere is fetched once, to be hashed and decoded
        content = content_of(whole)
        return Photograph(name, path, read(whole), content)
    except StorageError:
        raise
    except PatchwordError as error:
        return Photograph(name, path, error, content)
    except (OSError, MemoryError) as error:  # a file that vanished, or too little memory for this one
        reason = f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}"
        return Photograph(name, path, PatchwordError(reason), content)


class Writer(Generic[T]):
    """Works on items in a thread while the caller makes the next ones.

    Leaving the block waits until everything that was handed over is written, also when the block was left by an
    interruption: what the models have finished is not lost. The first error ends the work; nothing after it is written.

    Args:
        write: what is done with an item.
        waiting: most items that wait, 1 or more; bounds the memory.
    """

    def __init__(self, write: Callable[[T], None], *, waiting: int = 2) -> None:
        self._write = write
        self._items: Queue[T | None] = Queue(maxsize=max(1, waiting))
        self._error: Exception | None = None
        # a thread that is killed with the process leaves no half-written file, so none has to wait for it
        self._thread = threading.Thread(target=self._work, name="patchword-write", daemon=True)

    def put(self, item: T) -> None:
        """Hand over an item; waits while too many do."""
        self._check()
        self._items.put(item)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._items.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            if self._error is None:
                try:
                    self._write(item)
                except Exception as error:  # handed to the caller; what waits is taken and dropped, so that none blocks
                    self._error = error
            del item


@dataclass(frozen=True)
class Chunk:
    """Photographs that go to the models together, told so that any worker can do them.

    Attributes:
        photographs: name and path of each.
        lines: how many lines of the manifest are likely to come of it.
        done: names of those lines that an earlier run has written.
    """

    photographs: tuple[tuple[str, Path], ...]
    lines: int
    done: frozenset[str] = frozenset()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.done) >= self.lines


@dataclass(frozen=True)
class Written:
    """What became of a photograph on disk.

    Attributes:
        record: its line of the manifest.
        counted: whether it is an image; of a video as a whole the frames are.
        beside: lines of other files of the folder, by their names.
        unexpected: lines by which a chunk had more than `Chunk.lines`, or fewer.
        result: what the caller wants to have beside.
    """

    record: LineRecord
    counted: bool = True
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unexpected: int = 0
    result: Any = None


class Work(Protocol[T]):
    """What a command does with photographs.

    It holds models, settings and where to write, and nothing that is open or that counts: a worker in another process
    makes its own, and with a `Chunk` does what would have been done here (`do_chunk`).
    """

    def read(self, path: Path, /) -> Pixels:
        """Read a photograph; in threads, ahead."""

    def process(self, photographs: list[Photograph], /, *, chunk: Chunk) -> Iterable[T]:
        """Show a chunk to the models; in the thread of the caller."""

    def write(self, made: T, /) -> Written:
        """Write the files of a result; in a thread behind."""


def do_chunk(chunk: Chunk, *, work: Work[Any]) -> list[Written]:
    """Do a chunk one step after the other."""
    photographs = [read_photograph(name, path, read=work.read) for name, path in chunk.photographs]
    return [work.write(made) for made in work.process(photographs, chunk=chunk)]


class Executor(Protocol):
    """Whoever does chunks, here or elsewhere."""

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        """Do all chunks, in any order.

        Args:
            chunks: to be done, each once.
            work: what is done with each.
            done: told of every result after its files are written; by one thread at a time, before this returns.
        """


@dataclass(frozen=True)
class InThreads:
    """Does chunks here: reads in threads ahead, asks the models in the caller's thread, writes in a thread behind.

    Attributes:
        ahead: photographs that wait decoded, and results that wait to be written, 1 or more; costs memory, saves time.
        threads: photographs that are decoded at once, 1 or more.
    """

    ahead: int = 2
    threads: int = 2

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        """Do chunks in their order."""
        waiting = (photograph for chunk in chunks for photograph in chunk.photographs)
        ahead = max([self.ahead, *(len(chunk.photographs) for chunk in chunks)])  # one waits while another is asked
        with (
            closing(decoded(waiting, read=work.read, ahead=ahead, threads=self.threads)) as photographs,
            Writer[Any](lambda made: done(work.write(made)), waiting=ahead) as writer,
        ):
            for chunk in chunks:
                for made in work.process(list(islice(photographs, len(chunk.photographs))), chunk=chunk):
                    writer.put(made)


# What only a photograph's own name can be the reason of, such as one that is too long with `.png` behind it, or that
# the file system of the results does not know: a colon on FAT, bytes that are not UTF-8 on APFS.
_OF_THE_NAME = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})


def name_images(images: Sequence[Path], *, root: Path, out: Path, verb: str) -> dict[str, Path]:
    """Photographs by their name: the path relative to the root, with forward slashes; none that is inside `out`.

    Args:
        images: all photographs.
        root: folder that names are relative to.
        out: folder of the results.
        verb: what is to be done with them, such as "label".
    """
    inner, outer = out.resolve(), root.resolve()
    if outer.is_relative_to(inner):  # overwriting the output would remove the photographs
        raise PatchwordError(f"photographs {root} are inside the output folder {out}; choose another output folder")
    named = {}
    for path in images:
        if not path.is_relative_to(root):
            raise PatchwordError(f"photograph {path} is outside {root}; photographs must lie inside it")
        name = path.relative_to(root)
        if not (outer / name).is_relative_to(inner):
            named[name.as_posix()] = path
    if not named:
        raise PatchwordError(f"no photographs to {verb} in {root}")
    return named


def why_unread(unread: Photograph) -> PatchwordError:
    """Why a photograph cannot be read, the same wherever its folder is and however that was typed."""
    return named_alike(unread.pixels, path=unread.path, name=unread.name)


def named_alike(error: object, *, path: Path, name: str) -> PatchwordError:
    """An error of a photograph that calls it by its name instead of by its path."""
    said = str(error).replace(printable(path), printable(name))  # as the reader of photographs writes paths
    return PatchwordError(said.replace(str(path), name))


def why_unwritten(error: PatchwordError, *, folder: Path) -> PatchwordError:
    """What to write down of a photograph whose results cannot have its name."""
    cause = error.__context__
    if not (isinstance(cause, OSError) and cause.errno in _OF_THE_NAME):
        raise error
    return PatchwordError(f"its results cannot have its name: {error}".replace(f"{folder}{os.sep}", ""))


def remove_files(paths: Sequence[Path]) -> None:
    """Remove what an earlier run has made of a photograph, where there is any."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _OF_THE_NAME:
                raise PatchwordError(f"cannot remove {path}: {error.strerror}") from None
