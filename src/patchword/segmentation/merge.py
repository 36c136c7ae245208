"""Shards of one folder of photographs become the folder that one run would have made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.data.folders import Manifest, prepare_output, sole_use
from patchword.errors import PatchwordError
from patchword.runs.progress import Progress
from patchword.runs.records import Session, ShardRecord, relative_root
from patchword.runs.shards import (
    all_names,
    check_apart,
    check_finished,
    check_folder,
    check_parts,
    check_shard,
    keep_sessions,
    link_or_copy,
)
from patchword.segmentation.files import files_of_record
from patchword.segmentation.records import (
    MARKER,
    RESULTS,
    STATUSES,
    ResultRecord,
    SegmentationRecord,
    SegmentedFolder,
    check_results,
    read_results,
)
from patchword.segmentation.resume import differences
from patchword.segmentation.run import finish


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

    Files become hard links where the file system allows it, else copies. patchword replaces files and never changes
    them, so that neither folder changes when the other is worked on.

    Args:
        shards: folders that `segment` wrote with `shard`, all of them, in any order.
        out: folder of the result.
        photos: where the photographs are now; by default where they were, relative to the first shard.
        overwrite: empty such a folder first.
        quiet: whether to show no progress.
        command: what the user typed, for the record.
    """
    parts = [_Part.open(Path(shard)) for shard in shards]
    check_parts(parts)
    _check_same_run(parts)
    names = all_names(parts)
    _check_frames(parts)
    first = parts[0]
    root = first.folder / first.record.photographs if photos is None else Path(photos)
    if photos is not None and not root.is_dir():
        raise PatchwordError(f"no such folder of photographs: {photos}; pass where they are now, or leave it out")
    check_apart([part.folder for part in parts], out=Path(out))
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    whole = {"shard": None, "complete": False, "counts": None, "photographs": relative_root(root, folder=folder)}
    record = first.record.model_copy(update=whole)
    with sole_use(folder):
        record.save(folder)
        keep_sessions(parts, into=folder)
        with Session(folder, command=command, options={"shards": len(parts)}, statuses=STATUSES):
            manifest = Manifest(folder / RESULTS)
            results = {name: (result, part.folder) for part in parts for name, result in part.results.items()}
            with Progress(len(results), "merging", "images", quiet=quiet) as progress, manifest:
                for result, source in results.values():
                    _take(result, source, into=folder, record=record)
                    manifest.append(result.line())
                    progress.advance()
            return finish(folder, record=record, manifest=manifest, wanted=names)


@dataclass(frozen=True)
class _Part:
    folder: Path
    record: SegmentationRecord
    shard: ShardRecord
    results: dict[str, ResultRecord]

    @classmethod
    def open(cls, folder: Path) -> _Part:
        check_folder(folder, command="segment")
        record = SegmentationRecord.load(folder)
        shard = check_shard(record.shard, folder=folder, command="segment")
        results = read_results(Manifest(folder / RESULTS))
        files = (
            path
            for result in results.values()
            for path in files_of_record(folder, result, settings=record.folder_settings)
        )
        check_finished(folder, complete=record.complete, files=files)
        check_results(folder, record, results)
        return cls(folder, record, shard, results)

    @property
    def names(self) -> Collection[str]:
        """Of the photographs that it has done; every shard goes through the videos, the first one names them."""
        results = self.results.values()
        videos = [each.name for each in results if each.is_video] if self.shard.index == 1 else []
        return [each.name for each in results if each.source == each.name and not each.is_video] + videos


def _check_same_run(parts: Sequence[_Part]) -> None:
    """Refuse what was not made alike; where the photographs were on each machine does not matter."""
    first, *others = (part.record.model_copy(update={"shard": None, "photographs": ""}) for part in parts)
    for part, record in zip(parts[1:], others, strict=True):
        for what, one, other in differences(first, record):
            raise PatchwordError(f"{parts[0].folder} and {part.folder} are not of one run: {what} is {one} and {other}")


def _check_frames(parts: Sequence[_Part]) -> None:
    """Refuse shards that do not have every frame of every video together."""
    have = Counter(each.source for part in parts for each in part.results.values() if each.source != each.name)
    told = {each.name: each.frames for part in parts for each in part.results.values() if each.frames is not None}
    for name, frames in told.items():
        if have[name] != frames:
            raise PatchwordError(
                f"the shards have {have[name]} of the {frames} frames of {name}; finish each with --resume"
            )


def _take(result: ResultRecord, source: Path, *, into: Path, record: SegmentationRecord) -> None:
    for old in files_of_record(source, result, settings=record.folder_settings):
        link_or_copy(old, into / old.relative_to(source))
