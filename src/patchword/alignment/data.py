"""What the alignment learns from: photographs with label maps, and the vocabulary that the maps' indices refer to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.losses import IGNORED, MaskTargets
from patchword.alignment.photographs import (
    content_hash,
    known_contents,
    read_contents,
    remember_contents,
    write_contents,
)
from patchword.config.align import AlignSettings
from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap, find_mask
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, warn
from patchword.labeling.embeddings import MaskEmbeddings
from patchword.models.protocols import ModelRecord
from patchword.runs.progress import Progress


class LabelledImage(Protocol):
    """A photograph and its label map on disk."""

    @property
    def image(self) -> Path: ...

    @property
    def label_map(self) -> Path: ...


class FrozenFeatures(Protocol):
    """Frozen features of photographs, by the SHA-256 of their files: from a cache, or computed at every read."""

    side: int  # in pixels, of the square that photographs are resized to
    grid: tuple[int, int]  # rows and columns of patches

    def size_of(self, key: str) -> tuple[int, int]:
        """(height, width) in pixels of a photograph before it was resized."""

    def read(self, keys: Sequence[str]) -> Tensor:
        """Features (b, D, h, w)."""


class LabelledImages(Protocol):
    """Any labelled data set: the result of `label`, or photographs with masks from elsewhere."""

    @property
    def items(self) -> Sequence[LabelledImage]: ...

    @property
    def vocabulary(self) -> Vocabulary: ...


@dataclass(frozen=True)
class AlignmentItem:
    """One photograph, its label map (indexed or 16-bit PNG) and, where there are any, what CLIP sees in its masks."""

    image: Path
    label_map: Path
    embeddings_file: Path | None = None


@dataclass(frozen=True)
class AlignmentData:
    """Photographs with label maps whose index i means class i of the vocabulary; wherever the maps came from.

    Exact masks in place of pseudo labels give the oracle of docs/method.md.

    Attributes:
        items: the photographs.
        vocabulary: of the label maps.
        image_text: the model of the items' mask embeddings, which are not used where it is none.
    """

    items: tuple[AlignmentItem, ...]
    vocabulary: Vocabulary
    image_text: ModelRecord | None = None

    @classmethod
    def from_folders(cls, images: Path, *, masks: Path, vocabulary: Vocabulary) -> AlignmentData:
        """Pair each photograph with the mask of its name.

        Args:
            images: folder of photographs, searched recursively.
            masks: folder of label maps; for a/b.jpg it holds a/b.jpg.png or a/b.png.
            vocabulary: of the maps' indices.

        Returns:
            The pairs, in the order of the photographs; photographs without a mask are left out.
        """
        pairs = ((path, find_mask(masks, name=path.relative_to(images).as_posix())) for path in find_images(images))
        items = tuple(AlignmentItem(path, mask) for path, mask in pairs if mask is not None)
        if not items:
            raise PatchwordError(
                f"no photograph of {images} has a mask in {masks}; the mask of a/b.jpg is named a/b.jpg.png or a/b.png"
            )
        return cls(items, vocabulary)


@dataclass(frozen=True)
class HashedItem:
    """An item of a data set and the SHA-256 of its photograph (`key`), its label map and its masks' embeddings."""

    image: Path
    label_map: Path
    key: str
    label_key: str
    embeddings: Path | None = None
    embeddings_key: str = ""


def hash_items(
    dataset: LabelledImages,
    *,
    skipped: dict[str, str],
    quiet: bool,
    processes: Processes = ALONE,
    known: Path | None = None,
) -> list[HashedItem]:
    """Hash the files of every item, each process its share; `known` keeps hashes from run to run."""
    share = processes.shares(len(dataset.items))[processes.index]
    files = [path for item in dataset.items for path in _files_of(item)]
    if known is not None:
        read_contents(known, files)
    hashed, unread = [], {}
    with Progress(len(share), "reading files", quiet=quiet) as progress:
        for item in dataset.items[share.start : share.stop]:
            try:
                embeddings = getattr(item, "embeddings_file", None)
                hashed.append(
                    HashedItem(
                        item.image,
                        item.label_map,
                        content_hash(item.image),
                        content_hash(item.label_map),
                        embeddings,
                        "" if embeddings is None else content_hash(embeddings),
                    )
                )
            except PatchwordError as error:
                unread[str(item.image)] = str(error)
            progress.advance()
    skipped |= dict(processes.collect(list(unread.items())))
    if processes.count > 1:
        remember_contents(processes.collect(known_contents(files)))
    if known is not None and processes.is_first:
        write_contents(known, files)
    return processes.collect(hashed)


def _files_of(item: LabelledImage) -> list[Path]:
    embeddings = getattr(item, "embeddings_file", None)
    return [item.image, item.label_map, *([] if embeddings is None else [embeddings])]


