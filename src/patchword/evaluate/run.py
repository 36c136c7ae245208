"""Predictions against masks, folder by folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.evaluate.confusion import ConfusionMatrix
from patchword.evaluate.masks import MaskRule
from patchword.evaluate.pairs import Pair, find_mask
from patchword.folders import Progress
from patchword.maps import LabelMap

Predict = Callable[[Pair], LabelMap]

MASKS_FOLDER = "masks"


def compare(pairs: Sequence[Pair], *, predict: Predict, rule: MaskRule, quiet: bool = False) -> ConfusionMatrix:
    """Hold a prediction for every photograph against its mask.

    Args:
        pairs: photographs with their masks.
        predict: makes or reads the label map of one photograph, over the rule's vocabulary.
        rule: how mask values are read.
        quiet: whether to show no progress.

    Returns:
        one confusion matrix over all of them.

    Raises:
        PatchwordError: when a file cannot be read, a mask holds an unknown value, or sizes differ. There is no score
            over part of the images: it would pass for the score of all.
    """
    matrix = ConfusionMatrix(len(rule.names))
    with Progress(len(pairs), "evaluating", quiet=quiet) as progress:
        for pair in pairs:
            truth = rule.read_truth(pair.mask)
            prediction = rule.prediction(predict(pair))
            if prediction.shape != truth.shape:
                raise PatchwordError(
                    f"mask {pair.mask} is {_size(truth.shape)} pixels and the prediction for {pair.name} "
                    f"{_size(prediction.shape)}; they must be of one size, masks are never resized"
                )
            matrix.update(prediction, truth, ignore=-1)
            progress.advance()
    return matrix


def read_predictions(folder: Path, *, pairs: Sequence[Pair], rule: MaskRule) -> Predict:
    """Predictions from disk: indexed pictures as `patchword label` and `patchword segment` write them.

    Their values are positions in the class list, from 0, and 255 (65535 in 16-bit pictures) where nothing is predicted.

    Args:
        folder: holds the pictures, or holds them in `masks/`, as the folders of `label` and `segment` do.
        pairs: the photographs that predictions are needed for.
        rule: its vocabulary is what the predictions' values refer to.

    Raises:
        PatchwordError: when the folder or the prediction of a photograph is missing.
    """
    if not folder.is_dir():
        raise PatchwordError(f"no such folder of predictions: {folder}")
    place = folder / MASKS_FOLDER if (folder / MASKS_FOLDER).is_dir() else folder
    paths = {pair.name: find_mask(place, name=pair.name) for pair in pairs}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise PatchwordError(
            f"{len(missing)} of {len(pairs)} photographs have no prediction in {place}, such as {missing[0]}; "
            "allowed for a/b.jpg are a/b.jpg.png and a/b.png"
        )
    found = {name: path for name, path in paths.items() if path is not None}
    return lambda pair: LabelMap.load(found[pair.name], names=rule.vocabulary.names)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
