"""Predictions against masks, image by image: stops anywhere, goes on, and ends in scores and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from patchword.config.base import one_line
from patchword.config.evaluate import ScoredRun, ScoringSettings
from patchword.data.folders import write_bytes, write_json, write_text
from patchword.data.images import orientation_hint
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError
from patchword.evaluation.counts import count_image
from patchword.evaluation.masks import EvaluationTask, MaskRule, Pair, Positions
from patchword.evaluation.page import PAGE_FILE, render
from patchword.evaluation.pictures import CONFUSION_PICTURE, FAILURES_FOLDER, FailureCases, draw_confusion
from patchword.evaluation.records import IMAGES_FILE, MARKER, SETUP_FILE, ImageScore, SetupRecord, read_record
from patchword.evaluation.report import REPORT_FILE, EvaluationReport, gather, make_report
from patchword.runs.folder_run import Beginning, Difference, FolderKind, FolderRun
from patchword.runs.merge import all_names, link_or_copy, merge_parts, open_parts
from patchword.runs.pipeline import Chunk, Executor, InThreads, Photograph, Pixels, Written, content_of
from patchword.runs.progress import Progress
from patchword.runs.records import VocabularyRecord
from patchword.runs.shards import chunks_of, names_hash

if TYPE_CHECKING:
    from patchword.evaluation.predictors import Predictor

CONFUSION_FILE = "confusion.csv"
_RESULTS = (REPORT_FILE, PAGE_FILE, CONFUSION_FILE, CONFUSION_PICTURE)


class EvaluationFolder(FolderKind[SetupRecord, ImageScore]):
    """The folders of `evaluate`."""

    marker, record_file, manifest_file = MARKER, SETUP_FILE, IMAGES_FILE
    command, doing, done = "evaluate", "evaluating", "scored"
    changed = ("or its mask changed", "or their masks changed")

    def load(self, folder: Path) -> SetupRecord:
        if not (folder / SETUP_FILE).exists():
            raise PatchwordError(
                f"{folder} is not an evaluation: it has no {SETUP_FILE}; make one with `patchword evaluate -o`"
            )
        return read_record(folder / SETUP_FILE, SetupRecord)

    def read_lines(self, manifest: Manifest) -> dict[str, ImageScore]:
        found = {}
        for name, line in manifest.read().items():
            try:
                found[name] = ImageScore.model_validate(line)
            except ValidationError as error:
                reason = one_line(error, place="field")
                raise PatchwordError(f"{manifest.path}: the line of {name} is damaged: {reason}") from None
        return found

    def differences(self, before: SetupRecord, now: SetupRecord, *, merging: bool) -> list[Difference]:
        return before.differences(now, merging=merging)

    def withdraw(self, folder: Path) -> None:
        for name in _RESULTS:
            try:
                (folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise PatchwordError(f"cannot remove {folder / name}: {error.strerror}") from None


EVALUATIONS = EvaluationFolder()


class UnscoredError(PatchwordError):
    """Images that could not be scored, `reasons` by name. A score over the others would pass for that of all."""

    def __init__(self, reasons: Mapping[str, str], *, of: int, where: Path | None, early: bool = False) -> None:
        self.reasons = dict(reasons)
        first = "so that the run ended early; the first is" if early else "such as"
        name, reason = next(iter(self.reasons.items()))
        listed = "" if where is None else f"; {where} lists them"
        super().__init__(
            f"{len(self.reasons)} of {of} images could not be scored, {first} {name}: {reason}{listed}; there is no "
            "score over a part of the images: put them right and resume, or leave them out by a list of names"
        )


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
    setup = SetupRecord(
        data=task.data,
        images=len(names),
        images_hash=names_hash(names),
        vocabulary=VocabularyRecord.of(task.truth.vocabulary),
        classes=task.truth.names,
        predicted_by=predictor.describe(),
        scoring=chosen,
        shard=None if shard is None else shard.record(names),
    )
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
            progress.advance()
            found.append(record)

    if folder is None:
        with Progress(len(names), "evaluating", quiet=run.quiet) as progress:
            work = EvaluateWork(pairs, task.truth, predictor, chosen)
            executor.run(Beginning(setup).chunks(chunks, paths=sources), work=work, done=watch)
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
    truth: MaskRule
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
                sizes = [(each.shape[0], each.shape[1]) for each in (expected, predicted)]
                of_mask, of_prediction = (f"{width} x {height}" for height, width in sizes)
                hints = (orientation_hint(pair.photo, size=size) for size in sizes)
                raise PatchwordError(
                    f"mask {pair.mask} is {of_mask} pixels and the prediction for {pair.name} {of_prediction}; they "
                    f"must be of one size, masks are never resized{next(filter(None, hints), '')}"
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


def _mask_content(path: Path) -> str | None:
    try:
        return _content_at(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)  # the masks of some benchmarks are one file, which is as it was while its time is
def _content_at(path: Path, modified: int) -> str | None:
    return content_of(path)


def finish(folder: Path, *, setup: SetupRecord, names: Collection[str], command: str) -> EvaluationReport:
    """Write everything that follows from `images.jsonl`; `evaluation.json` comes last and vouches for the rest.

    A shard gets no `evaluation.json`; its own scores are returned.
    """
    manifest = Manifest(folder / IMAGES_FILE)
    manifest.finish()
    wanted = frozenset(names)
    images = [record for name, record in EVALUATIONS.read_lines(manifest).items() if name in wanted]
    failed = {record.name: record.reason or "" for record in images if record.status == "failed"}
    if failed:
        raise UnscoredError(failed, of=len(wanted), where=folder / IMAGES_FILE)
    try:
        gathered = gather(setup, images)
    except ValueError as error:
        raise PatchwordError(f"{folder / IMAGES_FILE} is of another evaluation: {error}") from None
    report = make_report(setup, gathered, command=command)
    worst = FailureCases(folder, setup=setup, known=images)
    worst.prune()
    if setup.shard is None:
        table = gathered.whole.table
        write_text(folder / CONFUSION_FILE, _confusion_csv(table.tolist(), setup.classes))
        confusion = draw_confusion(table, names=setup.classes)
        write_bytes(folder / CONFUSION_PICTURE, confusion)
        write_text(folder / PAGE_FILE, render(report, images=images, worst=worst.pictures(), confusion=confusion))
        write_json(folder / REPORT_FILE, report.model_dump(mode="json"))
    return report


def _confusion_csv(table: list[list[int]], names: Sequence[str]) -> str:
    """Rows truth, columns prediction, the last column no prediction."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["truth", *names, "no prediction"])
    for name, counts in zip(names, table, strict=True):
        writer.writerow([name, *counts])
    return buffer.getvalue()


