"""What every format is given: the photographs one after the other, the table of classes, and a place to count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.export.categories import Category
from patchword.export.files import place_photograph
from patchword.export.instances import Piece, Pieces, pieces_of
from patchword.export.names import stems
from patchword.export.polygons import LossCounter
from patchword.export.records import Slivers
from patchword.export.settings import ExportSettings
from patchword.labeling.dataset import LabelledDataset, LabelledItem
from patchword.runs.progress import Progress


@dataclass(frozen=True, eq=False)
class Picture:
    """One labelled photograph.

    Attributes:
        number: from 1, in the order of names.
        item: its files and its line of the manifest.
        label_map: what each pixel is.
    """

    number: int
    item: LabelledItem
    label_map: LabelMap

    @property
    def name(self) -> str:
        """Path relative to the photographs' folder, with forward slashes."""
        return self.item.record.name

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
class SliverCounter:
    """Adds up what is too small to be an object."""

    pieces: int = 0
    pixels: int = 0
    labelled: int = 0

    def add(self, pieces: Pieces) -> None:
        """Count a photograph."""
        self.pieces += len(pieces.slivers)
        self.pixels += sum(sliver.area for sliver in pieces.slivers)
        self.labelled += pieces.labelled

    def summary(self) -> Slivers | None:
        """What has been counted; none without slivers."""
        if not self.pieces:
            return None
        return Slivers(pieces=self.pieces, pixels=self.pixels, share=round(self.pixels / self.labelled, 6))


@dataclass
class Job:
    """One export.

    Attributes:
        labels: what is exported.
        categories: its classes.
        settings: how.
        progress: told of every photograph that is done.
        segments: objects written so far.
        slivers: pieces that were too small to be objects, so far.
        loss: what polygons lost so far.
        notes: what the format could not hold.
    """

    labels: LabelledDataset
    categories: tuple[Category, ...]
    settings: ExportSettings
    progress: Progress
    segments: int = 0
    slivers: SliverCounter = field(default_factory=SliverCounter)
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
        self.slivers.add(pieces)
        return pieces.objects

    def sizes(self) -> Iterator[tuple[int, str, int, int]]:
        """Number, name, height and width of each photograph, without reading its label map."""
        for number, item in enumerate(self.labels.items, start=1):
            height, width = item.record.size or (0, 0)
            yield number, item.record.name, height, width

    def stems(self) -> dict[str, str]:
        """Names of the photographs without suffix, see `stems`."""
        return stems(item.record.name for item in self.labels.items)

    def place(self, picture: Picture, *, target: Path) -> None:
        """Copy or link a photograph when the settings say so."""
        if self.settings.photographs in ("copy", "link"):
            place_photograph(picture.item.image, target=target, how=self.settings.photographs)

    def note_renamed(self, chosen: dict[str, str]) -> None:
        """Say which photographs have to be renamed for a format that pairs files by their names without suffix."""
        kept = [name for name, stem in chosen.items() if name == stem and PurePosixPath(name).suffix]
        if kept:
            self.notes.append(
                f"{len(kept)} photographs share their name with another but for the suffix, such as {kept[0]}; "
                "their files here keep the suffix within the name, and copied or linked photographs do too"
            )
