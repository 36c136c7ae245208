"""What a run over a night will take: three photographs tried, the rest worked out."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from patchword.errors import PatchwordError

T = TypeVar("T")
_BLOCK = 4096  # bytes that a file takes at least, and in whole multiples, on the usual file systems


@dataclass(frozen=True)
class Trial:
    """What one photograph has taken.

    Attributes:
        decoding, models, writing: seconds of each.
        size: bytes on disk.
    """

    decoding: float
    models: float
    writing: float
    size: int


@dataclass(frozen=True)
class Estimate:
    """What a run will take, from a few photographs worked on one at a time.

    Attributes:
        sample: names of the photographs that were tried for it.
        photographs: how many are to be done.
        seconds_a_photograph: of the slowest of decoding, models and writing, which run side by side.
        model_share: share of that time in which the models work, in [0, 1].
        bytes_a_photograph: on disk.
    """

    sample: tuple[str, ...]
    photographs: int
    seconds_a_photograph: float
    model_share: float
    bytes_a_photograph: int

    @property
    def seconds(self) -> float:
        """For all photographs, models loaded."""
        return self.photographs * self.seconds_a_photograph

    @property
    def disk(self) -> int:
        """Bytes for all photographs."""
        return self.photographs * self.bytes_a_photograph

    def end(self, now: datetime) -> datetime:
        """When a run that begins now will be done."""
        return now + timedelta(seconds=self.seconds)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Take `count` items from the middles of equal parts of a sequence, in its order; all when there are fewer."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


def estimate_run(
    photographs: Sequence[tuple[str, Path]], *, work: Callable[[str, Path, Path], Trial], verb: str, sample: int = 3
) -> Estimate:
    """Try a few photographs, spread over the folder, and work out what all of them will take.

    Medians count, so that the first, which warms the models up, does not. The results go to a temporary folder that is
    removed.

    Args:
        photographs: name and path of all that are to be done, sorted by name.
        work: does one, from its name, its path and the folder of its results.
        verb: what is done with them, such as "labelled".
        sample: how many are tried, 1 or more.
    """
    done, trials = [], []
    reason = "there are none"
    with tempfile.TemporaryDirectory(prefix="patchword-") as temporary:
        for name, path in spread(photographs, sample):
            try:
                trials.append(work(name, path, Path(temporary)))
                done.append(name)
            except PatchwordError as error:
                reason = str(error)
    if not done:
        raise PatchwordError(f"no photograph of the sample can be {verb}: {reason}")
    models = statistics.median(each.models for each in trials)
    beside = (statistics.median(each.decoding for each in trials), statistics.median(each.writing for each in trials))
    slowest = max(models, *beside)
    return Estimate(
        sample=tuple(done),
        photographs=len(photographs),
        seconds_a_photograph=slowest,
        model_share=models / slowest if slowest else 1.0,
        bytes_a_photograph=round(statistics.mean(each.size for each in trials)),
    )


def on_disk(files: Sequence[Path]) -> int:
    """Bytes that files take on a disk, in whole blocks."""
    return sum(-(-path.stat().st_size // _BLOCK) * _BLOCK for path in files)
