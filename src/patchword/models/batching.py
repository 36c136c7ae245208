"""Work in batches that shrink where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Result = TypeVar("Result")

_log = logging.getLogger(__name__)
# Of allocators that raise a plain RuntimeError: the processor's, and Apple's.
_COMPLAINTS = ("DefaultCPUAllocator", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(complaint in str(error) for complaint in _COMPLAINTS)


class Batches:
    """Runs work over items some at a time; when memory runs out, it goes on with half as many, and stays there.

    The state is the batch sizes that were found to fit, one for each kind of item, so that one instance serves a run,
    and all of its threads.
    """

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def run(self, work: Callable[[int, int], Result], *, count: int, size: int, what: str) -> list[Result]:
        """Do some work on items 0 to count - 1, in order.

        Args:
            work: takes the first item of a batch and the one after its last; may be called again for the same items.
            count: how many items.
            size: most items a batch, at least 1.
            what: name of the items in the plural, which the size that fits is remembered by.

        Returns:
            what the work returned for each batch, in order.
        """
        results: list[Result] = []
        start = 0
        while start < count:
            stop = min(count, start + min(size, self._limits.get(what, size)))
            try:
                results.append(work(start, stop))
            except (MemoryError, RuntimeError) as error:
                if stop - start == 1 or not is_out_of_memory(error):
                    raise
            else:
                start = stop
                continue
            # Only here has the error let go of what the work had allocated.
            self._shrink(what, failed=stop - start)
        return results

    def _shrink(self, what: str, *, failed: int) -> None:
        if what not in self._limits:
            _log.warning("memory does not suffice for %d %s at once; going on with fewer", failed, what)
        self._limits[what] = min(self._limits.get(what, failed), -(-failed // 2))  # another thread's may be lower
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def within(counts: Sequence[int], *, start: int, stop: int) -> list[tuple[int, int, int]]:
    """Whose items are in a batch, when the items of several owners are laid end to end.

    Args:
        counts: items of each owner.
        start, stop: the first item of the batch and the one after its last.

    Returns:
        for each owner with items in the batch its number, and the first of its own items and the one after the last.
    """
    found, before = [], 0
    for owner, count in enumerate(counts):
        first, last = max(start - before, 0), min(stop - before, count)
        if first < last:
            found.append((owner, first, last))
        before += count
    return found
