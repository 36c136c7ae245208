"""What is done, written in a thread of its own, in the order in which it was handed over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


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
