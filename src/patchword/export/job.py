"""What every format is given: the photographs one after the other, the table of classes, and a place to count."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.exchange import ExportSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.files import place_photograph
from patchword.export.instances import Piece, pieces_of
from patchword.export.outlines import LossCounter
from patchword.labeling.dataset import LabelledDataset, LabelledItem
from patchword.runs.progress import Progress
from patchword.runs.records import Record


class Slivers(Record):
    """Pieces of label maps that are too small to be objects. Masks of classes hold them. See docs/on-disk.md."""

    pieces: int
    pixels: int
    share: float


def stems(names: Iterable[str]) -> dict[str, str]:
    """A name without suffix for each photograph, folders kept; where two would be the same, the suffix stays.

    a/x.jpg and b/x.jpg become a/x and b/x; x.jpg and x.png become x.jpg and x.png. Names that differ only in letter
    case or in the way that accents are composed count as the same: some file systems cannot hold both.
    """
    chosen = {name: PurePosixPath(name).with_suffix("").as_posix() for name in names}
    while True:
        counted = Counter(map(_key, chosen.values()))
        clashing = [name for name, stem in chosen.items() if counted[_key(stem)] > 1 and stem != name]
        if not clashing:
            return chosen
        chosen.update(zip(clashing, clashing, strict=True))


def check_line(name: str, *, format_name: str) -> str:
    """Refuse a name that a list with one name a line cannot hold."""
    if name.splitlines() != [name] or name != name.strip():
        raise PatchwordError(
            f"photograph {name!r} cannot stand in the lists of format {format_name}: its name has a line break or "
            "begins or ends with white space; rename it"
        )
    return name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


UNLABELLED_COLOUR = (0, 0, 0)
MOST_8_BIT = 254


@dataclass(frozen=True)
class Category:
    """A class as every format knows it.

    Attributes:
        index: position in the vocabulary, from 0; used where every number is a class (train ids, YOLO, mask files of
            patchword).
        id: index + 1; used where 0 means that a pixel has no class (COCO, VOC, FiftyOne).
        colour: red, green, blue, 0 to 255; that of patchword's own masks and overlays; never black.
    """

    index: int
    id: int
    name: str
    colour: tuple[int, int, int]

    @property
    def hexadecimal(self) -> str:
        return "#" + bytes(self.colour).hex()

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "train_id": self.index, "name": self.name, "color": list(self.colour)}


def categories_of(vocabulary: Vocabulary) -> tuple[Category, ...]:
    """The table of a vocabulary's classes, in its order."""
    colours = vocabulary.colours.tolist()
    return tuple(
        Category(index, index + 1, name, (red, green, blue))
        for index, (name, (red, green, blue)) in enumerate(zip(vocabulary.names, colours, strict=True))
    )


def free_name(expected: str, otherwise: str, categories: tuple[Category, ...]) -> str:
    """What a table calls something that is no class: as its readers expect, unless a class has that name."""
    return otherwise if any(each.name.casefold() == expected for each in categories) else expected


def check_8_bit(categories: tuple[Category, ...], *, format_name: str) -> None:
    """Refuse more classes than an 8-bit mask can hold beside 0 and 255."""
    if len(categories) > MOST_8_BIT:
        raise PatchwordError(
            f"format {format_name} holds {MOST_8_BIT} classes at most, the vocabulary has {len(categories)}; "
            "coco, coco-panoptic, fiftyone, webdataset and hf hold more"
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """One labelled photograph, `number` from 1 in the order of names."""

    number: int
    item: LabelledItem
    label_map: LabelMap

    @property
    def name(self) -> str:
        return self.item.record.name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.label_map.indices.shape
        return height, width

    def ids(self) -> NDArray[np.integer]:
        """The label map with ids, so 1 more than the index, and 0 for ignore; (h, w) of the map's own type."""
        ids: NDArray[np.integer] = self.label_map.indices + self.label_map.indices.dtype.type(1)
        ids[self.label_map.indices == self.label_map.ignore] = 0
        return ids


@dataclass
class Job:
    """One export: what is exported, what was counted so far, and `notes` on what the format could not hold."""

    labels: LabelledDataset
    categories: tuple[Category, ...]
    settings: ExportSettings
    progress: Progress
    segments: int = 0
    sliver_count: int = 0
    sliver_pixels: int = 0
    labelled_pixels: int = 0
    loss: LossCounter = field(default_factory=LossCounter)
    notes: list[str] = field(default_factory=list)

    def pictures(self) -> Iterator[Picture]:
        """Photographs in the order of their names, one in memory at a time."""
        names = self.labels.vocabulary.names
        for number, item in enumerate(self.labels.items, start=1):
            label_map = LabelMap.load(item.label_map, names=names)
            if label_map.indices.shape != item.record.size:
                raise PatchwordError(
                    f"{item.label_map} is of {label_map.indices.shape} pixels, its record says {item.record.size}"
                )
            yield Picture(number, item, label_map)
            self.progress.advance()

    def objects(self, picture: Picture) -> tuple[Piece, ...]:
        """The objects of a photograph, its slivers counted; once a photograph."""
        try:
            pieces = pieces_of(
                picture.label_map,
                picture.item.segments(),
                own_share=self.settings.own_share,
                least_area=self.settings.least_area(picture.size),
            )
        except PatchwordError as error:
            raise PatchwordError(f"{picture.item.segments_file}: {error}") from None
        self.sliver_count += len(pieces.slivers)
        self.sliver_pixels += sum(sliver.area for sliver in pieces.slivers)
        self.labelled_pixels += pieces.labelled
        return pieces.objects

    def slivers(self) -> Slivers | None:
        if not self.sliver_count:
            return None
        share = round(self.sliver_pixels / self.labelled_pixels, 6)
        return Slivers(pieces=self.sliver_count, pixels=self.sliver_pixels, share=share)

    def stems(self) -> dict[str, str]:
        """For a format that pairs files by their names without suffix; says which photographs keep theirs."""
        chosen = stems(item.record.name for item in self.labels.items)
        kept = [name for name, stem in chosen.items() if name == stem and PurePosixPath(name).suffix]
        if kept:
            self.notes.append(
                f"{len(kept)} photographs share their name with another but for the suffix, such as {kept[0]}; "
                "their files here keep the suffix within the name, and copied or linked photographs do too"
            )
        return chosen

    def place(self, picture: Picture, *, target: Path) -> None:
        """Copy or link a photograph when the settings say so."""
        if self.settings.photographs in ("copy", "link"):
            place_photograph(picture.item.image, target=target, how=self.settings.photographs)
