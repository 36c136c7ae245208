"""Who predicts: a segmenter, or whoever has left masks in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from patchword.config.evaluate import PredictionsAre
from patchword.config.segment import SegmentSettings
from patchword.data.images import read_image
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, find_mask, read_indices
from patchword.data.vocabulary import BACKGROUND_NAME, Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.masks import MaskRule, Pair, Positions, check_not_shared
from patchword.labeling.dataset import check_manifest
from patchword.labeling.records import DATASET_FILE, MANIFEST_FILE, DatasetRecord
from patchword.runs.pipeline import Photograph, Pixels, why_unread
from patchword.runs.records import told_apart
from patchword.segmentation.records import MASKS, RESULTS, SETTINGS, SegmentationRecord, check_results, read_results

if TYPE_CHECKING:
    from patchword.segmentation.dense import AnySegmenter


@dataclass(frozen=True)
class SegmenterPredictor:
    """A segmenter, asked for the classes of a truth; its background words take part."""

    segmenter: AnySegmenter
    truth: MaskRule
    settings: SegmentSettings

    @classmethod
    def of(
        cls, segmenter: AnySegmenter, *, truth: MaskRule, settings: SegmentSettings | Mapping[str, Any] | None = None
    ) -> SegmenterPredictor:
        chosen, vocabulary = SegmentSettings.of(settings), truth.vocabulary
        scored = BACKGROUND_NAME in truth.names and BACKGROUND_NAME not in vocabulary.names
        if scored and not (vocabulary.background or chosen.threshold or chosen.background_threshold):
            raise PatchwordError(
                "background is scored, and there are neither words for it nor a threshold; give words "
                '(--background "sky, wall"; background=) or a threshold (--set background_threshold=0.3)'
            )
        return cls(segmenter, truth, chosen)

    @property
    def batch(self) -> int:
        """How many photographs it is asked about at once."""
        return self.settings.batch

    def source(self, pair: Pair) -> Path:
        """The file that it needs of a photograph."""
        return pair.photo

    def read(self, path: Path) -> Pixels:
        """Read such a file; in a thread of its own, ahead of `predict`."""
        return read_image(path)

    def predict(self, items: Sequence[Photograph]) -> list[Positions | PatchwordError]:
        """Of what was read, in its order: (h, w) indices of the scored names, -1 for none; or why there are none."""
        images = [item.pixels for item in items if not isinstance(item.pixels, PatchwordError)]
        classes = self.truth.vocabulary
        found = iter(self.segmenter.segment_batch(images, classes=classes, settings=self.settings) if images else [])
        answers = (why_unread(item) if isinstance(item.pixels, PatchwordError) else next(found) for item in items)
        return [each if isinstance(each, PatchwordError) else self.truth.prediction(each.label_map) for each in answers]

    def describe(self) -> dict[str, Any]:
        """What a person must know to predict the same again, as JSON can hold it."""
        return {**self.segmenter.describe(), "settings": self.settings.model_dump(mode="json")}


@dataclass(frozen=True)
class FolderPredictor:
    """Label maps that any program has left on disk, by name of the photograph; see `find_predictions`.

    Their values are positions in `names`, or without names coded as the masks'.
    """

    folder: Path
    paths: Mapping[str, Path]
    truth: MaskRule
    names: tuple[str, ...] | None
    batch: int = 1

    def source(self, pair: Pair) -> Path:
        return self.paths[pair.name]

    def read(self, path: Path) -> Pixels:
        return cast(Pixels, read_indices(path))

    def predict(self, items: Sequence[Photograph]) -> list[Positions | PatchwordError]:
        return [self._positions(item) for item in items]

    def describe(self) -> dict[str, Any]:
        coded = "as the masks" if self.names is None else "positions in the class list"
        return {"kind": "folder", "folder": str(self.folder), "values": coded}

    def _positions(self, item: Photograph) -> Positions | PatchwordError:
        if isinstance(item.pixels, PatchwordError):
            return item.pixels
        source = f"prediction {item.path}"
        try:
            if self.names is None:
                return self.truth.of_values(item.pixels, source=source)
            return self.truth.prediction(LabelMap.of_values(item.pixels, names=self.names, source=source))
        except PatchwordError as error:
            return error


Predictor: TypeAlias = SegmenterPredictor | FolderPredictor


def find_predictions(
    folder: Path, *, pairs: Sequence[Pair], truth: MaskRule, coded: PredictionsAre = "auto"
) -> FolderPredictor:
    """Find the prediction of every photograph, in a folder or in `masks/` in it.

    A prediction is an indexed or grey picture of 8 or 16 bits. Coded as "masks", its values mean what they mean in the
    masks, and what does not count there is no prediction. Coded as "positions", they are positions in the class list,
    from 0, the position after the last class is background, and 255 (65535 in 16-bit pictures) is no prediction; "auto"
    is "positions" in a folder that `label` or `segment` made, and "masks" in any other.
    """
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
            "the prediction of a/b.jpg is a/b.jpg.png or a/b.png"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    check_not_shared(paths)
    return FolderPredictor(folder, paths, truth, names)


def _names(folder: Path, truth: MaskRule, recorded: Vocabulary | None) -> tuple[str, ...]:
    """Names of the predictions' values, background included where the values can hold it."""
    expected = truth.vocabulary.names
    if recorded is not None and recorded.names != expected:
        made, now = told_apart(recorded.names, expected)
        raise PatchwordError(
            f"{folder} was made for the classes {made}, the class list has {now}; they must be the same"
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
