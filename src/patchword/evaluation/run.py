"""Predictions against masks, image by image; stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from patchword.data.folders import Manifest, prepare_output, remove_leftovers, sole_use
from patchword.data.images import orientation_hint
from patchword.errors import PatchwordError
from patchword.evaluation.confusion import Indices
from patchword.evaluation.counts import count_image
from patchword.evaluation.failure_cases import FailureCases
from patchword.evaluation.finish import UnscoredError, delete_scores, finish
from patchword.evaluation.masks import EvaluationTask, GroundTruth, Pair, Positions
from patchword.evaluation.predictors import Predictor
from patchword.evaluation.records import (
    IMAGES_FILE,
    MARKER,
    SETUP_FILE,
    ImageScore,
    ScoringSettings,
    SetupRecord,
    read_images,
)
from patchword.evaluation.report import EvaluationReport, gather, make_report
from patchword.runs.pipeline import Writer, changed_photographs, content_of, decoded, told
from patchword.runs.progress import Progress, say
from patchword.runs.records import Session, VocabularyRecord
from patchword.runs.shards import Shard, chunks_of, names_hash, shard_differences

Chunks = Sequence[Sequence[Pair]]


@dataclass(frozen=True)
class Scored:
    """An image after it was scored.

    Attributes:
        pair: the image.
        record: its line of `images.jsonl`.
        maps: (h, w) positions of the scored classes as predicted and as in the mask, -1 for none; None when it failed.
    """

    pair: Pair
    record: ImageScore
    maps: tuple[Indices, Indices] | None = None


def evaluate_task(
    task: EvaluationTask,
    *,
    predictor: Predictor,
    out: str | Path | None = None,
    scoring: ScoringSettings | Mapping[str, Any] | None = None,
    shard: Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    ahead: int = 4,
    threads: int = 2,
    quiet: bool = False,
) -> EvaluationReport:
    """Hold a prediction for every photograph of a task against its mask; reading, predicting and counting side by side.

    An image that cannot be read or predicted, or that does not fit its mask, is written down with the reason and the
    run goes on to find the others, but there is then no score. A run that was stopped, in whatever way, goes on with
    `resume`, and tries those again. Photographs go to the predictor in chunks by their place among all names; a chunk
    of which a part is missing is done anew as a whole, so that the scores are those of a run that was not stopped.

    Args:
        task: photographs with masks.
        predictor: who predicts.
        out: folder of the evaluation; None keeps everything in memory.
        scoring: what is measured and how, all as `ScoringSettings`, or by name those that differ from the defaults.
        shard: take one of several parts; `merge_evaluations` puts them together.
        resume: go on in a folder that an earlier run left.
        overwrite: empty such a folder first.
        command: what the user typed, for the record.
        ahead: images that wait read, and that wait to be counted, 1 or more; costs memory, saves time.
        threads: images that are read at once, 1 or more.
        quiet: whether to show no progress.

    Returns:
        the scores and all that they depend on; of a shard, those of the shard.

    Raises:
        UnscoredError: when images could not be scored, naming them.
        PatchwordError: for a name that two photographs have, a folder that is neither resumed nor overwritten or that
            another run is at work in, a resume of another evaluation, a shard without images, or a file that cannot be
            written.
    """
    chosen = ScoringSettings.of(scoring)
    pairs = {pair.name: pair for pair in task.pairs}
    if len(pairs) < len(task.pairs):
        raise PatchwordError(
            f"{len(task.pairs)} photographs have {len(pairs)} names; every photograph needs its own name"
        )
    names = sorted(pairs)
    chunks = [[pairs[name] for name in chunk] for chunk in chunks_of(names, size=predictor.batch, shard=shard)]
    setup = _setup(task, predictor, chosen, names=names, shard=shard)
    job = _Job(task.truth, predictor, chosen, len(names), ahead=ahead, threads=threads)
    if out is not None:
        folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
        with sole_use(folder):
            return _evaluate_into(folder, setup, job, chunks, command=command, quiet=quiet)
    found: list[ImageScore] = []
    with Progress(len(names), "evaluating", quiet=quiet) as progress:

        def remember(scored: Scored) -> None:
            found.append(scored.record)
            progress.advance()

        job.score(chunks, keep=remember)
    if job.failed:
        raise UnscoredError(job.failed, of=len(names), where=None)
    return make_report(setup, gather(setup, found), command=command)


def _evaluate_into(
    folder: Path, setup: SetupRecord, job: _Job, chunks: Chunks, *, command: str, quiet: bool
) -> EvaluationReport:
    _check_resumed(folder, setup)
    manifest = Manifest(folder / IMAGES_FILE)
    kept = {name: record for name, record in read_images(manifest).items() if record.status != "failed"}
    for name in _changed(kept, job, chunks, quiet=quiet):
        del kept[name]
    remove_leftovers(folder)
    delete_scores(folder)
    setup.save(folder)
    missing = [chunk for chunk in chunks if not all(pair.name in kept for pair in chunk)]
    names = [pair.name for chunk in chunks for pair in chunk]
    already = len(names) - sum(map(len, missing))
    worst = FailureCases(folder, setup=setup, known=kept.values())
    with Session(folder, command=command, options=job.options(), kept=already) as session:
        with Progress(len(names), "evaluating", already=already, quiet=quiet) as progress, manifest:

            def keep(scored: Scored) -> None:
                if scored.maps is not None:
                    worst.offer(scored.pair, scored.record, maps=scored.maps)
                manifest.append(scored.record.model_dump(mode="json"))  # last, so that it vouches for the picture
                session.count(scored.record.status)
                progress.advance()

            job.where = folder / IMAGES_FILE
            job.score(missing, keep=keep)
        return finish(folder, setup=setup, names=names, command=command)


def _setup(
    task: EvaluationTask, predictor: Predictor, scoring: ScoringSettings, *, names: Sequence[str], shard: Shard | None
) -> SetupRecord:
    vocabulary = task.truth.vocabulary
    return SetupRecord(
        data=task.data,
        images=len(names),
        images_hash=names_hash(names),
        vocabulary=VocabularyRecord(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names),
        classes=task.truth.names,
        predicted_by=predictor.describe(),
        scoring=scoring,
        shard=None if shard is None else shard.record(names),
    )


def _check_resumed(folder: Path, setup: SetupRecord) -> None:
    """Where an earlier run left what it was asked, check that it is the same."""
    if (folder / SETUP_FILE).exists():
        earlier = SetupRecord.load(folder)
        differing = [*shard_differences(earlier.shard, setup.shard), *earlier.differences(setup)]
        for what, before, now in differing:
            if before != now:
                raise PatchwordError(
                    f"cannot resume {folder}: {what} was {before}, now {now}; resume with what it was, or choose "
                    "another folder"
                )
    elif (folder / IMAGES_FILE).exists():
        raise PatchwordError(
            f"cannot resume {folder}: it has images but no {SETUP_FILE}; pass --overwrite, or choose another folder"
        )


def _changed(kept: Mapping[str, ImageScore], job: _Job, chunks: Chunks, *, quiet: bool) -> list[str]:
    """Images of which the photograph or prediction, or the mask, is another one since; said in a line."""
    pairs = {pair.name: pair for chunk in chunks for pair in chunk if pair.name in kept}
    recorded = {name: kept[name].content for name in pairs}
    paths = {name: job.predictor.source(pair) for name, pair in pairs.items()}
    gone, changed = changed_photographs(recorded, paths=paths, quiet=quiet)
    masks = {name: kept[name].mask_content for name in pairs}
    lost, redrawn = changed_photographs(masks, paths={name: pair.mask for name, pair in pairs.items()}, quiet=quiet)
    again = sorted({*gone, *changed, *lost, *redrawn})
    if again:
        since = told(again, "or its mask changed since it was scored", more="or their masks changed since they were")
        say(f"{since}; scored again", quiet=quiet)
    return again


@dataclass
class _Job:
    """What it takes to score images, and what could not be scored."""

    truth: GroundTruth
    predictor: Predictor
    scoring: ScoringSettings
    images: int
    ahead: int
    threads: int
    where: Path | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """What was chosen that changes no score."""
        return {"ahead": self.ahead, "threads": self.threads}

    def score(self, chunks: Chunks, *, keep: Callable[[Scored], None]) -> None:
        """Read in threads ahead, predict a chunk here, count in a thread behind.

        Raises:
            UnscoredError: when too many images cannot be scored.
        """
        ahead = max(self.ahead, *map(len, chunks)) if chunks else self.ahead  # a whole chunk waits for its turn
        waiting = ((pair.name, self.predictor.source(pair)) for chunk in chunks for pair in chunk)

        def count(item: tuple[Pair, str | None, Positions | PatchwordError]) -> None:
            scored = self._count(*item)
            keep(scored)
            self._note_failure(scored.record)

        read = closing(decoded(waiting, read=self.predictor.read, ahead=ahead, threads=self.threads))
        with read as stream, Writer(count, waiting=ahead) as writer:
            for chunk in chunks:
                items = list(islice(stream, len(chunk)))
                answers = self.predictor.predict(items)
                for pair, item, answer in zip(chunk, items, answers, strict=True):
                    writer.put((pair, item.content, answer))

    def _count(self, pair: Pair, content: str | None, predicted: Positions | PatchwordError) -> Scored:
        try:
            if isinstance(predicted, PatchwordError):
                raise predicted
            expected = self.truth.read_truth(pair)
            if predicted.shape != expected.shape:
                raise PatchwordError(
                    f"mask {pair.mask} is {_size(expected.shape)} pixels and the prediction for {pair.name} "
                    f"{_size(predicted.shape)}; they must be of one size, masks are never resized"
                    f"{_orientation(pair, expected.shape) or _orientation(pair, predicted.shape)}"
                )
            dilation = self.scoring.boundary_dilation if self.scoring.boundary else None
            counts = count_image(predicted, expected, count=len(self.truth.names), dilation=dilation)
        except PatchwordError as error:
            return Scored(pair, ImageScore.failure(str(error), name=pair.name, content=content))
        size = (expected.shape[0], expected.shape[1])
        record = ImageScore.of(counts, name=pair.name, size=size, content=content)
        record = record.model_copy(update={"mask_content": _mask_content(pair.mask)})
        return Scored(pair, record, (predicted, expected))

    def _note_failure(self, record: ImageScore) -> None:
        if record.status != "failed":
            return
        self.failed[record.name] = record.reason or ""
        if len(self.failed) >= self.scoring.most_failures:
            raise UnscoredError(self.failed, of=self.images, where=self.where, early=True)


def _orientation(pair: Pair, shape: tuple[int, ...]) -> str:
    return orientation_hint(pair.photo, size=(shape[0], shape[1]))


def _mask_content(path: Path) -> str | None:
    try:
        return _content_at(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)  # the masks of some benchmarks are one file, which is as it was while its time is
def _content_at(path: Path, modified: int) -> str | None:
    return content_of(path)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