def merge_evaluations(
    shards: Sequence[str | Path], *, out: str | Path, overwrite: bool = False, command: str = ""
) -> EvaluationReport:
    """Put the shards of one evaluation, all of them in any order, together.

    But for the command and the versions in it, `evaluation.json` has the bytes of a run without shards; but for
    `runs.jsonl` and these, so has everything else. Where each shard's photographs and masks lay does not matter.
    """
    folder = Path(out)
    parts = open_parts(EVALUATIONS, shards)
    names = all_names(parts)

    def end(setup: SetupRecord, manifest: Manifest) -> EvaluationReport:
        everything = {name: (image, part.folder) for part in parts for name, image in part.lines.items()}
        there = {path for part in parts for path in (part.folder / FAILURES_FOLDER).rglob("*.jpg")}
        for name in FailureCases(folder, setup=setup, known=(image for image, _ in everything.values())).names():
            old = FailureCases.path(everything[name][1], name)
            if old in there:
                link_or_copy(old, FailureCases.path(folder, name))
        return finish(folder, setup=setup, names=names, command=command)

    return merge_parts(
        EVALUATIONS,
        parts,
        out=folder,
        record=parts[0].record.model_copy(update={"shard": None}),
        finish=end,
        overwrite=overwrite,
        command=command,
        quiet=True,
    )
