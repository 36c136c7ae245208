"""The beginning of a folder run: a new one, or one that goes on where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from patchword.config.base import Settings
from patchword.data.folders import Manifest
from patchword.errors import PatchwordError
from patchword.runs.pipeline import changed_photographs, told
from patchword.runs.records import identity_of, in_words, told_by_both
from patchword.runs.shards import shard_differences
from patchword.segmentation.files import files_of_record
from patchword.segmentation.records import RESULTS, SETTINGS, ResultRecord, SegmentationRecord, read_results

_SHOWN = 3  # names of a class list in a message


@dataclass(frozen=True)
class Kept:
    """What an earlier run has done.

    Attributes:
        names: of what needs no more work.
        failed: how many of those have failed.
        frames: of every video that is done, how many were to be segmented.
    """

    names: frozenset[str] = frozenset()
    failed: int = 0
    frames: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Beginning:
    """A run that may begin; nothing on disk has changed yet.

    Attributes:
        record: of the folder, not complete.
        kept: what needs no more work.
        notes: what the user should know of it, a line each.
    """

    record: SegmentationRecord
    kept: Kept = field(default_factory=Kept)
    notes: tuple[str, ...] = ()


def begin(
    folder: Path,
    record: SegmentationRecord,
    *,
    root: Path,
    manifest: Manifest,
    retry_failed: bool = False,
    quiet: bool = True,
) -> Beginning:
    """Find out what a run has to do; where an earlier one left its record, check that it is the same.

    Photographs that were segmented are compared with their content in the results. Those that changed are segmented
    again. Where all are in another folder now, with the same names and content, that is their folder from then on.

    Args:
        folder: of the result.
        record: not complete yet.
        root: the photographs'.
        manifest: of the results.
        retry_failed: whether what failed needs more work.
        quiet: whether to show no progress.

    Returns:
        the beginning, of which nothing is written down yet.
    """
    if not (folder / SETTINGS).exists():
        if (folder / RESULTS).exists():
            raise PatchwordError(
                f"cannot resume {folder}: it has results but no {SETTINGS}, as when emptying it was interrupted; "
                "pass --overwrite, or choose another folder"
            )
        return Beginning(record)
    earlier = SegmentationRecord.load(folder)
    for what, before, now in differences(earlier, record):
        raise PatchwordError(
            f"cannot resume {folder}: {what} was {before}, now {now}; resume with what it was, or pass --overwrite "
            "to start again"
        )
    results = read_results(manifest)
    recorded = {name: result.content for name, result in results.items() if result.content is not None}
    paths = {name: root / PurePosixPath(name) for name in recorded}
    gone, changed = changed_photographs(recorded, paths=paths, quiet=quiet)
    notes = []
    if record.photographs != earlier.photographs:
        _check_moved([*gone, *changed], results, folder=folder, before=earlier.photographs, now=record.photographs)
        notes.append(
            f"the photographs were in {earlier.photographs} and are now in {record.photographs}, with the same content"
        )
    _check_videos([name for name in changed if results[name].frames and results[name].status == "ok"], folder=folder)
    if changed:
        since = told(changed, "changed since it was segmented", more="changed since they were segmented")
        notes.append(f"{since}; segmented again")
    kept = _kept(folder, results, changed=frozenset(changed), record=earlier, retry_failed=retry_failed)
    going_on = {"complete": False, "counts": None, "photographs": record.photographs}
    return Beginning(earlier.model_copy(update=going_on), kept, tuple(notes))


def _check_moved(
    other: Sequence[str], results: Mapping[str, ResultRecord], *, folder: Path, before: str, now: str
) -> None:
    """Refuse a folder that is not known to hold the same photographs and videos under the same names."""
    unknown = [name for name, each in results.items() if each.is_video and each.content is None]
    if other or unknown:
        raise PatchwordError(
            f"cannot resume {folder}: the photographs' folder was {before}, now {now}, where {len(other) or 'some'} of "
            f"them are not known to be the same, such as {min(other or unknown)}; resume with the same photographs, or "
            "pass --overwrite to start again"
        )


def _check_videos(changed: Sequence[str], *, folder: Path) -> None:
    """Refuse to go on with a video of which the frames that are done are of another video."""
    if changed:
        raise PatchwordError(
            f"cannot resume {folder}: video {changed[0]} changed since it was segmented; pass --overwrite to start "
            "again, or choose another folder"
        )


def differences(before: SegmentationRecord, now: SegmentationRecord) -> list[tuple[str, object, object]]:
    """What two runs do not have in common: what it is, its value in the first, its value in the second."""
    pairs: list[tuple[str, object, object]] = [
        ("the class list", *_told(before.names, now.names)),
        ("the vocabulary's hash", before.vocabulary_hash, now.vocabulary_hash),
    ]
    first, second = dict(identity_of(before.segmenter)), dict(identity_of(now.segmenter))
    keys = told_by_both(first, second)
    pairs += [(f"the segmenter's {in_words(key)}", first.get(key, "none"), second.get(key, "none")) for key in keys]
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


def _kept(
    folder: Path,
    results: Mapping[str, ResultRecord],
    *,
    changed: frozenset[str],
    record: SegmentationRecord,
    retry_failed: bool,
) -> Kept:
    """What has a record and all its files, or has failed, and is of a photograph that is still the same."""
    done, failed, frames = set(), set(), {}
    for name, result in results.items():
        if name in changed:
            continue
        if result.status == "failed":
            failed.add(name)
        elif all(path.is_file() for path in files_of_record(folder, result, settings=record.folder_settings)):
            done.add(name)
        if result.frames is not None and not (retry_failed and result.status == "failed"):
            frames[name] = result.frames
    if retry_failed:
        return Kept(frozenset(done), failed=0, frames=frames)
    return Kept(frozenset(done | failed), failed=len(failed), frames=frames)
