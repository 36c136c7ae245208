"""The processes of one training, started by `accelerate launch` or `torchrun`; one process alone needs neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

# All work is shared out evenly, and of features a file at a time: nobody waits longer than for a slow disk.
_PATIENCE = timedelta(hours=1)
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which of them this is.

    Attributes:
        count: at least 1.
        index: in [0, count); the first alone writes files.
    """

    count: int = 1
    index: int = 0

    @classmethod
    def current(cls, device: torch.device) -> Processes:
        """The processes that the launcher has started, joined; this one alone when there is no launcher."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
        return cls(count=state.num_processes, index=state.process_index)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def shares(self, length: int) -> list[range]:
        """Divide positions 0 ... length - 1 into one range a process, in order, none longer than another by two."""
        ends = [length * part // self.count for part in range(self.count + 1)]
        return [range(start, end) for start, end in pairwise(ends)]

    def gather(self, rows: Tensor, *, counts: Sequence[int]) -> Tensor:
        """The rows (counts[i], ...) of all processes one after the other, (sum of counts, ...), without a gradient."""
        most = max(counts)
        if self.count == 1 or most == 0:
            return rows
        from accelerate.utils import gather

        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = gather(padded).split(most)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, the same on every process."""
        if self.count == 1:
            return tensor
        from accelerate.utils import reduce

        total: Tensor = reduce(tensor, reduction="sum")
        return total

    def collect(self, mine: Sequence[T]) -> list[T]:
        """The items of every process, one process after the other, the same on all."""
        if self.count == 1:
            return list(mine)
        from accelerate.utils import gather_object

        everywhere: list[T] = gather_object(list(mine))
        return everywhere

    def from_first(self, decide: Callable[[], T]) -> T:
        """What the first process decides, on all of them."""
        return self.collect([decide()] if self.is_first else [])[0]

    def wait(self) -> None:
        """Go on only when every process has come here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """A block that the first process has ended before the others enter it, so that they find what it has made."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


ALONE = Processes()
"""One process that trains by itself."""
