"""A folder of labels as a whole: what its runs must have in common, how they end, and shards put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from patchword.config.label import LabelSettings
from patchword.data.folders import read_marker, write_text
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset, check_manifest
from patchword.labeling.quality.records import DISAGREEMENT_FILE
from patchword.labeling.records import (
    CARD_FILE,
    DATASET_FILE,
    MANIFEST_FILE,
    MARKER,
    Counts,
    DatasetRecord,
    ImageRecord,
    dataset_card,
    embeddings_path,
    label_map_path,
    read_manifest,
    segments_path,
)
from patchword.labeling.review import ReviewLog, gather_reviews
from patchword.models.protocols import ModelRecord
from patchword.runs.folder_run import Difference, FolderKind
from patchword.runs.merge import all_names, merge_parts, open_parts, photographs_of
from patchword.runs.progress import photograph_count
from patchword.runs.records import Numerics, relative_root, vocabulary_differences

CORRECTIONS = "pass --overwrite-corrections to remove them, or choose another folder"


class LabelFolder(FolderKind[DatasetRecord, ImageRecord]):
    """The folders of `label`."""

    marker, record_file, manifest_file = MARKER, DATASET_FILE, MANIFEST_FILE
    command, doing, done = "label", "labelling", "labelled"

    def load(self, folder: Path) -> DatasetRecord:
        return DatasetRecord.load(folder)

    def read_lines(self, manifest: Manifest) -> dict[str, ImageRecord]:
        return read_manifest(manifest)

    def differences(self, before: DatasetRecord, now: DatasetRecord, *, merging: bool) -> list[Difference]:
        settings = _values(now.settings)
        return [
            ("the source of the labels", before.source, now.source),
            *vocabulary_differences(before.vocabulary.text, now.vocabulary.text),
            ("the image-text model", _identity(before.image_text), _identity(now.image_text)),
            ("the mask proposer", _identity(before.mask_proposer), _identity(now.mask_proposer)),
            ("the vision encoder", _identity(before.patch_encoder), _identity(now.patch_encoder)),
            *((f"setting `{key}`", value, settings[key]) for key, value in _values(before.settings).items()),
        ]

    def files(self, folder: Path, record: DatasetRecord, line: ImageRecord) -> Sequence[Path]:
        if line.status == "failed":
            return ()
        files = (label_map_path(folder, line.name), segments_path(folder, line.name))
        embedded = record.settings is not None and record.settings.mask_embeddings
        return (*files, embeddings_path(folder, line.name)) if embedded else files

    def photographs(self, record: DatasetRecord) -> str:
        return record.photographs

    def numerics(self, record: DatasetRecord) -> Numerics | None:
        return record.numerics

    def tells_numerics(self) -> bool:
        return True

    def reopened(self, earlier: DatasetRecord, now: DatasetRecord) -> DatasetRecord:
        return earlier.model_copy(update={"complete": False, "counts": None, "photographs": now.photographs})

    def is_complete(self, record: DatasetRecord) -> bool:
        return record.complete

    def check_lines(self, folder: Path, record: DatasetRecord, lines: Mapping[str, ImageRecord]) -> None:
        check_manifest(folder, record, found=len(lines))


LABELS = LabelFolder()


def _values(settings: LabelSettings | None) -> dict[str, object]:
    # How many prompts are decoded at once is a matter of memory; earlier versions had another default.
    return settings.model_dump(exclude={"points_per_batch"}) if settings else {}


def _identity(model: ModelRecord | None) -> str:
    """A checkpoint is its weights, wherever they lie; without their fingerprint, its name and revision."""
    if model is None:
        return "none"
    return model.fingerprint or f"{model.name} at {model.revision}"


def refuse_corrections(out: str | Path, *, keeping: Collection[str] = (), instead: str) -> None:
    """Refuse to empty a folder of labels that a person corrected and `import` brought back.

    Args:
        out: the folder, which need not be there.
        keeping: names of photographs whose labels come anew from a person.
        instead: how to go on.
    """
    folder = as_path(out)
    if read_marker(folder) != MARKER or not (folder / DATASET_FILE).is_file():
        return
    if reviewed := {decision.image for decision in ReviewLog(folder).decisions()}:
        raise PatchwordError(
            f"{out} holds decisions of a review on {photograph_count(len(reviewed))}; --overwrite keeps them: {instead}"
        )
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


def finish(
    folder: Path, *, record: DatasetRecord, manifest: Manifest, left_out: Mapping[str, int] | None = None
) -> DatasetRecord:
    """Note duplicates, sort the manifest, count, report, write the card, and write down that the data set is complete.

    What a model said against the labels is removed: they may be others now. May be repeated.

    Args:
        folder: the data set's.
        record: its record so far.
        manifest: its manifest, which is closed.
        left_out: what an import left out that belongs to no photograph: kind of trouble -> how many.
    """
    (folder / DISAGREEMENT_FILE).unlink(missing_ok=True)  # of labels that may have been others
    with manifest:
        for changed in mark_duplicates(read_manifest(manifest).values()):
            manifest.append(changed.line())
    manifest.finish()
    if record.settings is not None:  # labels that were imported have no quality
        from patchword.labeling.quality.report import write_report

        write_report(folder)
    counts = Counts.of(read_manifest(manifest).values(), names=record.vocabulary.names, left_out=left_out)
    complete = record.model_copy(update={"complete": True, "counts": counts})
    write_text(folder / CARD_FILE, dataset_card(complete))
    complete.save(folder)
    return complete


def mark_duplicates(records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    """Find the photographs whose content another of an earlier name has.

    Yields:
        the records that have to change, by name: duplicates that were not known, and those that are none any more.
    """
    first: dict[str, str] = {}
    for record in sorted(records, key=lambda each: each.name):
        original = record.name if record.content is None else first.setdefault(record.content, record.name)
        duplicate_of = None if original == record.name else original
        if duplicate_of != record.duplicate_of:
            yield record.model_copy(update={"duplicate_of": duplicate_of})


def merge_labels(
    shards: Sequence[str | Path],
    *,
    out: str | Path,
    photos: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> LabelledDataset:
    """Put the shards of one folder together; but for `runs.jsonl` the bytes are those of a run without shards.

    Args:
        shards: folders that `label` wrote with `shard`, all of them, in any order.
        out: folder of the data set.
        photos: where the photographs are now; by default where they were, relative to the first shard.
        overwrite: empty such a folder first.
        quiet: whether to show no progress.
        command: what the user typed, for the record.

    Returns:
        the data set of all photographs.
    """
    folder = as_path(out)
    parts = open_parts(LABELS, shards)
    all_names(parts)
    first = parts[0]
    root = photographs_of(first, LABELS, photos=photos)
    if not root.is_dir():
        raise PatchwordError(f"the photographs of {first.folder} are not in {root}; pass photos= their folder")
    if overwrite:
        refuse_corrections(out, instead="choose another folder")
    whole = {"shard": None, "complete": False, "counts": None, "photographs": relative_root(root, folder=folder)}

    def end(record: DatasetRecord, manifest: Manifest) -> None:
        from patchword.labeling.quality.report import gather_quality

        gather_quality([part.folder for part in parts], into=folder)
        gather_reviews([part.folder for part in parts], into=folder)
        finish(folder, record=record, manifest=manifest)

    merge_parts(
        LABELS,
        parts,
        out=folder,
        record=first.record.model_copy(update=whole),
        finish=end,
        overwrite=overwrite,
        command=command,
        quiet=quiet,
    )
    return LabelledDataset.open(folder, photos=root)
