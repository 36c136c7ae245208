"""Whatever can be made one after the other, made ahead of its use in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_PATIENCE = 0.1  # seconds after which a thread that waits looks whether it is still wanted


class _End:
    """What a thread hands over last, with the error that it met."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


def made_ahead(items: Iterable[T], *, count: int) -> Generator[T, None, None]:
    """Take items from an iterable in a thread while the caller works on the ones before.

    Args:
        items: used by that thread alone.
        count: most items that wait, 1 or more; bounds the memory.

    Yields:
        the items, in order.
    """
    waiting: Queue[T | _End] = Queue(maxsize=max(1, count))
    unwanted = threading.Event()

    def put(item: T | _End) -> bool:
        while not unwanted.is_set():
            try:
                waiting.put(item, timeout=_PATIENCE)
                return True
            except Full:
                continue
        return False

    def make() -> None:
        error = None
        try:
            for item in items:
                if not put(item):
                    return
        except Exception as met:  # the caller's affair
            error = met
        put(_End(error))

    thread = threading.Thread(target=make, name="patchword-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()
