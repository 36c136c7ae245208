"""Predictions against masks, photograph by photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchword.errors import PatchwordError
from patchword.evaluate.confusion import ConfusionMatrix
from patchword.evaluate.masks import MaskRule, Truth
from patchword.evaluate.pairs import Pair
from patchword.maps import LabelMap
from patchword.progress import Progress
from patchword.segment.dense import AnySegmenter

Predict = Callable[[Pair], LabelMap]


def compare(pairs: Sequence[Pair], *, predict: Predict, truth: Truth, quiet: bool = False) -> ConfusionMatrix:
    """Hold a prediction for every photograph against its mask.

    Args:
        pairs: photographs with their masks.
        predict: makes or reads the label map of one photograph, over the truth's vocabulary.
        truth: what the masks say, and how predictions are held against them.
        quiet: whether to show no progress.

    Returns:
        one confusion matrix over all of them.

    Raises:
        PatchwordError: when a file cannot be read, a mask holds an unknown value, or sizes differ. There is no score
            over part of the images: it would pass for the score of all.
    """
    matrix = ConfusionMatrix(len(truth.names))
    with Progress(len(pairs), "evaluating", quiet=quiet) as progress:
        for pair in pairs:
            expected = truth.read_truth(pair)
            prediction = truth.prediction(predict(pair))
            if prediction.shape != expected.shape:
                raise PatchwordError(
                    f"mask {pair.mask} is {_size(expected.shape)} pixels and the prediction for {pair.name} "
                    f"{_size(prediction.shape)}; they must be of one size, masks are never resized"
                )
            matrix.update(prediction, expected, ignore=-1)
            progress.advance()
    return matrix


def predict_with(segmenter: AnySegmenter, *, rule: MaskRule) -> Predict:
    """Predictions that a segmenter makes, of the rule's classes; background words take part where background is scored.

    Raises:
        PatchwordError: when background is scored and there are no words for it.
    """
    vocabulary = rule.vocabulary
    if rule.zero_is == "background" and not vocabulary.background:
        raise PatchwordError(
            "zero is background, and there are no words for background; give some, such as sky and wall, "
            "in the class list or beside it"
        )
    return lambda pair: segmenter.segment(pair.photo, classes=vocabulary).label_map


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
