"""The beginning of a folder run: a new one, or one that goes on where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from patchword.errors import PatchwordError
from patchword.folders import Manifest
from patchword.label.dataset import label_map_path, read_manifest, segments_path
from patchword.label.image import LabelParts
from patchword.label.records import DATASET_FILE, FORMAT, FORMAT_VERSION, MANIFEST_FILE, DatasetRecord, ImageRecord
from patchword.label.settings import LabelSettings
from patchword.models.protocols import ModelRecord
from patchword.runs.records import ShardRecord, VocabularyRecord, relative_root
from patchword.runs.shards import shard_differences


def begin(
    folder: Path, *, root: Path, parts: LabelParts, settings: LabelSettings, shard: ShardRecord | None = None
) -> DatasetRecord:
    """Write down what a run is about; where an earlier one left its record, check that it is the same.

    Args:
        folder: the data set's.
        root: the photographs'.
        shard: which part of them the run takes.

    Returns:
        the record, not complete yet.

    Raises:
        PatchwordError: naming what differs from the earlier run, or when its record is damaged or gone.
    """
    vocabulary = parts.vocabulary
    record = DatasetRecord(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        complete=False,
        photographs=relative_root(root, folder=folder),
        vocabulary=VocabularyRecord(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names),
        settings=settings,
        image_text=parts.image_text.record,
        mask_proposer=parts.mask_proposer.record,
        patch_encoder=parts.patch_encoder.record if parts.patch_encoder else None,
        shard=shard,
        counts=None,
    )
    if (folder / DATASET_FILE).exists():
        record = _continued(record, earlier=DatasetRecord.load(folder), folder=folder)
    elif (folder / MANIFEST_FILE).exists():
        raise PatchwordError(
            f"cannot resume {folder}: it has results but no {DATASET_FILE}, as when emptying it was interrupted; "
            "pass --overwrite, or choose another folder"
        )
    record.save(folder)
    return record


def _continued(record: DatasetRecord, *, earlier: DatasetRecord, folder: Path) -> DatasetRecord:
    """The record of the earlier run, when the new one asks for the same.

    Raises:
        PatchwordError: naming the first thing that differs.
    """
    for what, before, now in differences(earlier, record):
        raise PatchwordError(
            f"cannot resume {folder}: {what} was {before}, now {now}; resume with what it was, or choose another folder"
        )
    return earlier.model_copy(update={"complete": False, "counts": None})


def differences(before: DatasetRecord, now: DatasetRecord) -> list[tuple[str, object, object]]:
    """What two runs do not have in common: what it is, its value in the first, its value in the second."""
    pairs: list[tuple[str, object, object]] = [("the source of the labels", before.source, now.source)]
    pairs.append(("the photographs' folder", before.photographs, now.photographs))
    pairs.append(("the vocabulary's hash", before.vocabulary.hash, now.vocabulary.hash))
    for what, first, second in (
        ("the image-text model", before.image_text, now.image_text),
        ("the mask proposer", before.mask_proposer, now.mask_proposer),
        ("the vision encoder", before.patch_encoder, now.patch_encoder),
    ):
        pairs.append((what, _identity(first), _identity(second)))
    pairs += shard_differences(before.shard, now.shard)
    settings = _values(now.settings)
    pairs += [(f"setting `{key}`", value, settings[key]) for key, value in _values(before.settings).items()]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _values(settings: LabelSettings | None) -> dict[str, object]:
    return settings.model_dump() if settings else {}


def _identity(model: ModelRecord | None) -> str:
    """A checkpoint is its weights, wherever they lie; without their fingerprint, its name and revision."""
    if model is None:
        return "none"
    return model.fingerprint or f"{model.name} at {model.revision}"


@dataclass(frozen=True)
class Kept:
    """What an earlier run has done, of the photographs that are asked for now.

    Attributes:
        names: photographs that need no more work.
        failed: how many of them have failed.
    """

    names: frozenset[str]
    failed: int


def keep_done(
    folder: Path,
    *,
    root: Path,
    manifest: Manifest,
    names: Collection[str],
    forget_missing: bool = False,
    retry_failed: bool = False,
) -> Kept:
    """Keep what an earlier run has labelled.

    Args:
        root: folder of the photographs.
        names: of the photographs that are asked for now; others that were labelled stay in the data set.
        forget_missing: remove what there is of photographs that no longer exist.
        retry_failed: whether a photograph that failed needs more work.

    Returns:
        what has a record and both files, or has failed.

    Raises:
        PatchwordError: when labelled photographs are gone, which a folder that is not mounted looks like too, and they
            are not to be forgotten.
    """
    records = read_manifest(manifest)
    gone = {name for name in records.keys() - names if not (root / PurePosixPath(name)).is_file()}
    if gone and not forget_missing:
        raise PatchwordError(
            f"{len(gone)} of {len(records)} labelled photographs are gone from {root}, such as {min(gone)}; put them "
            "back, or resume with --forget-missing to drop their labels"
        )
    if gone:
        _forget(folder, manifest=manifest, records=records, gone=gone)
    failed = {name for name, record in records.items() if record.status == "failed" and name in names}
    labelled = {
        name
        for name, record in records.items()
        if name in names and record.status != "failed" and _has_files(folder, name)
    }
    if retry_failed:
        return Kept(frozenset(labelled), failed=0)
    return Kept(frozenset(labelled | failed), failed=len(failed))


def _has_files(folder: Path, name: str) -> bool:
    return label_map_path(folder, name).is_file() and segments_path(folder, name).is_file()


def _forget(folder: Path, *, manifest: Manifest, records: dict[str, ImageRecord], gone: Set[str]) -> None:
    for name in gone:
        label_map_path(folder, name).unlink(missing_ok=True)
        segments_path(folder, name).unlink(missing_ok=True)
    fresh_path = manifest.path.with_suffix(".new")
    fresh_path.unlink(missing_ok=True)
    with Manifest(fresh_path) as fresh:
        for record in records.values():
            if record.name not in gone:
                fresh.append(record.model_dump(mode="json"))
    if fresh_path.exists():
        fresh_path.replace(manifest.path)
    else:
        manifest.path.unlink()