def label_items(
    hashed: Sequence[HashedItem],
    dataset: LabelledImages,
    *,
    features: FrozenFeatures,
    settings: AlignSettings,
    skipped: dict[str, str],
    quiet: bool,
    processes: Processes = ALONE,
) -> tuple[list[HashedItem], Tensor]:
    """Label the patches of every item, each process its share.

    Returns:
        the items that can be used, and their labels (n, h, w) with -1 for ignored.
    """
    names = dataset.vocabulary.names
    kind = torch.int16 if len(names) <= torch.iinfo(torch.int16).max else torch.int32
    share = processes.shares(len(hashed))[processes.index]
    labelled: list[tuple[HashedItem, Tensor]] = []
    unusable = {}
    with Progress(len(share), "labelling patches", quiet=quiet) as progress:
        for item in hashed[share.start : share.stop]:
            try:
                label_map = LabelMap.load(item.label_map, names=names)
                (height, width), size = label_map.indices.shape, features.size_of(item.key)
                if (height, width) != size:
                    raise PatchwordError(
                        f"label map {item.label_map} has {width} x {height} pixels; {item.image} has "
                        f"{size[1]} x {size[0]}"
                    )
            except PatchwordError as error:
                unusable[str(item.image)] = str(error)
            else:
                indices = torch.from_numpy(label_map.indices.astype("int64"))
                labels = patch_labels(
                    indices, ignore=label_map.ignore, classes=len(names), grid=features.grid, majority=settings.majority
                )
                labelled.append((item, labels.to(kind)))
            progress.advance()
    skipped |= dict(processes.collect(list(unusable.items())))
    labelled = processes.collect(labelled)
    patches = [labels for _, labels in labelled]
    stacked = torch.stack(patches) if patches else torch.empty((0, *features.grid), dtype=kind)
    return [item for item, _ in labelled], stacked


def mask_targets(
    items: Sequence[HashedItem],
    *,
    grid: tuple[int, int],
    text: Tensor,
    settings: AlignSettings,
    quiet: bool = True,
    processes: Processes = ALONE,
) -> MaskTargets:
    """What the patches of items with embeddings are drawn to, each process reading its share; of a file that is damaged
    a warning is given.

    Images and words lie apart in CLIP's space: the masks' vectors are moved so that their mean is that of the classes'.

    Args:
        items: n of them.
        grid: (rows, columns) of patches.
        text: (c, d) unit text embeddings of the classes.

    Returns:
        regions (n, rows, columns), and unit vectors (m, d) float16 of the masks of all items.
    """
    share = processes.shares(len(items))[processes.index]
    read: list[tuple[Tensor, Tensor | None]] = []
    with Progress(len(share), "reading masks", quiet=quiet) as progress:
        for item in items[share.start : share.stop]:
            where = torch.full(grid, IGNORED)
            try:
                found = None if item.embeddings is None else MaskEmbeddings.load(item.embeddings)
            except PatchwordError as error:
                found = None
                warn(f"{error}; {item.image.name} is trained on without its masks")
            if found is not None:
                where = found.regions(grid, majority=settings.majority)
            read.append((where, None if found is None else found.vectors))
            progress.advance()
    regions, vectors, count = [], [text.new_empty(0, text.shape[1])], 0
    for where, seen in processes.collect(read):
        if seen is not None:
            where = torch.where(where == IGNORED, where, where + count)
            vectors.append(seen.to(text))
            count += len(seen)
        regions.append(where)
    together = torch.cat(vectors)
    if count:
        together = functional.normalize(together - together.mean(dim=0) + text.mean(dim=0), dim=-1)
    return MaskTargets(torch.stack(regions).to(torch.int32), together.to(torch.float16))


def patch_labels(indices: Tensor, *, ignore: int, classes: int, grid: tuple[int, int], majority: float) -> Tensor:
    """Give each patch the class that most of its pixels have, or ignore.

    The grid covers the whole map: patch (i, j) holds the pixels whose centre lies in it. A map with fewer pixels than
    the grid has patches is first enlarged by a whole factor. The majority is of all the patch's pixels, ignored ones
    too, so that a patch of which little is labelled stays ignored. Of two classes with equally many pixels the lower
    index wins.

    Args:
        indices: (h, w) integers, class of each pixel or `ignore`.
        grid: (rows, columns) of patches.
        majority: share of the patch's pixels in (0, 1] that its class must have at least.

    Returns:
        (rows, columns) int64, -1 = ignored.
    """
    indices = indices.long()
    ignored = indices == ignore
    wrong = indices[~ignored & ((indices < 0) | (indices >= classes))]
    if len(wrong):
        raise PatchwordError(
            f"the label map holds the value {int(wrong[0])}; values must be 0 to {classes - 1}, or {ignore} for ignore"
        )
    rows, columns = grid
    bins = torch.where(ignored, classes, indices)  # ignore counts in one extra bin, the last
    bins = _at_least(_at_least(bins, rows, dim=0), columns, dim=1)
    patch = _patch_of(bins.shape[0], rows)[:, None] * columns + _patch_of(bins.shape[1], columns)  # (h, w)
    counts = torch.bincount((patch * (classes + 1) + bins).flatten(), minlength=rows * columns * (classes + 1))
    counts = counts.reshape(rows * columns, classes + 1)
    most, label = counts[:, :classes].max(dim=1)
    enough = most >= majority * counts.sum(dim=1).double()
    return torch.where(enough & (most > 0), label, IGNORED).reshape(rows, columns)


def _at_least(pixels: Tensor, count: int, *, dim: int) -> Tensor:
    """Repeat every pixel along `dim` as often as it takes to have at least `count`."""
    times = math.ceil(count / pixels.shape[dim])
    return pixels.repeat_interleave(times, dim=dim) if times > 1 else pixels


def _patch_of(pixels: int, patches: int) -> Tensor:
    """Index of the patch that holds the centre of each pixel, (pixels,) int64, in whole numbers and so exact."""
    return (2 * torch.arange(pixels) + 1) * patches // (2 * pixels)
