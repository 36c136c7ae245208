"""Boundary IoU of semantic maps: how well edges agree, by counts that add over images."""

from __future__ import annotations

from patchword.evaluation.contours import DILATION as DILATION
from patchword.evaluation.contours import Indices
from patchword.evaluation.tally import Counts, tally


def boundary_counts(
    prediction: Indices, truth: Indices, *, count: int, dilation: float = DILATION, ignore: int = -1
) -> tuple[Counts, Counts]:
    """Intersection and union, class by class, of the inner boundaries of a prediction and of its truth.

    The paper defines the measure for one mask: of truth and prediction only those pixels are kept that are at most d
    from the mask's contour, and the IoU is taken of what is kept. Our reading for semantic maps: every class of a map
    is one mask; intersections and unions add up over the images of a data set, so that a class's Boundary IoU is the
    ratio of the sums, as its IoU is. The image's frame ends a mask, as in the paper. Where the truth is ignore, the
    prediction is too; such pixels count nowhere and make no contour: a contour is where two classes that count are
    within d of each other, also across a strip of ignore. Where nothing is predicted, the prediction's masks end.

    Args:
        prediction: (h, w) class indices in [0, count), or `ignore` where nothing is predicted.
        truth: (h, w) class indices in [0, count), or `ignore` where a pixel does not count.
        count: number of classes, 1 or more.
        dilation: d as a share of the image's diagonal, above 0; at least one pixel. Larger forgives more.
        ignore: what means ignore in both.

    Returns:
        intersection (count,) and union (count,), int64 pixels.
    """
    _, boundary = tally(prediction, truth, count=count, dilation=dilation, ignore=ignore)
    return boundary[:, 0], boundary[:, 1]
