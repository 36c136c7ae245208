"""The end of a folder run: what can only be said once every photograph is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from patchword.data.folders import Manifest, write_text
from patchword.labeling.card import CARD_FILE, dataset_card
from patchword.labeling.dataset import read_manifest
from patchword.labeling.quality.doubts import DISAGREEMENT_FILE
from patchword.labeling.quality.report import write_report
from patchword.labeling.records import Counts, DatasetRecord, ImageRecord


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

    Returns:
        the record of the complete data set.
    """
    (folder / DISAGREEMENT_FILE).unlink(missing_ok=True)  # of labels that may have been others
    _note_duplicates(manifest)
    if record.settings is not None:  # labels that were imported have no quality
        write_report(folder)
    counts = Counts.of(read_manifest(manifest).values(), names=record.vocabulary.names, left_out=left_out)
    complete = record.model_copy(update={"complete": True, "counts": counts})
    write_text(folder / CARD_FILE, dataset_card(complete))
    complete.save(folder)
    return complete


def _note_duplicates(manifest: Manifest) -> None:
    """Write the manifest anew with its duplicates; its records are let go of before anything else is read."""
    with manifest:
        for changed in mark_duplicates(read_manifest(manifest).values()):
            manifest.append(changed.model_dump(mode="json"))
    manifest.finish()


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
