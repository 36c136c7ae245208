"""What one image contributes to every score: counts that add over images, and the image's own scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.confusion import ConfusionMatrix, Counts, tally

Sparse = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image, or of many: they add.

    Attributes:
        table: (n, n + 1) int64 pixels, rows truth, columns prediction, the last column no prediction.
        boundary: (n, 2) int64 pixels, intersection and union of boundaries; None where they were not measured.
    """

    table: Counts
    boundary: Counts | None

    @property
    def matrix(self) -> ConfusionMatrix:
        matrix = ConfusionMatrix(len(self.table))
        matrix.add(self.table)
        return matrix

    def boundary_iou(self) -> list[float | None]:
        """Boundary IoU of each class in [0, 1]; None for a class in neither truth nor prediction, or unmeasured."""
        if self.boundary is None:
            return [None] * len(self.table)
        return [part / whole if whole else None for part, whole in self.boundary.tolist()]

    def score(self) -> float | None:
        """How well one image is segmented, to rank it: mean IoU over the classes in its truth; None without any.

        A class that is only predicted lowers the score by what it takes from the others, and not once more as a class
        of IoU 0, so that a few stray pixels do not make an image the worst.
        """
        present = [entry.iou for entry in self.matrix.per_class() if entry.truth_pixels and entry.iou is not None]
        return sum(present) / len(present) if present else None

    def class_sums(self) -> Counts:
        """(n, 6): intersection, truth, prediction, truth with any prediction, boundary intersection and union."""
        counts = self.table[:, :-1]
        boundary = np.zeros((len(self.table), 2), dtype=np.int64) if self.boundary is None else self.boundary
        columns = (counts.diagonal(), self.table.sum(axis=1), counts.sum(axis=0), counts.sum(axis=1))
        return np.column_stack([*columns, boundary])

    def sparse_table(self) -> Sparse:
        """(truth, prediction, pixels) of every pair that occurs; -1 for no prediction."""
        rows, columns = np.nonzero(self.table)
        found = self.table[rows, columns]
        columns[columns == len(self.table)] = -1
        return tuple(zip(rows.tolist(), columns.tolist(), found.tolist(), strict=True))

    def sparse_boundary(self) -> Sparse | None:
        """(class, intersection, union) of every class with a boundary; None where they were not measured."""
        if self.boundary is None:
            return None
        rows = np.flatnonzero(self.boundary[:, 1])
        return tuple((row, *self.boundary[row].tolist()) for row in rows.tolist())

    @classmethod
    def from_sparse(cls, table: Sparse, boundary: Sparse | None, *, count: int) -> ImageCounts:
        """Undo `sparse_table` and `sparse_boundary`, for `count` classes."""
        dense = np.zeros((count, count + 1), dtype=np.int64)
        for truth, prediction, pixels in table:
            if not (0 <= truth < count and -1 <= prediction < count and pixels > 0):
                raise ValueError(f"counts {[truth, prediction, pixels]} are not of {count} classes")
            dense[truth, prediction] = pixels  # -1 is the last column
        if boundary is None:
            return cls(dense, None)
        edges = np.zeros((count, 2), dtype=np.int64)
        for index, part, whole in boundary:
            if not (0 <= index < count and 0 <= part <= whole):
                raise ValueError(f"boundary {[index, part, whole]} is not of {count} classes")
            edges[index] = part, whole
        return cls(dense, edges)


def count_image(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], *, count: int, dilation: float | None
) -> ImageCounts:
    """Count one image: prediction and truth (h, w) of class indices, -1 for none; without a dilation no boundaries."""
    table, boundary = tally(prediction, truth, count=count, dilation=dilation)
    return ImageCounts(table, None if dilation is None else boundary)


@dataclass(frozen=True)
class Gathered:
    """What all scores over a data set follow from; the images' own tables, which would fill the memory, are gone.

    Attributes:
        sums: (images, n, 6) of each image, see `ImageCounts.class_sums`.
        seen: (n,) images whose truth has the class.
        area: pixels of all images, those that do not count among them; 0 where nobody told.
    """

    whole: ImageCounts
    sums: Counts
    seen: Counts
    area: int = 0

    @classmethod
    def of(cls, images: Iterable[ImageCounts], *, count: int, boundary: bool) -> Gathered:
        """Add up images, one in memory at a time."""
        table = np.zeros((count, count + 1), dtype=np.int64)
        edges = np.zeros((count, 2), dtype=np.int64)
        seen = np.zeros(count, dtype=np.int64)
        sums = []
        for image in images:
            table += image.table
            edges += 0 if image.boundary is None else image.boundary
            seen += image.table.any(axis=1)
            sums.append(image.class_sums())
        stacked = np.stack(sums) if sums else np.zeros((0, count, 6), dtype=np.int64)
        return cls(ImageCounts(table, edges if boundary else None), stacked, seen)


Values = NDArray[np.float64]
Interval = tuple[float, float]

_BLOCK = 4096  # images whose counts are multiplied at once; a matter of memory only


def resampled_sums(images: NDArray[np.int64], *, resamples: int, seed: int) -> Values:
    """Sum counts (images, ...) over as many images as there are, drawn with replacement, again and again.

    The sums must stay below 2 ** 53; returned are whole numbers (resamples, ...).
    """
    if not len(images):
        raise PatchwordError("there are no images to resample; at least 1 is needed")
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, len(images)), dtype=np.uint16)  # how often each image is drawn
    for row in weights:
        row[:] = np.bincount(generator.integers(len(images), size=len(images)), minlength=len(images))
    flat = images.reshape(len(images), -1)
    sums = np.zeros((resamples, flat.shape[1]))
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        sums += weights[:, block].astype(np.float64) @ flat[block].astype(np.float64)
    return sums.reshape(resamples, *images.shape[1:])


def percentiles(values: Values, *, level: float) -> list[Interval | None]:
    """The interval with the middle share of each column of `values` (resamples, n), nan where there is no value."""
    found: list[Interval | None] = []
    for column in values.T:
        known = column[~np.isnan(column)]
        ends = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist() if len(known) else None
        found.append(ends and (ends[0], ends[1]))
    return found


def bootstrap_interval(
    images: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval | None:
    """The interval of the mean IoU, from (images, classes, 3) pixels of intersection, truth and prediction."""
    sums = resampled_sums(images, resamples=resamples, seed=seed)
    ious = ratio(sums[..., 0], sums[..., 1] + sums[..., 2] - sums[..., 0])  # (resamples, classes)
    return percentiles(mean_of_known(ious)[:, None], level=level)[0]


def ratio(part: Values, whole: Values) -> Values:
    """Element by element; not a number where there is no whole."""
    found: Values = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return found


def mean_of_known(values: Values) -> Values:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))
