"""Photographs decoded ahead of their use, a few at a time, and the sum of their bytes on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.images import read_image
from patchword.errors import PatchwordError
from patchword.runs.contents import content_of

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


def decoded(
    photographs: Iterable[tuple[str, Path]],
    *,
    read: Callable[[Path], Pixels] = read_image,
    ahead: int = 2,
    threads: int = 1,
) -> Generator[Photograph, None, None]:
    """Read photographs in threads of their own while the caller works on the ones before.

    Args:
        photographs: name and path, in the order in which they are wanted.
        read: turns a path into pixels (h, w, 3).
        ahead: most photographs that wait decoded, 1 or more; bounds the memory.
        threads: photographs that are decoded at once, 1 or more.

    Yields:
        each in its turn, with its pixels or with the reason why it cannot be read: a broken file ends nothing.
    """
    waiting = iter(photographs)
    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="patchword-decode")

    def begin(count: int) -> list[Future[Photograph]]:
        return [pool.submit(_decode, name, path, read) for name, path in islice(waiting, count)]

    try:
        under_way = deque(begin(max(1, ahead) + max(1, threads)))
        while under_way:
            first = under_way.popleft().result()
            under_way.extend(begin(1))
            yield first
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(name: str, path: Path, read: Callable[[Path], Pixels]) -> Photograph:
    content = None
    try:
        content = content_of(path)
        return Photograph(name, path, read(path), content)
    except PatchwordError as error:
        return Photograph(name, path, error, content)
    except (OSError, MemoryError) as error:  # a file that vanished, or too little memory for this one
        reason = f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}"
        return Photograph(name, path, PatchwordError(reason), content)
