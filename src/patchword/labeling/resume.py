"""The beginning of a folder run: a new one, or one that goes on where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from patchword.config.label import LabelSettings
from patchword.data.folders import Manifest, read_marker, remove_leftovers, replace_file
from patchword.errors import PatchwordError
from patchword.labeling.image import LabelParts
from patchword.labeling.records import (
    DATASET_FILE,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MARKER,
    DatasetRecord,
    ImageRecord,
    label_map_path,
    read_manifest,
    segments_path,
)
from patchword.models.protocols import ModelRecord
from patchword.runs.pipeline import changed_photographs, told
from patchword.runs.progress import photograph_count
from patchword.runs.records import Numerics, ShardRecord, VocabularyRecord, relative_root, unrecorded_numerics
from patchword.runs.shards import shard_differences

CORRECTIONS = "pass --overwrite-corrections to remove them, or choose another folder"


@dataclass(frozen=True)
class Kept:
    """What an earlier run has done, of the photographs that are asked for now.

    Attributes:
        names: photographs that need no more work.
        failed: how many of them have failed.
    """

    names: frozenset[str] = frozenset()
    failed: int = 0


@dataclass(frozen=True)
class Beginning:
    """A run that may begin; nothing on disk has changed yet.

    Attributes:
        record: of the data set, not complete.
        kept: what needs no more work.
        gone: labelled photographs that no longer exist, whose labels go.
        notes: what the user should know of them, a line each.
    """

    record: DatasetRecord
    kept: Kept = Kept()
    gone: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def write(self, folder: Path, *, manifest: Manifest) -> None:
        """Write down that the run has begun, and remove what goes."""
        remove_leftovers(folder)
        self.record.save(folder)
        if self.gone:
            _forget(folder, manifest=manifest, gone=self.gone)


def begin(
    folder: Path,
    *,
    root: Path,
    names: Collection[str],
    parts: LabelParts,
    settings: LabelSettings,
    manifest: Manifest,
    shard: ShardRecord | None = None,
    forget_missing: bool = False,
    retry_failed: bool = False,
    preset: str | None = None,
    encoder: str | None = None,
    quiet: bool = True,
) -> Beginning:
    """Find out what a run has to do; where an earlier one left its record, check that it is the same.

    Photographs that were labelled are compared with their content in the manifest. Those that changed are labelled
    again. Where all are in another folder now, with the same names and content, that is their folder from then on.

    Args:
        folder: the data set's.
        root: the photographs'.
        names: of the photographs that are asked for; others that were labelled stay in the data set.
        manifest: the data set's.
        shard: which part of them the run takes.
        forget_missing: remove what there is of photographs that no longer exist.
        retry_failed: whether a photograph that failed needs more work.
        preset, encoder: what a later `align` goes by.
        quiet: whether to show no progress.

    Returns:
        the beginning, of which nothing is written down yet.
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
        numerics=Numerics.of(
            {
                "image-text model": parts.image_text,
                "mask proposer": parts.mask_proposer,
                "vision encoder": parts.patch_encoder,
            }
        ),
        preset=preset,
        encoder=encoder,
    )
    if (folder / DATASET_FILE).exists():
        earlier = DatasetRecord.load(folder)
        _check_same(record, earlier=earlier, folder=folder)
        records = read_manifest(manifest)
        return _go_on(
            earlier,
            records,
            folder=folder,
            root=root,
            names=frozenset(names),
            forget_missing=forget_missing,
            retry_failed=retry_failed,
            quiet=quiet,
        )
    if (folder / MANIFEST_FILE).exists():
        raise PatchwordError(
            f"cannot resume {folder}: it has results but no {DATASET_FILE}, as when emptying it was interrupted; "
            "pass --overwrite, or choose another folder"
        )
    return Beginning(record)


def refuse_corrections(out: str | Path, *, keeping: Collection[str] = (), instead: str) -> None:
    """Refuse to empty a folder of labels that a person corrected and `import` brought back.

    Args:
        out: the folder, which need not be there.
        keeping: names of photographs whose labels come anew from a person.
        instead: how to go on.
    """
    folder = Path(out)
    if read_marker(folder) != MARKER or not (folder / DATASET_FILE).is_file():
        return
    try:
        source = DatasetRecord.load(folder).source
        records = {} if source == "models" else read_manifest(Manifest(folder / MANIFEST_FILE))
    except PatchwordError:  # whoever asks to overwrite what is damaged may
        return
    lost = [name for name, record in records.items() if record.status != "failed" and name not in keeping]
    if lost:
        raise PatchwordError(
            f"{out} holds the labels of {photograph_count(len(lost))} that were corrected by hand and imported from "
            f"{source}; --overwrite keeps such labels: {instead}"
        )


