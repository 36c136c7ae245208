"""Photographs decoded ahead of their use, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError

Pixels = NDArray[np.uint8]
_PATIENCE = 0.1  # seconds between looks at whether the caller has gone; decides no result


def decoded(
    paths: Sequence[Path], *, read: Callable[[Path], Pixels], ahead: int = 2
) -> Iterator[tuple[Path, Pixels | PatchwordError]]:
    """Read photographs in a thread of their own while the caller works on the one before.

    Args:
        paths: photographs, in the order in which they are wanted.
        read: turns a path into pixels (h, w, 3).
        ahead: most photographs that wait decoded, 1 or more; bounds the memory.

    Yields:
        each path with its pixels, or with the reason why it cannot be read: a broken file ends nothing.

    Raises:
        Exception: whatever else `read` raises, since that is a defect and no broken file.
    """
    ready: Queue[Pixels | Exception] = Queue(maxsize=max(1, ahead))
    gone = threading.Event()

    def work() -> None:
        for path in paths:
            item = _read(path, read=read)
            while not gone.is_set():
                with suppress(Full):
                    ready.put(item, timeout=_PATIENCE)
                    break
            if gone.is_set():
                return

    thread = threading.Thread(target=work, name="patchword-decode", daemon=True)
    thread.start()
    try:
        for path in paths:
            item = ready.get()
            if isinstance(item, Exception) and not isinstance(item, PatchwordError):
                raise item
            yield path, item
    finally:
        gone.set()
        thread.join()


def _read(path: Path, *, read: Callable[[Path], Pixels]) -> Pixels | Exception:
    try:
        return read(path)
    except (OSError, MemoryError) as error:  # a file that vanished, or too little memory for this one
        return PatchwordError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}")
    except Exception as error:  # a thread that dies of it would leave the caller waiting for ever
        return error
