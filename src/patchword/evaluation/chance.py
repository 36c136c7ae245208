"""What predicting without looking at the images would score, so that a score at chance is said to be one."""

from __future__ import annotations

from collections.abc import Sequence

from patchword.evaluation.confusion import ConfusionMatrix
from patchword.evaluation.tally import Counts
from patchword.runs.records import Record


class Chance(Record):
    """Scores of predictions that know nothing of the images, over the same pixels and classes.

    Attributes:
        constant_miou: mean IoU, in [0, 1], of saying `constant_class` everywhere, over the classes of the masks.
        constant_class: the class with most pixels in the masks.
        random_miou: mean IoU, as expected, of the predictions' own classes dealt out to random pixels.
        at_chance: whether the score is not surely above both: its interval (without one, the score) reaches them.
    """

    constant_miou: float
    constant_class: str
    random_miou: float
    at_chance: bool


def chance_of(table: Counts, *, names: Sequence[str], least: float | None) -> Chance | None:
    """The level of chance of an evaluation.

    Args:
        table: (n, n + 1) pixels, rows truth, columns prediction, the last column no prediction.
        names: of the n classes.
        least: the lowest mean IoU that is likely; None when there is no score.

    Returns:
        None where no pixel counts.
    """
    truth, predicted = table.sum(axis=1), table.sum(axis=0)[:-1]
    pixels = int(truth.sum())
    if not pixels or least is None:
        return None
    most = int(truth.argmax())
    constant = _constant(truth, most)
    dealt = _dealt_out(truth, predicted, pixels)
    return Chance(
        constant_miou=constant,
        constant_class=names[most],
        random_miou=dealt,
        at_chance=least <= max(constant, dealt),
    )


def _constant(truth: Counts, most: int) -> float:
    matrix = ConfusionMatrix(len(truth))
    matrix.table[:, most] = truth
    return matrix.mean_iou() or 0.0


def _dealt_out(truth: Counts, predicted: Counts, pixels: int) -> float:
    """Truth and prediction independent: a pixel has both with the product of their shares."""
    ious = []
    for expected, found in zip(truth.tolist(), predicted.tolist(), strict=True):
        if expected or found:
            both = expected * found / pixels
            ious.append(both / (expected + found - both))
    return float(sum(ious) / len(ious))
