"""Predictions that lie on disk: label maps as `label` and `segment` write them, or as anyone else does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from patchword.data.folders import Manifest
from patchword.data.masks import find_mask
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.masks import Truth
from patchword.evaluation.pairs import Pair, check_not_shared
from patchword.evaluation.predictors import FolderPredictor
from patchword.labeling.dataset import check_manifest
from patchword.labeling.records import DATASET_FILE, MANIFEST_FILE, DatasetRecord
from patchword.segmentation.records import RESULTS, SETTINGS, SegmentationRecord, check_results, read_results
from patchword.segmentation.result import MASKS
from patchword.segmentation.words import BACKGROUND_NAME

PredictionsAre = Literal["auto", "masks", "positions"]


def find_predictions(
    folder: Path, *, pairs: Sequence[Pair], truth: Truth, coded: PredictionsAre = "auto"
) -> FolderPredictor:
    """Find the prediction of every photograph.

    A prediction is an indexed or grey picture of 8 or 16 bits. Coded as "masks", its values mean what they mean in the
    masks, and what does not count there is no prediction. Coded as "positions", they are positions in the class list,
    from 0, the position after the last class is background, and 255 (65535 in 16-bit pictures) is no prediction.

    Args:
        folder: holds the pictures, or holds them in `masks/`, as the folders of `label` and `segment` do.
        pairs: the photographs that predictions are needed for.
        truth: what is scored.
        coded: "auto" for "positions" in a folder that `label` or `segment` made, and "masks" in any other.
    """
    if coded not in get_args(PredictionsAre):
        raise PatchwordError(f"predictions are {coded!r}; allowed are {', '.join(get_args(PredictionsAre))}")
    if not folder.is_dir():
        raise PatchwordError(f"no such folder of predictions: {folder}")
    recorded = _recorded_vocabulary(folder)
    if coded == "auto":
        coded = "masks" if recorded is None else "positions"
    names = _names(folder, truth, recorded) if coded == "positions" else None
    place = folder / MASKS if (folder / MASKS).is_dir() else folder
    found = {pair.name: find_mask(place, name=pair.name) for pair in pairs}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise PatchwordError(
            f"{len(missing)} of {len(pairs)} photographs have no prediction in {place}, such as {missing[0]}; "
            "allowed for a/b.jpg are a/b.jpg.png and a/b.png"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    check_not_shared(paths)
    return FolderPredictor(folder, paths, truth, names)


def _names(folder: Path, truth: Truth, recorded: Vocabulary | None) -> tuple[str, ...]:
    """Names of the predictions' values, background included where the values can hold it."""
    expected = truth.vocabulary.names
    if recorded is not None and recorded.names != expected:
        first = next((name for name in recorded.names if name not in expected), recorded.names[0])
        raise PatchwordError(
            f"{folder} was made for {len(recorded)} classes (such as {first!r}), the class list has {len(expected)}; "
            "they must be the same, in the same order"
        )
    has_background = BACKGROUND_NAME not in expected and (
        BACKGROUND_NAME in truth.names or (recorded is not None and bool(recorded.background))
    )
    return (*expected, BACKGROUND_NAME) if has_background else expected


def _recorded_vocabulary(folder: Path) -> Vocabulary | None:
    """The class list of a folder that `label` or `segment` made, or of its `masks/`; None for any other folder."""
    made = folder.resolve().parent if folder.resolve().name == MASKS else folder
    if (made / DATASET_FILE).is_file():
        labelled = DatasetRecord.load(made)
        if (made / MANIFEST_FILE).is_file():
            check_manifest(made, labelled, found=len(Manifest(made / MANIFEST_FILE).read()))
        return Vocabulary.recorded(labelled.vocabulary.text, source=str(made / DATASET_FILE))
    path = made / SETTINGS
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        text, names = str(record["vocabulary"]), tuple(record.get("names", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PatchwordError(f"{path} is damaged; segment again, or give its masks folder") from None
    if (made / RESULTS).is_file():
        check_results(made, SegmentationRecord.load(made), read_results(Manifest(made / RESULTS)))
    vocabulary = Vocabulary.recorded(text, source=str(path))
    # a threshold makes a background as words do
    return vocabulary if vocabulary.background else replace(vocabulary, background=names[len(vocabulary) :])
