"""The beginning of a folder run: a new one, or one that goes on where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.folders import Manifest
from patchword.runs.records import identity_of
from patchword.runs.shards import shard_differences
from patchword.segment.files import files_of_record
from patchword.segment.records import RESULTS, SETTINGS, SegmentationRecord, read_results
from patchword.settings import Settings

_SHOWN = 3  # names of a class list in a message


def begin(folder: Path, record: SegmentationRecord) -> SegmentationRecord:
    """Write down what a run is about; where an earlier one left its record, check that it is the same.

    Args:
        folder: of the result.
        record: not complete yet.

    Returns:
        the record to go on with.

    Raises:
        PatchwordError: naming what differs from the earlier run, or when its record is damaged or gone.
    """
    if (folder / SETTINGS).exists():
        earlier = SegmentationRecord.load(folder)
        for what, before, now in differences(earlier, record):
            raise PatchwordError(
                f"cannot resume {folder}: {what} was {before}, now {now}; resume with what it was, or pass --overwrite "
                "to start again"
            )
        record = earlier.model_copy(update={"complete": False, "counts": None})
    elif (folder / RESULTS).exists():
        raise PatchwordError(
            f"cannot resume {folder}: it has results but no {SETTINGS}, as when emptying it was interrupted; "
            "pass --overwrite, or choose another folder"
        )
    record.save(folder)
    return record


def differences(before: SegmentationRecord, now: SegmentationRecord) -> list[tuple[str, object, object]]:
    """What two runs do not have in common: what it is, its value in the first, its value in the second."""
    pairs: list[tuple[str, object, object]] = [
        ("the photographs' folder", before.photographs, now.photographs),
        ("the class list", *_told(before.names, now.names)),
        ("the vocabulary's hash", before.vocabulary_hash, now.vocabulary_hash),
    ]
    first, second = dict(identity_of(before.segmenter)), dict(identity_of(now.segmenter))
    keys = sorted(first.keys() | second.keys())
    pairs += [(f"the segmenter's {key}", first.get(key, "none"), second.get(key, "none")) for key in keys]
    pairs += shard_differences(before.shard, now.shard)
    pairs += _values(before.settings, now.settings) + _values(before.folder_settings, now.folder_settings)
    return [pair for pair in pairs if pair[1] != pair[2]]


def _told(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, str]:
    """Two lists of classes in a few words: from the first on that differs, and no more than fit into a line."""
    same = next((at for at, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(before), len(now)) if same is None else same
    if max(len(before), len(now)) <= _SHOWN:
        start = 0
    return _few(before, start), _few(now, start)


def _few(names: tuple[str, ...], start: int) -> str:
    shown = ", ".join(repr(name) for name in names[start : start + _SHOWN]) or "nothing"
    ahead = f"{start} alike, then " if start else ""
    rest = len(names) - start - _SHOWN
    return f"{ahead}{shown}" + (f" and {rest} more" if rest > 0 else "")


def _values(before: Settings, now: Settings) -> list[tuple[str, object, object]]:
    other = now.model_dump()
    return [(f"setting `{key}`", value, other[key]) for key, value in before.model_dump().items()]


@dataclass(frozen=True)
class Kept:
    """What an earlier run has done.

    Attributes:
        names: of what needs no more work.
        failed: how many of those have failed.
        frames: of every video that is done, how many were to be segmented.
    """

    names: frozenset[str]
    failed: int
    frames: Mapping[str, int]


def keep_done(folder: Path, *, manifest: Manifest, record: SegmentationRecord, retry_failed: bool) -> Kept:
    """Keep what an earlier run has segmented: what has a record and all its files, or has failed.

    Args:
        folder: of the result.
        manifest: of its results.
        record: of the run.
        retry_failed: whether what failed needs more work.

    Raises:
        PatchwordError: when the results are damaged.
    """
    done, failed, frames = set(), set(), {}
    for name, result in read_results(manifest).items():
        if result.status == "failed":
            failed.add(name)
        elif all(path.is_file() for path in files_of_record(folder, result, settings=record.folder_settings)):
            done.add(name)
        if result.frames is not None and not (retry_failed and result.status == "failed"):
            frames[name] = result.frames
    if retry_failed:
        return Kept(frozenset(done), failed=0, frames=frames)
    return Kept(frozenset(done | failed), failed=len(failed), frames=frames)
