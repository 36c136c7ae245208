"""What a run would do and take before it begins: what `--dry-run` prints."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from patchword.data.folders import holds_anything
from patchword.data.storage import as_path, is_stored
from patchword.errors import PatchwordError
from patchword.runs.estimate import Estimate
from patchword.runs.progress import byte_count, duration, rate

NOTHING_WRITTEN = "nothing was written"


@dataclass(frozen=True)
class Cost:
    """What a run would take.

    Attributes:
        sample: photographs that were labelled to see.
        images_a_second: while the run lasts, models loaded before.
        seconds: how long it would last.
        done: when it would be done, begun now, in local time.
        model_share: share of the time in which the models work, in [0, 1].
        disk_bytes, free_bytes: of the disk of the output, needed and there.
    """

    sample: tuple[str, ...]
    images_a_second: float
    seconds: float
    done: str
    model_share: float
    disk_bytes: int
    free_bytes: int

    def rows(self) -> list[tuple[str, object]]:
        """For a person: name and value."""
        room = "of" if self.disk_bytes <= self.free_bytes else "but there are only"
        return [
            ("speed", rate(self.images_a_second)),
            ("time", f"{duration(self.seconds)}, done at {self.done} if begun now"),
            ("models at work", f"{self.model_share:.0%} of the time"),
            ("disk", f"{byte_count(self.disk_bytes)}, {room} {byte_count(self.free_bytes)} free"),
        ]


@dataclass(frozen=True)
class Plan:
    """A run that has not begun.

    Attributes:
        counts: what goes in, by name.
        models: role -> name, where its weights are and how large.
        output: the folder and what would become of what is in it.
        settings: every number of the stage.
        estimate: what it would take; none where nobody has measured it.
        remark: how the estimate was made, or why there is none; empty where none is made for the stage.
    """

    counts: dict[str, int]
    models: dict[str, str]
    output: str
    settings: dict[str, Any]
    estimate: Cost | None = None
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        return asdict(self)

    def rows(self) -> list[tuple[str, object]]:
        """The same for a person: name and value."""
        estimate = [] if self.estimate is None else self.estimate.rows()
        if self.remark:
            estimate.append(("estimate", self.remark))
        settings = [(f"setting {name}", value) for name, value in self.settings.items()]
        return [*self.counts.items(), *self.models.items(), ("output", self.output), *estimate, *settings]


def cost_of(found: Estimate, *, out: Path) -> Cost:
    """What a run would take, as a plan tells it."""
    return Cost(
        sample=found.sample,
        images_a_second=float(f"{1 / found.seconds_a_photograph:.3g}"),
        seconds=round(found.seconds, 1),
        done=found.end(datetime.now().astimezone()).isoformat(sep=" ", timespec="minutes"),
        model_share=round(found.model_share, 3),
        disk_bytes=found.disk,
        free_bytes=_free(out),
    )


def from_sample(found: Estimate, *, done: str) -> str:
    """How an estimate was made."""
    seen = "photograph" if len(found.sample) == 1 else "photographs"
    return f"from {len(found.sample)} {seen} {done} one at a time, models loaded; {NOTHING_WRITTEN}"


def _free(path: Path) -> int:
    """Bytes that are free where a folder would be made; of a store nobody knows."""
    if is_stored(path):
        return sys.maxsize
    existing = next(parent for parent in (path.resolve(), *path.resolve().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def describe_output(out: str | Path, resume: bool, overwrite: bool) -> str:
    """The output folder and what would become of what is in it."""
    folder = as_path(out)
    if resume and overwrite:
        raise PatchwordError("use either resume or overwrite, not both")
    if folder.exists() and not folder.is_dir():
        raise PatchwordError(f"{folder} is a file; the output must be a folder")
    if not folder.exists() or not holds_anything(folder):
        return f"{folder} (new)"
    if resume:
        return f"{folder} (gone on with)"
    return f"{folder} (emptied first)" if overwrite else f"{folder} (in use: pass --resume or --overwrite)"
