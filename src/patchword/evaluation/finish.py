"""An evaluation as a folder: what its runs must have in common, its end in scores and a page, shards together."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from patchword.data.folders import Manifest, write_bytes, write_json, write_text
from patchword.errors import PatchwordError
from patchword.evaluation.confusion import Counts
from patchword.evaluation.page import PAGE_FILE, render
from patchword.evaluation.pictures import CONFUSION_PICTURE, FAILURES_FOLDER, FailureCases, draw_confusion
from patchword.evaluation.records import IMAGES_FILE, MARKER, SETUP_FILE, ImageScore, SetupRecord, read_images
from patchword.evaluation.report import REPORT_FILE, EvaluationReport, gather, make_report
from patchword.runs.folder_run import Difference, FolderKind
from patchword.runs.merge import Part, all_names, link_or_copy, merge_parts, open_parts

CONFUSION_FILE = "confusion.csv"
_RESULTS = (REPORT_FILE, PAGE_FILE, CONFUSION_FILE, CONFUSION_PICTURE)


class EvaluationFolder(FolderKind[SetupRecord, ImageScore]):
    """The folders of `evaluate`."""

    marker, record_file, manifest_file = MARKER, SETUP_FILE, IMAGES_FILE
    command, doing, done = "evaluate", "evaluating", "scored"
    changed = ("or its mask changed", "or their masks changed")

    def load(self, folder: Path) -> SetupRecord:
        return SetupRecord.load(folder)

    def read_lines(self, manifest: Manifest) -> dict[str, ImageScore]:
        return read_images(manifest)

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


def finish(folder: Path, *, setup: SetupRecord, names: Collection[str], command: str) -> EvaluationReport:
    """Write everything that follows from `images.jsonl`; `evaluation.json` comes last and vouches for the rest.

    A shard gets no `evaluation.json`; its own scores are returned.
    """
    manifest = Manifest(folder / IMAGES_FILE)
    manifest.finish()
    wanted = frozenset(names)
    found = {name: record for name, record in read_images(manifest).items() if name in wanted}
    failed = {name: record.reason or "" for name, record in found.items() if record.status == "failed"}
    if failed:
        raise UnscoredError(failed, of=len(wanted), where=folder / IMAGES_FILE)
    images = list(found.values())
    try:
        gathered = gather(setup, images)
    except ValueError as error:
        raise PatchwordError(f"{folder / IMAGES_FILE} is of another evaluation: {error}") from None
    report = make_report(setup, gathered, command=command)
    worst = FailureCases(folder, setup=setup, known=images)
    worst.prune()
    if setup.shard is None:
        _write_results(folder, report, images, table=gathered.whole.table, worst=worst)
    return report


def _write_results(
    folder: Path, report: EvaluationReport, images: Sequence[ImageScore], *, table: Counts, worst: FailureCases
) -> None:
    names = [entry.name for entry in report.classes]
    write_text(folder / CONFUSION_FILE, _confusion_csv(table.tolist(), names))
    confusion = draw_confusion(table, names=names)
    write_bytes(folder / CONFUSION_PICTURE, confusion)
    write_text(folder / PAGE_FILE, render(report, images=images, worst=worst.pictures(), confusion=confusion))
    write_json(folder / REPORT_FILE, report.model_dump(mode="json"))


def _confusion_csv(table: list[list[int]], names: list[str]) -> str:
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
    """Put the shards of one evaluation together.

    But for the command and the versions in it, `evaluation.json` has the bytes of a run without shards; but for
    `runs.jsonl` and these, so has everything else. Where each shard's photographs and masks lay does not matter.

    Args:
        shards: folders that `evaluate` wrote with `shard`, all of them, in any order.
        out: folder of the evaluation.
        overwrite: empty such a folder first.
        command: what the user typed, for the record.
    """
    folder = Path(out)
    parts = open_parts(EVALUATIONS, shards)
    names = all_names(parts)

    def end(setup: SetupRecord, manifest: Manifest) -> EvaluationReport:
        _take_pictures(parts, into=folder, setup=setup)
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


def _take_pictures(parts: Sequence[Part[SetupRecord, ImageScore]], *, into: Path, setup: SetupRecord) -> None:
    """The pictures of the images that are among the lowest of all."""
    everything = [image for part in parts for image in part.lines.values()]
    owner = {name: part for part in parts for name in part.lines}
    there = {path for part in parts for path in (part.folder / FAILURES_FOLDER).rglob("*.jpg")}
    for name in FailureCases(into, setup=setup, known=everything).names():
        old = FailureCases.path(owner[name].folder, name)
        if old in there:
            link_or_copy(old, FailureCases.path(into, name))
