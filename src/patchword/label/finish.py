"""The end of a folder run: what can only be said once every photograph is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from patchword.folders import Manifest
from patchword.label.dataset import read_manifest
from patchword.label.records import Counts, DatasetRecord, ImageRecord
from patchword.label.report import write_report


def finish(folder: Path, *, record: DatasetRecord, manifest: Manifest) -> DatasetRecord:
    """Note duplicates, sort the manifest, count, report on the quality, and write down that the data set is complete.

    May be repeated.

    Args:
        folder: the data set's.
        record: its record so far.
        manifest: its manifest, which is closed.

    Returns:
        the record of the complete data set.

    Raises:
        PatchwordError: when a file cannot be written; the data set is then not complete.
    """
    records = read_manifest(manifest)
    marked = {each.name: each for each in mark_duplicates(records.values())}
    with manifest:
        for name, each in marked.items():
            if each != records[name]:
                manifest.append(each.model_dump(mode="json"))
    manifest.finish()
    if record.settings is not None:  # labels that were imported have no quality
        write_report(folder)
    counts = Counts.of(marked.values(), names=record.vocabulary.names)
    complete = record.model_copy(update={"complete": True, "counts": counts})
    complete.save(folder)
    return complete


def mark_duplicates(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """Say of every photograph whose content another of an earlier name has which that is; sorted by name."""
    first: dict[str, str] = {}
    marked = []
    for record in sorted(records, key=lambda each: each.name):
        original = record.name if record.content is None else first.setdefault(record.content, record.name)
        duplicate_of = None if original == record.name else original
        marked.append(record.model_copy(update={"duplicate_of": duplicate_of}))
    return marked
