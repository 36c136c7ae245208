"""A benchmark by a protocol, as a task that is evaluated like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchword.evaluation.benchmarks.record import OpenBenchmark, Unlabelled
from patchword.evaluation.benchmarks.registry import BENCHMARKS
from patchword.evaluation.protocols import ProtocolRow
from patchword.evaluation.task import DataRecord, EvaluationTask
from patchword.segmentation.settings import SegmentSettings

_ONLY_SPEED = ("batch", "compile")  # settings that change no score beyond rounding


@dataclass(frozen=True)
class ProtocolRun:
    """How a protocol is to run a benchmark, and what a user wants otherwise.

    Attributes:
        row: of the protocol's table.
        templates: prompt templates instead of the row's, 7 or 80; None for the row's.
        settings: names and values of segment settings that differ from the row's.
        unlabelled: what unlabelled pixels are, where that is not what they are in the published numbers.
    """

    row: ProtocolRow
    templates: int | None = None
    settings: Mapping[str, Any] | None = None
    unlabelled: Unlabelled | None = None

    @property
    def changed(self) -> dict[str, Any]:
        """What is not as the protocol has it; with anything in it the numbers are no longer the protocol's."""
        row = self.row.settings().model_dump(mode="json")
        given = self.segment_settings().model_dump(mode="json")
        changed = {name: value for name, value in given.items() if value != row[name] and name not in _ONLY_SPEED}
        if self.templates not in (None, self.row.templates):
            changed["templates"] = self.templates
        if self.unlabelled not in (None, BENCHMARKS[self.row.benchmark].unlabelled):
            changed["unlabelled"] = self.unlabelled
        return changed

    def segment_settings(self) -> SegmentSettings:
        """The row's settings with the user's in them."""
        return SegmentSettings(**{**self.row.settings().model_dump(), **(self.settings or {})})


def benchmark_task(opened: OpenBenchmark, *, run: ProtocolRun | None, limit: int | None = None) -> EvaluationTask:
    """A benchmark that was found on disk, as `evaluate_task` takes it.

    Args:
        opened: the benchmark.
        run: how a model is to be asked; None for predictions that are there already.
        limit: take the first so many photographs; None for all.
    """
    if run is not None:
        opened = opened.asked_for(run.row.vocabulary(count=run.templates))
    reading: dict[str, Any] = {"layout": opened.layout, "split": opened.split, "rule": opened.truth.rule}
    if run is not None:
        reading |= {"protocol_row": asdict(run.row), "changed": run.changed}
    pairs = opened.pairs[:limit]
    data = DataRecord(
        photographs=str(_common_folder([pair.photo for pair in pairs])),
        masks=str(_common_folder([pair.mask for pair in pairs])),
        benchmark=opened.benchmark.name,
        protocol=None if run is None else run.row.protocol,
        reading=reading,
        selection={"of": opened.benchmark.images} | ({} if limit is None else {"limit": limit}),
        remarks=tuple(_remarks(opened, images=len(pairs), run=run)),
    )
    return EvaluationTask(pairs, opened.truth, data)


def _remarks(opened: OpenBenchmark, *, images: int, run: ProtocolRun | None) -> Iterator[str]:
    """What keeps the scores from being the benchmark's and the protocol's."""
    benchmark = opened.benchmark
    if images != benchmark.images:
        photographs = "photograph" if images == 1 else "photographs"
        yield (
            f"This is {benchmark.name} over {images:,} {photographs}; its official split has {benchmark.images:,}, so "
            "the scores are not to be compared with others."
        )
    if run is not None and run.changed:
        changed = ", ".join(f"{name}={value}" for name, value in run.changed.items())
        yield f"Not as the protocol {run.row.protocol} has it: {changed}."


def _common_folder(paths: list[Path]) -> Path:
    """The folder that all files are in or below; one file for all of them stands for itself."""
    if len(set(paths)) == 1 and len(paths) > 1:
        return paths[0]
    folder = paths[0].parent
    while not all(path.is_relative_to(folder) for path in paths):
        folder = folder.parent
    return folder
