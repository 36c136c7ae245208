"""Shards of one folder of photographs become the data set that one run would have made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.folders import Manifest, prepare_output, replacing, sole_use, write_bytes
from patchword.label.dataset import LabelledDataset, label_map_path, read_manifest, segments_path
from patchword.label.finish import finish
from patchword.label.quality.file import gather_quality
from patchword.label.records import (
    MANIFEST_FILE,
    MARKER,
    RUNS_FILE,
    DatasetRecord,
    ImageRecord,
    ShardRecord,
    relative_root,
)
from patchword.label.resume import differences
from patchword.label.sessions import Session
from patchword.label.shards import names_hash
from patchword.progress import Progress


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
    _check_same_run(parts)
    _check_every_part(parts)
    names = _all_names(parts)
    first = parts[0]
    root = first.folder / first.dataset.photographs if photos is None else Path(photos)
    if not root.is_dir():
        raise PatchwordError(f"the photographs of {first.folder} are not in {root}; pass photos= their folder")
    _check_apart(parts, out=Path(out))
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    whole = {"shard": None, "complete": False, "counts": None, "photographs": relative_root(root, folder=folder)}
    record = first.dataset.model_copy(update=whole)
    with sole_use(folder):
        record.save(folder)
        write_bytes(folder / RUNS_FILE, b"".join(part.runs() for part in parts))
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

    @classmethod
    def open(cls, folder: Path) -> _Part:
        if not folder.is_dir():
            raise PatchwordError(f"no such folder: {folder}; allowed is one that `patchword label --shard i/n` wrote")
        dataset = DatasetRecord.load(folder)
        if dataset.shard is None:
            raise PatchwordError(f"{folder} is no shard; allowed are folders that `patchword label --shard i/n` wrote")
        if not dataset.complete:
            raise PatchwordError(f"{folder} is of a run that did not finish; finish it with --resume")
        images = read_manifest(Manifest(folder / MANIFEST_FILE))
        for image in images.values():
            files = () if image.status == "failed" else _files(folder, image.name)
            lost = next((path for path in files if not path.is_file()), None)
            if lost is not None:
                raise PatchwordError(f"{folder} has lost {lost.relative_to(folder)}; make it with --resume")
        return cls(folder, dataset, dataset.shard, images)

    def runs(self) -> bytes:
        """Its lines of `runs.jsonl`."""
        path = self.folder / RUNS_FILE
        return path.read_bytes() if path.exists() else b""


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return label_map_path(folder, name), segments_path(folder, name)


def _check_same_run(parts: Sequence[_Part]) -> None:
    """Refuse what was not made alike; where the photographs were on each machine does not matter."""
    if not parts:
        raise PatchwordError("there are no shards to merge; name their folders")
    alike = [part.dataset.model_copy(update={"shard": None, "photographs": ""}) for part in parts]
    for part, dataset in zip(parts[1:], alike[1:], strict=True):
        for what, first, other in differences(alike[0], dataset):
            raise PatchwordError(
                f"{parts[0].folder} and {part.folder} are not of one run: {what} is {first} and {other}"
            )
        if (part.shard.count, part.shard.photographs, part.shard.names) != _list_of(parts[0]):
            raise PatchwordError(
                f"{parts[0].folder} and {part.folder} are not of one run: they are parts of "
                f"{_amount(parts[0].shard)} and {_amount(part.shard)}; label them again from the same photographs"
            )


def _list_of(part: _Part) -> tuple[int, int, str]:
    return part.shard.count, part.shard.photographs, part.shard.names


def _amount(shard: ShardRecord) -> str:
    return f"{shard.photographs} photographs in {shard.count} shards (names {shard.names[:12]})"


def _check_every_part(parts: Sequence[_Part]) -> None:
    given: dict[int, Path] = {}
    for part in parts:
        if part.shard.index in given:
            raise PatchwordError(
                f"{given[part.shard.index]} and {part.folder} are both shard {part.shard.index}/{part.shard.count}; "
                "allowed is each once"
            )
        given[part.shard.index] = part.folder
    count = parts[0].shard.count
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in given]
    if missing:
        raise PatchwordError(f"shards are missing: {', '.join(missing)}; name the folders of all {count}")


def _all_names(parts: Sequence[_Part]) -> list[str]:
    """The names of all photographs, sorted; they have to be those that the shards were cut from, each once."""
    owner: dict[str, Path] = {}
    for part in parts:
        for name in part.images:
            if name in owner:
                raise PatchwordError(f"{owner[name]} and {part.folder} overlap: both have {name!r}")
            owner[name] = part.folder
    names = sorted(owner)
    expected = parts[0].shard
    if names_hash(names) != expected.names:
        raise PatchwordError(
            f"the shards have {len(names)} photographs, which are not the {expected.photographs} that they were cut "
            "from; finish each with --resume"
        )
    return names


def _check_apart(parts: Sequence[_Part], *, out: Path) -> None:
    inner = out.resolve()
    for part in parts:
        outer = part.folder.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise PatchwordError(f"shard {part.folder} and the output folder {out} lie in each other; choose another")


def _take_over(part: _Part, *, into: Path, manifest: Manifest, progress: Progress) -> None:
    for image in part.images.values():
        _take(image, part.folder, into=into)
        manifest.append(image.model_dump(mode="json"))
        progress.advance()


def _take(image: ImageRecord, source: Path, *, into: Path) -> None:
    if image.status == "failed":
        return
    for old, new in zip(_files(source, image.name), _files(into, image.name), strict=True):
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(old, new)
        except OSError as error:
            raise PatchwordError(f"cannot write {new}: {error.strerror}") from None


def _link_or_copy(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # another file system, or one without hard links
        with old.open("rb") as reading, replacing(new) as writing:
            shutil.copyfileobj(reading, writing)
