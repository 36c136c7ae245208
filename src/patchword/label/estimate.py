"""What a night of labelling will take: three photographs labelled, the rest worked out."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from patchword.errors import PatchwordError
from patchword.folders import json_text
from patchword.images import to_tensor
from patchword.label.dataset import label_map_path, segments_path
from patchword.label.files import write_result
from patchword.label.image import LabelParts, claim_images, settle
from patchword.label.quality.assess import assess
from patchword.label.settings import LabelSettings
from patchword.label.stream import decoded

T = TypeVar("T")
_BLOCK = 4096  # bytes that a file takes at least, and in whole multiples, on the usual file systems


@dataclass(frozen=True)
class Estimate:
    """What labelling will take, from a few photographs labelled one at a time.

    Attributes:
        sample: names of the photographs that were labelled for it.
        photographs: how many are to be labelled.
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


def estimate_labelling(
    photographs: Sequence[tuple[str, Path]],
    *,
    parts: LabelParts,
    settings: LabelSettings,
    sample: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Label a few photographs, spread over the folder, and work out what all of them will take.

    Each is labelled alone, whatever `image_batch` is. Medians count, so that the first, which warms the models up, does
    not. The results go to a temporary folder that is removed.

    Args:
        photographs: name and path of all that are to be labelled, sorted by name.
        parts: models and vocabulary.
        settings: of the labelling.
        sample: how many are labelled, 1 or more.
        clock: seconds from some fixed moment.

    Raises:
        PatchwordError: when none of them can be labelled, with the last reason.
    """
    single = settings.model_copy(update={"image_batch": 1})
    done, times, sizes = [], [], []
    reason = "there are none"
    with tempfile.TemporaryDirectory(prefix="patchword-") as temporary:
        for name, path in spread(photographs, sample):
            try:
                spent, size = _label(name, path, folder=Path(temporary), parts=parts, settings=single, clock=clock)
            except PatchwordError as error:
                reason = str(error)
                continue
            done.append(name)
            times.append(spent)
            sizes.append(size)
    if not done:
        raise PatchwordError(f"no photograph of the sample can be labelled: {reason}")
    decoding, models, writing = (statistics.median(stage) for stage in zip(*times, strict=True))
    slowest = max(decoding, models, writing)
    return Estimate(
        sample=tuple(done),
        photographs=len(photographs),
        seconds_a_photograph=slowest,
        model_share=models / slowest if slowest else 1.0,
        bytes_a_photograph=round(statistics.mean(sizes)),
    )


def _label(
    name: str, path: Path, *, folder: Path, parts: LabelParts, settings: LabelSettings, clock: Callable[[], float]
) -> tuple[tuple[float, float, float], int]:
    """Seconds of decoding, models and writing of one photograph, and bytes of its files and lines."""
    started = clock()
    (photograph,) = decoded([(name, path)])
    if isinstance(photograph.pixels, PatchwordError):
        raise photograph.pixels
    read = clock()
    (claims,) = claim_images([to_tensor(photograph.pixels)], parts=parts, settings=settings)
    if isinstance(claims, PatchwordError):
        raise claims
    asked = clock()
    vocabulary = parts.vocabulary
    found = settle(claims, names=vocabulary.names, settings=settings, colours=vocabulary.colours)
    record = write_result(folder, name, found, content=photograph.content, settings=settings)
    quality = assess(found, name=name, settings=settings)
    written = clock()
    lines = sum(len(json_text(each.model_dump(mode="json"))) + 1 for each in (record, quality))
    files = [each.stat().st_size for each in (label_map_path(folder, name), segments_path(folder, name))]
    on_disk = sum(-(-size // _BLOCK) * _BLOCK for size in files)
    return (read - started, asked - read, written - asked), on_disk + lines
