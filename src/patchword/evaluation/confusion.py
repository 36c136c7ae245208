"""One confusion matrix over a whole data set, and the benchmarks' numbers that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.tally import Counts, tally


@dataclass(frozen=True)
class ClassScore:
    """The numbers of one class.

    Attributes:
        index: position in the class list, from 0.
        iou: intersection over union in [0, 1]; None when the class is in neither truth nor prediction.
        accuracy: share in [0, 1] of the class's truth pixels that are predicted as it; None without truth pixels.
        truth_pixels: pixels of the class in the truth.
        predicted_pixels: valid pixels that are predicted as the class.
        correct_pixels: pixels where both say the class.
        confused_with: the wrong class that most of its truth pixels are given; None when there is none.
    """

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
        """An empty matrix.

        Args:
            count: number of classes, at least 1.
        """
        if count < 1:
            raise PatchwordError(f"a confusion matrix over {count} classes; allowed is 1 or more")
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
