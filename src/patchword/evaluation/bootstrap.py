"""How sure a score is: percentile intervals of a bootstrap over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError

Values = NDArray[np.float64]
Interval = tuple[float, float]

_BLOCK = 4096  # images whose counts are multiplied at once; a matter of memory only


def resampled_sums(images: NDArray[np.int64], *, resamples: int, seed: int) -> Values:
    """Sum counts over as many images as there are, drawn with replacement, again and again.

    Args:
        images: (images, ...) counts of each image, whose sums are below 2 ** 53.
        resamples: how often, 1 or more.
        seed: of the draws.

    Returns:
        (resamples, ...) whole numbers.
    """
    if not len(images):
        raise PatchwordError("there are no images to resample; allowed is 1 or more")
    weights = _draws(len(images), resamples=resamples, seed=seed)
    flat = images.reshape(len(images), -1)
    sums = np.zeros((resamples, flat.shape[1]))
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        sums += weights[:, block].astype(np.float64) @ flat[block].astype(np.float64)
    return sums.reshape(resamples, *images.shape[1:])


def percentiles(values: Values, *, level: float) -> list[Interval | None]:
    """The interval that holds the middle share of resampled values.

    Args:
        values: (resamples, n), not a number where a resample has no value.
        level: the share, between 0 and 1.

    Returns:
        lowest and highest of each of the n, over the resamples that have a value; None where none has.
    """
    found: list[Interval | None] = []
    for column in values.T:
        known = column[~np.isnan(column)]
        if not len(known):
            found.append(None)
            continue
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        found.append((float(low), float(high)))
    return found


def bootstrap_interval(
    images: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval | None:
    """How sure a mean IoU is.

    Args:
        images: (images, classes, 3) pixels of intersection, truth and prediction.
        resamples, seed: as for `resampled_sums`.
        level: as for `percentiles`.

    Returns:
        lowest and highest mean IoU in [0, 1]; None where no pixel counts.
    """
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


def _draws(images: int, *, resamples: int, seed: int) -> NDArray[np.uint16]:
    """(resamples, images) how often each image is drawn."""
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, images), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return weights
