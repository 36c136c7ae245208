"""Shards of one folder of photographs become the data set that one run would have made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.data.folders import Manifest, prepare_output, sole_use
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset, check_manifest
from patchword.labeling.quality.report import gather_quality
from patchword.labeling.records import (
    MANIFEST_FILE,
    MARKER,
    DatasetRecord,
    ImageRecord,
    label_map_path,
    read_manifest,
    segments_path,
)
from patchword.labeling.resume import differences, numerical_differences, refuse_corrections
from patchword.labeling.run import finish
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

    Label maps and segments become hard links where the file system allows it, else copies. patchword replaces files
    and never changes them, so that neither data set changes when the other is worked on.

    Args:
        shards: folders that `label` wrote with `shard`, all of them, in any order.
        out: folder of the data set.
        photos: where the photographs are now; by default where they were, relative to the first shard.
        overwrite: empty such a folder first.
        quiet: whether to show no progress.
        command: what the user typed, for the record.

    Returns:
        the data set of all photographs.

    Raises:
        PatchwordError: for shards that are unfinished, missing or given twice, that overlap, or that are of other
            photographs, settings, models or another vocabulary; for a folder in use, or a file that cannot be written.
    """
    parts = [_Part.open(Path(shard)) for shard in shards]
    check_parts(parts)
    _check_same_run(parts)
    names = all_names(parts)
    first = parts[0]
    root = first.folder / first.dataset.photographs if photos is None else Path(photos)
    if not root.is_dir():
        raise PatchwordError(f"the photographs of {first.folder} are not in {root}; pass photos= their folder")
    check_apart([part.folder for part in parts], out=Path(out))
    if overwrite:
        refuse_corrections(out, instead="choose another folder")
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    whole = {"shard": None, "complete": False, "counts": None, "photographs": relative_root(root, folder=folder)}
    record = first.dataset.model_copy(update=whole)
    with sole_use(folder):
        record.save(folder)
        keep_sessions(parts, into=folder)
        with Session(folder, command=command, options={"shards": len(parts)}):
            manifest = Manifest(folder / MANIFEST_FILE)
            with Progress(len(names), "merging", "images", quiet=quiet) as progress, manifest:
                for part in parts:
                    _take_over(part, into=folder, manifest=manifest, progress=progress)
            gather_quality([part.folder for part in parts], into=folder)
            finish(folder, record=record, manifest=manifest)
    return LabelledDataset.open(folder, photos=root)


@dataclass(frozen=True)
class _Part:
    folder: Path
    dataset: DatasetRecord
    shard: ShardRecord
    images: dict[str, ImageRecord]

    @property
    def names(self) -> Collection[str]:
        """Of the photographs that it has done."""
        return self.images.keys()

    @classmethod
    def open(cls, folder: Path) -> _Part:
        check_folder(folder, command="label")
        dataset = DatasetRecord.load(folder)
        shard = check_shard(dataset.shard, folder=folder, command="label")
        images = read_manifest(Manifest(folder / MANIFEST_FILE))
        labelled = (image.name for image in images.values() if image.status != "failed")
        files = (path for name in labelled for path in _files(folder, name))
        check_finished(folder, complete=dataset.complete, files=files)
        check_manifest(folder, dataset, found=len(images))
        return cls(folder, dataset, shard, images)


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return label_map_path(folder, name), segments_path(folder, name)


def _check_same_run(parts: Sequence[_Part]) -> None:
    """Refuse what was not made alike; where the photographs were on each machine does not matter."""
    alike = [part.dataset.model_copy(update={"shard": None, "photographs": ""}) for part in parts]
    for part, dataset in zip(parts[1:], alike[1:], strict=True):
        told = differences(alike[0], dataset) + numerical_differences(alike[0], dataset)
        for what, first, other in told:
            raise PatchwordError(
                f"{parts[0].folder} and {part.folder} are not of one run: {what} is {first} and {other}"
            )


def _take_over(part: _Part, *, into: Path, manifest: Manifest, progress: Progress) -> None:
    for image in part.images.values():
        _take(image, part.folder, into=into)
        manifest.append(image.model_dump(mode="json"))
        progress.advance()


def _take(image: ImageRecord, source: Path, *, into: Path) -> None:
    if image.status == "failed":
        return
    for old, new in zip(_files(source, image.name), _files(into, image.name), strict=True):
        link_or_copy(old, new)
