"""Reads what labelling has left: photographs, their label maps and segments, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from patchword.errors import PatchwordError
from patchword.folders import Manifest
from patchword.label.records import MANIFEST_FILE, Counts, DatasetRecord, ImageRecord
from patchword.label.settings import LabelSettings
from patchword.maps import Segment
from patchword.models.protocols import ModelRecord
from patchword.vocabulary import Vocabulary

if TYPE_CHECKING:
    from patchword.label.quality.records import QualityRecord


@dataclass(frozen=True)
class LabelledItem:
    """One photograph that was labelled.

    Attributes:
        image: the photograph.
        label_map: its label map, an indexed PNG of the same size.
        segments_file: its segments, JSON.
        record: its line of the manifest.
    """

    image: Path
    label_map: Path
    segments_file: Path
    record: ImageRecord

    def segments(self) -> tuple[Segment, ...]:
        """Read the segments.

        Raises:
            PatchwordError: when the file is missing or damaged.
        """
        try:
            data = json.loads(self.segments_file.read_bytes())
            return tuple(Segment.from_json(segment) for segment in data["segments"])
        except OSError as error:
            raise PatchwordError(f"cannot read {self.segments_file}: {error.strerror}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{self.segments_file} is damaged: {error}") from None


@dataclass(frozen=True)
class LabelledDataset:
    """A folder of pseudo labels.

    Attributes:
        folder: where it is.
        root: folder of the photographs.
        items: photographs with labels, by name; also those whose map is all ignore (status "empty").
        failed: records of the photographs that could not be labelled.
        vocabulary: the maps' indices refer to its classes.
        settings: how labelling was done; none for imported labels.
        image_text, mask_proposer: the models that it was done with; none for imported labels.
        counts: totals.
    """

    folder: Path
    root: Path
    items: tuple[LabelledItem, ...]
    failed: tuple[ImageRecord, ...]
    vocabulary: Vocabulary
    settings: LabelSettings | None
    image_text: ModelRecord | None
    mask_proposer: ModelRecord | None
    counts: Counts

    @classmethod
    def open(cls, folder: str | Path, *, photos: str | Path | None = None) -> LabelledDataset:
        """Open and check a folder that `label` wrote.

        Args:
            folder: the data set.
            photos: where the photographs are now; by default where they were, relative to the data set.

        Raises:
            PatchwordError: when the folder is missing, is no label folder, is of another format version, comes from
                a run that did not finish, or when photographs or label maps are gone.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise PatchwordError(f"no such folder: {folder}; allowed is a folder that `patchword label` wrote")
        dataset = DatasetRecord.load(folder)
        if dataset.counts is None or not dataset.complete:
            raise PatchwordError(
                f"{folder} is of a run that did not finish; finish it with `patchword label ... --resume`"
            )
        root = folder / dataset.photographs if photos is None else Path(photos)
        records = read_manifest(Manifest(folder / MANIFEST_FILE))
        labelled = [record for record in records.values() if record.status != "failed"]
        items = tuple(_item(record, folder=folder, root=root) for record in labelled)
        _check_files(items, folder=folder, root=root)
        return cls(
            folder=folder,
            root=root,
            items=items,
            failed=tuple(record for record in records.values() if record.status == "failed"),
            vocabulary=Vocabulary.parse(dataset.vocabulary.text, source=f"vocabulary of {folder}"),
            settings=dataset.settings,
            image_text=dataset.image_text,
            mask_proposer=dataset.mask_proposer,
            counts=dataset.counts,
        )

    def __len__(self) -> int:
        return len(self.items)

    def quality(self) -> Iterator[QualityRecord]:
        """What the labels of each photograph are worth, by name, one in memory at a time.

        Read from `quality.jsonl`; what is missing there is assessed anew from segments and masks, and not written.

        Raises:
            PatchwordError: for labels that were imported, which have no quality, or damaged segments or masks.
        """
        from patchword.label.quality.file import assessors, read_quality  # they read this module's files

        images = [item.record.name for item in self.items]
        names = self.vocabulary.names
        wanted = assessors(self.folder, images=images, names=names, settings=self.settings)
        return read_quality(self.folder, wanted=wanted)


def read_manifest(manifest: Manifest) -> dict[str, ImageRecord]:
    """A label folder's manifest, by name.

    Raises:
        PatchwordError: when a line is not a photograph's record.
    """
    records = {}
    for name, line in manifest.read().items():
        try:
            records[name] = ImageRecord.model_validate(line)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(str(step) for step in detail["loc"])
            raise PatchwordError(
                f"{manifest.path}: record of {name!r} is damaged at `{place}`: {detail['msg']}"
            ) from None
    return records


def label_map_path(folder: Path, name: str) -> Path:
    """Where a photograph's label map is; the suffix stays in the name, so that a.jpg and a.png do not collide."""
    return folder / "masks" / PurePosixPath(f"{name}.png")


def segments_path(folder: Path, name: str) -> Path:
    """Where a photograph's segments are."""
    return folder / "segments" / PurePosixPath(f"{name}.json")


def _item(record: ImageRecord, *, folder: Path, root: Path) -> LabelledItem:
    image = root / PurePosixPath(record.name)
    return LabelledItem(image, label_map_path(folder, record.name), segments_path(folder, record.name), record)


def _check_files(items: tuple[LabelledItem, ...], *, folder: Path, root: Path) -> None:
    gone = [item.image for item in items if not item.image.is_file()]
    if not root.is_dir() or gone:
        example = f"; {len(gone)} of {len(items)} are gone, such as {gone[0].name}" if gone else ""
        raise PatchwordError(f"the photographs of {folder} are not in {root}{example}; pass photos= their folder")
    lost = [item.label_map for item in items if not item.label_map.is_file()]
    if lost:
        raise PatchwordError(f"{folder} has lost {len(lost)} label maps, such as {lost[0]}; make them with --resume")
