"""Counting the pixels of one image: pairs of classes, and boundaries, in one go.

Label maps are areas: of a million pixels a few thousand differ from their neighbour. So pixels are not counted one by
one. Positions where anything changes cut an image, row after row, into runs, and each run counts with its length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.contours import Indices, boundary_reach, on_boundary

Counts = NDArray[np.int64]


def tally(
    prediction: Indices, truth: Indices, *, count: int, dilation: float | None = None, ignore: int = -1
) -> tuple[Counts, Counts]:
    """Count an image.

    Args:
        prediction: class indices in [0, count), or `ignore` where nothing is predicted; (h, w) with a dilation, else of
            any shape.
        truth: of the same shape, `ignore` where a pixel does not count.
        count: number of classes, 1 or more.
        dilation: how far a boundary reaches, as a share of the diagonal; None counts no boundaries.
        ignore: what means ignore in both, no class.

    Returns:
        (count, count + 1) pixels by truth and prediction, the last column no prediction; and (count, 2) intersection
        and union of boundaries, zeros without a dilation.
    """
    if prediction.shape != truth.shape or (dilation is not None and truth.ndim != 2):
        raise PatchwordError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}; allowed are two of one shape"
            f"{'' if dilation is None else ', height and width'}"
        )
    if 0 <= ignore < count:
        raise PatchwordError(f"ignore index {ignore} is one of the {count} classes; allowed is any other number")
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
                f"{role} holds the value {int(outside[0])}; allowed are 0 to {count - 1} and {ignore} for ignore"
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
