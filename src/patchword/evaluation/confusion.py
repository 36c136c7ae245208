"""One confusion matrix over a whole data set, and the benchmarks' numbers that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError


@dataclass(frozen=True)
class ClassScore:
    """The numbers of one class; shares in [0, 1], None where there is nothing to measure, counts in pixels."""

    index: int
    iou: float | None
    accuracy: float | None
    truth_pixels: int
    predicted_pixels: int
    correct_pixels: int
    confused_with: int | None


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs over any number of images, by the rule of the standard benchmarks.

    One matrix holds the whole data set; scores are computed from its sums, never averaged over images. A pixel whose
    truth is ignore counts nowhere. A pixel whose truth is a class and whose prediction is ignore is a miss: it is in
    that class's union and never in an intersection. A class in neither truth nor prediction is left out of every mean.

    Attributes:
        table: (n, n + 1) int64, rows truth, columns prediction, the last column truth pixels without a prediction.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise PatchwordError(f"a confusion matrix needs at least 1 class, not {count}")
        self.table: Counts = np.zeros((count, count + 1), dtype=np.int64)

    @property
    def counts(self) -> Counts:
        """(n, n) rows truth, columns prediction."""
        return self.table[:, :-1]

    @property
    def missed(self) -> Counts:
        """(n,) truth pixels of each class without a prediction."""
        return self.table[:, -1]

    def __len__(self) -> int:
        return len(self.table)

    def update(self, prediction: NDArray[np.integer], truth: NDArray[np.integer], *, ignore: int = 255) -> None:
        """Add one image, or any other pair of arrays of one shape.

        Args:
            prediction: class indices in [0, n), or `ignore` where nothing is predicted.
            truth: class indices in [0, n), or `ignore` where a pixel does not count.
            ignore: the index that means ignore in both, outside [0, n).
        """
        self.table += tally(prediction, truth, count=len(self), ignore=ignore)[0]

    def add(self, table: Counts) -> None:
        """Add the table (n, n + 1) of an image."""
        self.table += table

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix over the same classes."""
        if len(other) != len(self):
            raise PatchwordError(f"a matrix over {len(other)} classes cannot be merged into one over {len(self)}")
        self.table += other.table

    def per_class(self) -> list[ClassScore]:
        """The numbers of every class, in the order of the class list."""
        intersection, truth, predicted = self._sums()
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        return [
            ClassScore(
                index=index,
                iou=_ratio(intersection[index], truth[index] + predicted[index] - intersection[index]),
                accuracy=_ratio(intersection[index], truth[index]),
                truth_pixels=int(truth[index]),
                predicted_pixels=int(predicted[index]),
                correct_pixels=int(intersection[index]),
                confused_with=int(wrong[index].argmax()) if wrong[index].any() else None,
            )
            for index in range(len(self))
        ]

    def mean_iou(self) -> float | None:
        """Mean IoU in [0, 1] over the classes that occur in truth or prediction; None for an empty matrix."""
        return _mean([score.iou for score in self.per_class()])

    def mean_accuracy(self) -> float | None:
        """Mean accuracy in [0, 1] over the classes that occur in the truth; None for an empty matrix."""
        return _mean([score.accuracy for score in self.per_class()])

    def pixel_accuracy(self) -> float | None:
        """Share in [0, 1] of the valid truth pixels whose prediction is right; None for an empty matrix."""
        intersection, truth, _ = self._sums()
        return _ratio(intersection.sum(), truth.sum())

    def frequency_weighted_iou(self) -> float | None:
        """Mean IoU in [0, 1] weighted by how many truth pixels each class has; None for an empty matrix."""
        _, truth, _ = self._sums()
        weighted = [int(truth[score.index]) * score.iou for score in self.per_class() if score.iou is not None]
        return math.fsum(weighted) / int(truth.sum()) if truth.any() else None

    def coverage(self) -> float | None:
        """Share in [0, 1] of the valid truth pixels that have any prediction; None for an empty matrix."""
        return _ratio(self.counts.sum(), self.counts.sum() + self.missed.sum())

    def _sums(self) -> tuple[Counts, Counts, Counts]:
        return self.counts.diagonal(), self.counts.sum(axis=1) + self.missed, self.counts.sum(axis=0)


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return int(part) / int(whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


Counts = NDArray[np.int64]


def tally(
    prediction: Indices, truth: Indices, *, count: int, dilation: float | None = None, ignore: int = -1
) -> tuple[Counts, Counts]:
    """Count an image: pixels by truth and prediction, as `ConfusionMatrix.table`, and boundaries.

    Args:
        prediction, truth: class indices in [0, count), or `ignore`; (h, w) with a dilation, else of any one shape.
        dilation: how far a boundary reaches, as a share of the diagonal; None counts no boundaries.

    Returns:
        (count, count + 1) pixels; and (count, 2) intersection and union of boundaries, zeros without a dilation.

    Boundaries are those of Boundary IoU (arXiv 2103.16562), in our reading for semantic maps (docs/evaluation.md): the
    image's frame ends a mask, pixels whose truth is ignore make no contour, and where nothing is predicted the
    prediction's masks end.
    """
    if prediction.shape != truth.shape or (dilation is not None and truth.ndim != 2):
        raise PatchwordError(
            f"prediction of shape {prediction.shape} against ground truth of shape {truth.shape}; both must "
            f"have the same shape{'' if dilation is None else ' (height, width)'}"
        )
    if 0 <= ignore < count:
        raise PatchwordError(f"ignore index {ignore} is one of the {count} classes; it must be any other number")
    rows = _labels(truth, count=count, ignore=ignore, role="truth")  # 0 for ignore, 1 for the first class
    columns = _labels(prediction, count=count, ignore=ignore, role="prediction")
    near = None if dilation is None else _near(rows, columns, count=count, dilation=dilation)
    codes = (rows * (count + 1) + columns).ravel()
    starts, lengths = _runs(codes, near)
    row, column = np.divmod(codes[starts].astype(np.int64), count + 1)
    pairs = _weighted(row * (count + 1) + column, lengths, size=(count + 1) ** 2).reshape(count + 1, count + 1)
    table = np.roll(pairs[1:], -1, axis=1)  # the column without a prediction goes last
    if near is None:
        return table, np.zeros((count, 2), dtype=np.int64)
    in_truth, in_prediction = (near[starts] & 1).astype(bool), (near[starts] & 2).astype(bool)
    both = in_truth & in_prediction & (row == column)
    expected, found, shared = (
        _weighted(labels[chosen], lengths[chosen], size=count + 1)[1:]
        for labels, chosen in ((row, in_truth), (column, in_prediction), (row, both))
    )
    return table, np.stack([shared, expected + found - shared], axis=1)


def _labels(values: Indices, *, count: int, ignore: int, role: str) -> Indices:
    """Values as 1 to count, 0 for ignore, in the smallest type that holds a pair of them."""
    labels: Indices = values.astype(np.min_scalar_type((count + 1) ** 2))
    labels += 1  # of -1 this makes 0 in an unsigned type too
    if values.size and not (ignore == -1 and values.min() >= -1 and values.max() < count):
        absent = values == ignore
        outside = values[((values < 0) | (values >= count)) & ~absent]
        if outside.size:
            raise PatchwordError(
                f"{role} has the value {int(outside[0])}; values must be 0 to {count - 1}, or {ignore} "
                "for ignored pixels"
            )
        labels[absent] = 0
    return labels


def _near(rows: Indices, columns: Indices, *, count: int, dilation: float) -> NDArray[np.uint8]:
    """Flat: 1 where on a boundary of the truth, 2 of the prediction, 3 of both."""
    reach, valid = boundary_reach(rows.shape, dilation=dilation), rows != 0
    of_truth = on_boundary(rows, valid=valid, count=count, reach=reach).view(np.uint8)
    of_prediction = on_boundary(columns, valid=valid, count=count, reach=reach).view(np.uint8)
    return (of_truth + 2 * of_prediction).ravel()


def _runs(codes: Indices, near: NDArray[np.uint8] | None) -> tuple[Counts, Counts]:
    """Where runs of equal codes (and nearness) begin, and how long they are."""
    changes = codes[1:] != codes[:-1]
    if near is not None:
        changes |= near[1:] != near[:-1]
    first = np.zeros(min(1, codes.size), dtype=np.int64)
    starts = np.concatenate([first, np.flatnonzero(changes) + 1])
    return starts, np.diff(starts, append=codes.size)


def _weighted(labels: Counts, lengths: Counts, *, size: int) -> Counts:
    """Sum of lengths by label; exact, for an image has less than 2 ** 53 pixels."""
    return np.bincount(labels, weights=lengths, minlength=size).astype(np.int64)


Indices = NDArray[np.integer[Any]]


def boundary_reach(shape: tuple[int, ...], *, dilation: float) -> int:
    """How many pixels from a contour of an image (h, w) belong to a boundary: a share of the diagonal, at least one."""
    if not 0 < dilation < math.inf:
        raise PatchwordError(
            f"boundary dilation is {dilation}; it must be a fraction of the diagonal above 0, such as 0.02"
        )
    return max(1, round(dilation * math.hypot(shape[0], shape[1])))


def on_boundary(labels: Indices, *, valid: NDArray[np.bool_], count: int, reach: int) -> NDArray[np.bool_]:
    """Which pixels (h, w) have another label, or the outside of the image, within a square of `reach` pixels around.

    All classes at once: a label and its complement are bits of one word, the words of a square are or-ed, and a bit
    that is there together with its complement tells of two labels. The square is done along rows, then along columns,
    in steps that double, so that the work grows with the logarithm of its side. Labels go from 0 to `count`; pixels
    that are not valid are on no boundary and make none.
    """
    height, width = labels.shape
    if min(height, width) <= 2 * reach:
        return valid.copy()
    bits = count.bit_length()
    words = _words(labels, valid, bits=bits)
    seen = _or_along(_or_along(words, reach=reach, step=1), reach=reach, step=width)
    edge = np.ones(height * width, dtype=bool)
    first = reach * width + reach  # the square around this pixel begins with the image's first
    edge[first : first + len(seen)] = seen & (seen >> bits) & ((1 << bits) - 1)
    edge = edge.reshape(height, width)
    edge[:, :reach] = edge[:, -reach:] = True  # squares there ran over into the next row
    edge &= valid
    return edge


def _words(labels: Indices, valid: NDArray[np.bool_], *, bits: int) -> NDArray[Any]:
    """Labels and, above them, their complements, flat; 0 where not valid."""
    kind = np.uint8 if bits <= 4 else np.uint16 if bits <= 8 else np.uint32
    words: NDArray[Any] = labels.astype(kind).ravel()
    words |= (words ^ ((1 << bits) - 1)) << bits
    words *= valid.ravel()
    return words


def _or_along(words: NDArray[Any], *, reach: int, step: int) -> NDArray[Any]:
    """Each element or-ed with the 2 x reach elements that follow it at distances of `step`; shorter by those."""
    have, wanted = 1, 2 * reach + 1
    while have < wanted:
        more = min(have, wanted - have)
        words = words[: -more * step] | words[more * step :]
        have += more
    return words
