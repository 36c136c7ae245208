"""The demo's long work, done by two processes of one thread each.

The miniatures are so small that a second thread gains nothing, and with one the results are the same on every number of
cores. What goes to a process and back are paths, settings and reports; the rest is on disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import patchword
from patchword.alignment.data import AlignmentData
from patchword.config.align import AlignSettings
from patchword.config.label import LabelSettings
from patchword.data.vocabulary import Vocabulary
from patchword.evaluation.report import EvaluationReport
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import merge_labels
from patchword.labeling.image import fuse
from patchword.labeling.records import MANIFEST_FILE
from patchword.models.loading import load_image_text
from patchword.runs.progress import Progress
from patchword.segmentation.dense import DenseSegmenter
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import SIZE, Place, draw

_PROCESSES, _PARTS = 2, 6  # more parts than processes, so that none waits long for the other at the end
_LOOK_EVERY = 0.5  # seconds

T = TypeVar("T")


class Workers:
    """Two processes that take work in turn, or one on a machine of one core."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        self._pool = ProcessPoolExecutor(min(_PROCESSES, cores), mp_context=get_context("spawn"), initializer=_begin)

    def start(self, work: Callable[..., T], *arguments: Any, **keywords: Any) -> Future[T]:
        """Hand over work; `work` is a function of a module."""
        return self._pool.submit(work, *arguments, **keywords)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def draw_places(
    workers: Workers, folder: Path, places: Sequence[tuple[str, str, int, str]], *, first: int
) -> list[Place]:
    """Draw sets of scenes, each in parts.

    Args:
        workers: who draw.
        folder: of the demo.
        places: name, purpose, number of scenes and style of each set, as of `draw`.
        first: index of each set's first seed.
    """
    drawn = []
    for name, purpose, count, style in places:
        size = max(1, -(-count // _PARTS))
        parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
        drawn.append(
            [
                workers.start(draw, folder, name, purpose=purpose, count=count, first=first, style=style, part=part)
                for part in parts
            ]
        )
    finished = [[future.result() for future in parts] for parts in drawn]
    return [found[0] for found in finished]


def label_places(
    workers: Workers, places: Sequence[tuple[Place, Path]], *, settings: LabelSettings, quiet: bool
) -> list[LabelledDataset]:
    """Label sets of scenes, each in parts that are merged: the data sets of undivided runs, to the byte.

    Args:
        workers: who labels.
        places: scenes, and the folder of their labels.
        settings: of the labelling.
        quiet: whether to show no progress.
    """
    parts: list[list[Path]] = []
    started: list[Future[None]] = []
    total = 0
    for place, out in places:
        count = len(list(place.photos.iterdir()))
        total += count
        shards = min(_PARTS, count)
        parts.append([out.parent / f"{out.name}-{number}" for number in range(1, shards + 1)])
        started += [
            workers.start(_label, place.photos, out=part, shard=f"{number}/{shards}", settings=settings)
            for number, part in enumerate(parts[-1], start=1)
        ]
    manifests = [part / MANIFEST_FILE for folders in parts for part in folders]
    with Progress(total, "labelling", quiet=quiet) as progress:
        finish_all(started, progress=progress, done=lambda: sum(map(_lines, manifests)))
    made = []
    for (_, out), folders in zip(places, parts, strict=True):
        made.append(merge_labels(folders, out=out, quiet=True))
        for folder in folders:
            shutil.rmtree(folder)
    return made


def finish_all(started: Sequence[Future[T]], *, progress: Progress, done: Callable[[], int]) -> list[T]:
    """Wait for work while showing how far it is; the first error of any of it is raised.

    Args:
        started: the work.
        progress: shown, advanced to what `done` counts.
    """
    pending = set(started)
    while pending:
        finished, pending = wait(pending, timeout=_LOOK_EVERY)
        for future in finished:
            future.result()
        progress.advance(max(0, done() - progress.done))
    return [future.result() for future in started]


def train(labels: Path, *, out: Path, settings: AlignSettings, quiet: bool) -> None:
    """Train a segmenter on labels."""
    patchword.align(labels, out=out, encoder=miniatures.DINO, settings=settings, device="cpu", quiet=quiet)


def train_oracle(place: Place, *, out: Path, settings: AlignSettings) -> None:
    """Train a segmenter on exact masks."""
    exact = AlignmentData.from_folders(place.photos, masks=place.seen, vocabulary=Vocabulary.of(SEEN))
    patchword.align(
        exact,
        out=out,
        encoder=miniatures.DINO,
        text_encoder=miniatures.CLIP,
        settings=settings,
        device="cpu",
        quiet=True,
    )


def measure(
    place: Place,
    *,
    classes: tuple[str, ...] = SEEN,
    model: Path | None = None,
    predictions: Path | None = None,
    out: Path | None = None,
) -> EvaluationReport:
    """Measure a segmenter, label maps, or, without either, dense CLIP against exact masks; a page goes to `out`."""
    return patchword.evaluate(
        place.photos,
        masks=place.seen if classes == SEEN else place.every,
        classes=classes,
        model=dense_segmenter() if model is None and predictions is None else model,
        predictions=predictions,
        out=out,
        scoring={"boundary": False, "resamples": 0},
        device="cpu",
        quiet=True,
    )


def measure_alone(labels: Path, place: Place, *, generator: str, margin: float, out: Path) -> EvaluationReport:
    """Measure label maps as they would be, had only one generator spoken; they are written to `out`."""
    for item in LabelledDataset.open(labels).items:
        size = item.record.size
        if size is not None:
            segments = [segment for segment in item.segments() if segment.generator == generator]
            fuse(segments, size=size, names=SEEN, margin=margin).save(out / f"{item.record.name}.png")
    return measure(place, predictions=out)


def segment_some(place: Place, *, model: Path, out: Path, count: int = 24) -> None:
    """Segment the first scenes into a folder with a page."""
    patchword.segment(place.photos, model=model, out=out, limit=count, device="cpu", quiet=True)


def dense_segmenter() -> DenseSegmenter:
    """The training-free baseline."""
    return DenseSegmenter(load_image_text(str(miniatures.CLIP), device="cpu"), image_size=SIZE)


def _begin() -> None:
    import torch

    torch.set_num_threads(1)


def _label(photos: Path, *, out: Path, shard: str, settings: LabelSettings) -> None:
    patchword.label(
        photos,
        classes=SEEN,
        out=out,
        image_text=miniatures.CLIP,
        mask_generator=miniatures.SAM,
        settings=settings,
        shard=shard,
        device="cpu",
        quiet=True,
    )


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