def _check_same(record: DatasetRecord, *, earlier: DatasetRecord, folder: Path) -> None:
    """Refuse a run that asks for something else than the earlier one, naming the first thing that differs."""
    for what, before, now in differences(earlier, record):
        raise PatchwordError(
            f"cannot resume {folder}: {what} was {before}, now {now}; resume with what it was, or choose another folder"
        )
    for what, before, now in numerical_differences(earlier, record):
        advice = "" if earlier.numerics is None else earlier.numerics.advice()
        raise PatchwordError(
            f"cannot resume {folder}: {what} was {before}, now {now}; {advice}, or choose another folder"
        )


def _go_on(
    earlier: DatasetRecord,
    records: dict[str, ImageRecord],
    *,
    folder: Path,
    root: Path,
    names: frozenset[str],
    forget_missing: bool,
    retry_failed: bool,
    quiet: bool,
) -> Beginning:
    now = relative_root(root, folder=folder)
    moved = now != earlier.photographs
    known = {name: record.content for name, record in records.items() if moved or name in names}
    away, changed = changed_photographs(known, paths={name: root / PurePosixPath(name) for name in known}, quiet=quiet)
    gone = {name for name in (*away, *(records.keys() - known.keys())) if not (root / PurePosixPath(name)).is_file()}
    if moved:
        other = [*changed, *(gone if len(gone) == len(records) else ())]
        _check_moved(other, known, folder=folder, before=earlier.photographs, now=now)
    if gone and not forget_missing:
        raise PatchwordError(
            f"{len(gone)} of {len(records)} labelled photographs are gone from {root}, such as {min(gone)}; put them "
            "back, or resume with --forget-missing to drop their labels"
        )
    failed = {name for name, record in records.items() if record.status == "failed" and name in names}
    labelled = {
        name
        for name, record in records.items()
        if name in names and record.status != "failed" and _has_files(folder, name)
    }
    failed -= gone.union(changed)
    labelled -= gone.union(changed)
    kept = Kept(frozenset(labelled)) if retry_failed else Kept(frozenset(labelled | failed), failed=len(failed))
    notes = [unrecorded_numerics(folder)] if earlier.numerics is None else []
    if moved:
        notes.append(f"the photographs were in {earlier.photographs} and are now in {now}, with the same content")
    if changed:
        since = told(changed, "changed since it was labelled", more="changed since they were labelled")
        notes.append(f"{since}; labelled again")
    record = earlier.model_copy(update={"complete": False, "counts": None, "photographs": now})
    return Beginning(record, kept, frozenset(gone), tuple(notes))


def _check_moved(other: Sequence[str], known: Mapping[str, str | None], *, folder: Path, before: str, now: str) -> None:
    """Refuse a folder that holds other photographs under the same names, or none of them."""
    if other:
        raise PatchwordError(
            f"cannot resume {folder}: the photographs' folder was {before}, now {now}, where {len(other)} of "
            f"{len(known)} are not the same, such as {min(other)}; resume with the same photographs, or choose another "
            "folder"
        )


def differences(before: DatasetRecord, now: DatasetRecord) -> list[tuple[str, object, object]]:
    """What two runs do not have in common: what it is, its value in the first, its value in the second."""
    pairs: list[tuple[str, object, object]] = [("the source of the labels", before.source, now.source)]
    pairs.append(("the vocabulary's hash", before.vocabulary.hash, now.vocabulary.hash))
    for what, first, second in (
        ("the image-text model", before.image_text, now.image_text),
        ("the mask generator", before.mask_proposer, now.mask_proposer),
        ("the vision encoder", before.patch_encoder, now.patch_encoder),
    ):
        pairs.append((what, _identity(first), _identity(second)))
    pairs += shard_differences(before.shard, now.shard)
    settings = _values(now.settings)
    pairs += [(f"setting `{key}`", value, settings[key]) for key, value in _values(before.settings).items()]
    return [pair for pair in pairs if pair[1] != pair[2]]


def numerical_differences(before: DatasetRecord, now: DatasetRecord) -> list[tuple[str, object, object]]:
    """What two runs' numerics do not have in common, as `differences`; nothing where one of them is not recorded."""
    if before.numerics is None or now.numerics is None:
        return []
    return before.numerics.differences(now.numerics)


def _values(settings: LabelSettings | None) -> dict[str, object]:
    # How many prompts are decoded at once is a matter of memory; earlier versions had another default.
    return settings.model_dump(exclude={"points_per_batch"}) if settings else {}


def _identity(model: ModelRecord | None) -> str:
    """A checkpoint is its weights, wherever they lie; without their fingerprint, its name and revision."""
    if model is None:
        return "none"
    return model.fingerprint or f"{model.name} at {model.revision}"


def _has_files(folder: Path, name: str) -> bool:
    return label_map_path(folder, name).is_file() and segments_path(folder, name).is_file()


def _forget(folder: Path, *, manifest: Manifest, gone: Set[str]) -> None:
    records = read_manifest(manifest)
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
        replace_file(fresh_path, manifest.path)
    else:
        manifest.path.unlink()
