"""A folder of segmented photographs as a whole: what its runs must have in common, how they end, shards together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from patchword.config.base import Settings
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.errors import PatchwordError
from patchword.runs.folder_run import Difference, Earlier, FolderKind
from patchword.runs.merge import Part, all_names, merge_parts, open_parts, photographs_of
from patchword.runs.records import identity_of, in_words, relative_root, told_by_both, vocabulary_differences
from patchword.segmentation.page import write_page
from patchword.segmentation.records import (
    MARKER,
    RESULTS,
    SETTINGS,
    STATUSES,
    Counts,
    ResultRecord,
    SegmentationRecord,
    SegmentedFolder,
    check_results,
    read_results,
)
from patchword.segmentation.result import files_of_record


class SegmentFolder(FolderKind[SegmentationRecord, ResultRecord]):
    """The folders of `segment`."""

    marker, record_file, manifest_file = MARKER, SETTINGS, RESULTS
    command, doing, done = "segment", "segmenting", "segmented"
    statuses = STATUSES

    def load(self, folder: Path) -> SegmentationRecord:
        return SegmentationRecord.load(folder)

    def read_lines(self, manifest: Manifest) -> dict[str, ResultRecord]:
        return read_results(manifest)

    def differences(self, before: SegmentationRecord, now: SegmentationRecord, *, merging: bool) -> list[Difference]:
        first, second = dict(identity_of(before.segmenter)), dict(identity_of(now.segmenter))
        keys = told_by_both(first, second)
        return [
            *vocabulary_differences(before.vocabulary, now.vocabulary),
            *((f"the segmenter's {in_words(key)}", first.get(key, "none"), second.get(key, "none")) for key in keys),
            *_values(before.settings, now.settings),
            *_values(before.folder_settings, now.folder_settings),
        ]

    def files(self, folder: Path, record: SegmentationRecord, line: ResultRecord) -> Sequence[Path]:
        return files_of_record(folder, line, settings=record.folder_settings)

    def source(self, line: ResultRecord) -> str:
        return line.source

    def photographs(self, record: SegmentationRecord) -> str:
        return record.photographs

    def reopened(self, earlier: SegmentationRecord, now: SegmentationRecord) -> SegmentationRecord:
        return earlier.model_copy(update={"complete": False, "counts": None, "photographs": now.photographs})

    def check_resumed(self, earlier: Earlier[ResultRecord], *, folder: Path) -> None:
        videos = [line for line in earlier.lines.values() if line.is_video]
        changed = [line.name for line in videos if line.name in earlier.changed and line.frames and line.status == "ok"]
        if changed:  # the frames that are done are of another video
            raise PatchwordError(
                f"cannot resume {folder}: video {changed[0]} changed since it was segmented; pass --overwrite to start "
                "again, or choose another folder"
            )
        unknown = [line.name for line in videos if line.content is None]
        if earlier.moved and unknown:
            raise PatchwordError(
                f"cannot resume {folder}: the photographs are in another folder now, and video {unknown[0]} is not "
                "known to be the same; pass --overwrite to start again, or choose another folder"
            )

    def is_complete(self, record: SegmentationRecord) -> bool:
        return record.complete

    def check_lines(self, folder: Path, record: SegmentationRecord, lines: Mapping[str, ResultRecord]) -> None:
        check_results(folder, record, lines)


SEGMENTED = SegmentFolder()


def _values(before: Settings, now: Settings) -> list[Difference]:
    other = now.model_dump()
    return [(f"setting `{key}`", value, other[key]) for key, value in before.model_dump().items()]


def finish(folder: Path, *, record: SegmentationRecord, manifest: Manifest, wanted: Iterable[str]) -> SegmentedFolder:
    """Sort the results, write the page, count, and write down that the folder is complete. May be repeated.

    Args:
        folder: of the result.
        record: of the run so far.
        manifest: of the results, which is closed.
        wanted: names of the photographs and videos that this run was asked for; the folder may hold others.
    """
    manifest.finish()
    results = read_results(manifest)
    write_page(folder, record=record, results=results)
    counts = Counts.of(results.values(), names=record.names)
    record.model_copy(update={"complete": True, "counts": counts}).save(folder)
    asked = set(wanted)
    mine = [result for result in results.values() if result.source in asked]
    return SegmentedFolder(
        folder,
        tuple(result.name for result in mine if result.status == "ok" and result.is_counted),
        {result.name: result.reason or "" for result in mine if result.status == "failed"},
    )


def merge_segmentations(
    shards: Sequence[str | Path],
    *,
    out: str | Path,
    photos: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SegmentedFolder:
    """Put the shards of one folder together; but for `runs.jsonl` the bytes are those of a run without shards.

    Args:
        shards: folders that `segment` wrote with `shard`, all of them, in any order.
        out: folder of the result.
        photos: where the photographs are now; by default where they were, relative to the first shard.
        overwrite: empty such a folder first.
        quiet: whether to show no progress.
        command: what the user typed, for the record.
    """
    folder = as_path(out)
    parts = open_parts(SEGMENTED, shards)
    names = all_names(parts, names_of=_names)
    _check_frames(parts)
    root = photographs_of(parts[0], SEGMENTED, photos=photos)
    whole = {"shard": None, "complete": False, "counts": None, "photographs": relative_root(root, folder=folder)}
    return merge_parts(
        SEGMENTED,
        parts,
        out=folder,
        record=parts[0].record.model_copy(update=whole),
        finish=lambda record, manifest: finish(folder, record=record, manifest=manifest, wanted=names),
        overwrite=overwrite,
        command=command,
        quiet=quiet,
    )


def _names(part: Part[SegmentationRecord, ResultRecord]) -> list[str]:
    """Of the photographs that a shard has done; every shard goes through the videos, the first one names them."""
    lines = part.lines.values()
    return [line.name for line in lines if line.source == line.name and (not line.is_video or part.shard.index == 1)]


def _check_frames(parts: Sequence[Part[SegmentationRecord, ResultRecord]]) -> None:
    """Refuse shards that do not have every frame of every video together."""
    have = Counter(line.source for part in parts for line in part.lines.values() if line.source != line.name)
    told = {line.name: line.frames for part in parts for line in part.lines.values() if line.frames is not None}
    for name, frames in told.items():
        if have[name] != frames:
            raise PatchwordError(
                f"the shards have {have[name]} of the {frames} frames of {name}; finish each with --resume"
            )
