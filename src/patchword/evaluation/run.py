"""Predictions against masks, image by image; stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from patchword.config.evaluate import ScoredRun, ScoringSettings
from patchword.data.images import orientation_hint
from patchword.errors import PatchwordError
from patchword.evaluation.counts import count_image
from patchword.evaluation.finish import EVALUATIONS, UnscoredError, finish
from patchword.evaluation.masks import EvaluationTask, GroundTruth, Pair, Positions
from patchword.evaluation.pictures import FailureCases
from patchword.evaluation.predictors import Predictor
from patchword.evaluation.records import IMAGES_FILE, ImageScore, SetupRecord
from patchword.evaluation.report import EvaluationReport, gather, make_report
from patchword.runs.folder_run import FolderRun
from patchword.runs.pipeline import Chunk, Executor, InThreads, Photograph, Pixels, Written, content_of
from patchword.runs.progress import Progress
from patchword.runs.records import VocabularyRecord
from patchword.runs.shards import Shard, chunks_of, names_hash


def evaluate_task(
    task: EvaluationTask,
    *,
    predictor: Predictor,
    run: ScoredRun | None = None,
    ahead: int = 4,
    threads: int = 2,
    executor: Executor | None = None,
) -> EvaluationReport:
    """Hold a prediction for every photograph of a task against its mask; reading, predicting and counting side by side.

    An image that cannot be read or predicted, or that does not fit its mask, is written down with the reason and the
    run goes on to find the others, but there is then no score. A run that was stopped, in whatever way, goes on with
    `resume`, and tries those again. Photographs go to the predictor in chunks by their place among all names; a chunk
    of which a part is missing is done anew as a whole, so that the scores are those of a run that was not stopped.

    Args:
        task: photographs with masks.
        predictor: who predicts.
        run: where to, None of which keeps everything in memory, what is measured and which part.
        ahead: images that wait read, and that wait to be counted, 1 or more; costs memory, saves time.
        threads: images that are read at once, 1 or more.
        executor: whoever does the chunks; by default they are done here, by `ahead` and `threads`.
    """
    run = run or ScoredRun()
    chosen, shard, out = ScoringSettings.of(run.scoring), run.part, run.out
    pairs = {pair.name: pair for pair in task.pairs}
    if len(pairs) < len(task.pairs):
        raise PatchwordError(
            f"{len(task.pairs)} photographs have {len(pairs)} names; every photograph needs its own name"
        )
    names = sorted(pairs)
    chunks = chunks_of(names, size=predictor.batch, shard=shard)
    sources = {name: predictor.source(pair) for name, pair in pairs.items()}
    setup = _setup(task, predictor, chosen, names=names, shard=shard)
    executor = executor or InThreads(ahead, threads)
    folder = None if out is None else Path(out)
    found: list[ImageScore] = []
    failed: dict[str, str] = {}

    def watch(written: Written) -> None:
        record = ImageScore.model_validate(written.record)
        if record.status == "failed":
            failed[record.name] = record.reason or ""
            if len(failed) >= chosen.most_failures:
                raise UnscoredError(failed, of=len(names), where=folder and folder / IMAGES_FILE, early=True)
        if folder is None:
            found.append(record)

    if folder is None:
        whole = [Chunk(tuple((name, sources[name]) for name in chunk), lines=len(chunk)) for chunk in chunks]
        with Progress(len(names), "evaluating", quiet=run.quiet) as progress:

            def remember(written: Written) -> None:
                progress.advance()
                watch(written)

            executor.run(whole, work=EvaluateWork(pairs, task.truth, predictor, chosen), done=remember)
        if failed:
            raise UnscoredError(failed, of=len(names), where=None)
        found.sort(key=lambda record: record.name)  # which is not the order of every executor
        return make_report(setup, gather(setup, found), command=run.command)
    wanted = frozenset(name for chunk in chunks for name in chunk)
    folder_run = FolderRun(
        kind=EVALUATIONS,
        out=folder,
        record=setup,
        wanted=wanted,
        contents=lambda line: [(sources[line.name], line.content), (pairs[line.name].mask, line.mask_content)],
        resume=run.resume,
        overwrite=run.overwrite,
        retry_failed=True,
        command=run.command,
        options={"ahead": ahead, "threads": threads},
        quiet=run.quiet,
    )
    return folder_run.run(
        lambda begun: begun.chunks(chunks, paths=sources),
        work=EvaluateWork(pairs, task.truth, predictor, chosen, FailureCases(folder, setup=setup)),
        executor=executor,
        finish=lambda setup, manifest: finish(folder, setup=setup, names=wanted, command=run.command),
        watch=watch,
    )


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


@dataclass(frozen=True)
class Predicted:
    """A prediction, (h, w) positions of the scored classes with -1 for none, or why there is none."""

    pair: Pair
    content: str | None
    positions: Positions | PatchwordError


@dataclass(frozen=True)
class EvaluateWork:
    """What is done with the images of a run; the `Work` of the folder engine."""

    pairs: Mapping[str, Pair]
    truth: GroundTruth
    predictor: Predictor
    scoring: ScoringSettings
    worst: FailureCases | None = None

    def read(self, path: Path) -> Pixels:
        return self.predictor.read(path)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[Predicted]:
        for each, answer in zip(photographs, self.predictor.predict(photographs), strict=True):
            yield Predicted(self.pairs[each.name], each.content, answer)

    def write(self, made: Predicted) -> Written:
        """Count, and draw what scores low."""
        pair = made.pair
        try:
            if isinstance(made.positions, PatchwordError):
                raise made.positions
            expected, predicted = self.truth.read_truth(pair), made.positions
            if predicted.shape != expected.shape:
                raise PatchwordError(
                    f"mask {pair.mask} is {_size(expected.shape)} pixels and the prediction for {pair.name} "
                    f"{_size(predicted.shape)}; they must be of one size, masks are never resized"
                    f"{_orientation(pair, expected.shape) or _orientation(pair, predicted.shape)}"
                )
            dilation = self.scoring.boundary_dilation if self.scoring.boundary else None
            counts = count_image(predicted, expected, count=len(self.truth.names), dilation=dilation)
        except PatchwordError as error:
            return Written(ImageScore.failure(str(error), name=pair.name, content=made.content))
        size = (expected.shape[0], expected.shape[1])
        record = ImageScore.of(counts, name=pair.name, size=size, content=made.content)
        record = record.model_copy(update={"mask_content": _mask_content(pair.mask)})
        if self.worst is not None:
            self.worst.offer(pair, record, maps=(predicted, expected))
        return Written(record)


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
