"""Who predicts: a segmenter, or whoever has left masks in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from patchword.data.images import read_image
from patchword.data.masks import LabelMap, read_indices
from patchword.errors import PatchwordError
from patchword.evaluation.masks import Positions, Truth
from patchword.evaluation.pairs import Pair
from patchword.runs.pipeline import Photograph, Pixels, why_unread
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.settings import SegmentSettings
from patchword.segmentation.words import BACKGROUND_NAME


class Predictor(Protocol):
    """Gives what a truth scores, for several photographs at once."""

    @property
    def batch(self) -> int:
        """How many photographs it is asked about at once."""

    def source(self, pair: Pair) -> Path:
        """The file that it needs of a photograph."""

    def read(self, path: Path) -> Pixels:
        """Read such a file; in a thread of its own, ahead of `predict`."""

    def predict(self, items: Sequence[Photograph]) -> list[Positions | PatchwordError]:
        """Of what was read, in its order: (h, w) indices of the scored names, -1 for none; or why there are none."""

    def describe(self) -> dict[str, Any]:
        """What a person must know to predict the same again, as JSON can hold it."""


@dataclass(frozen=True)
class SegmenterPredictor:
    """A segmenter, asked for the classes of a truth; its background words take part.

    Attributes:
        segmenter: any.
        truth: what is scored.
        settings: how images are seen.
    """

    segmenter: AnySegmenter
    truth: Truth
    settings: SegmentSettings

    @classmethod
    def of(
        cls, segmenter: AnySegmenter, *, truth: Truth, settings: SegmentSettings | Mapping[str, Any] | None = None
    ) -> SegmenterPredictor:
        """A segmenter that predicts what a truth scores."""
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
        """As of `Predictor`."""
        return self.settings.batch

    def source(self, pair: Pair) -> Path:
        """The photograph."""
        return pair.photo

    def read(self, path: Path) -> Pixels:
        """The photograph's pixels."""
        return read_image(path)

    def predict(self, items: Sequence[Photograph]) -> list[Positions | PatchwordError]:
        """As of `Predictor`."""
        images = [item.pixels for item in items if not isinstance(item.pixels, PatchwordError)]
        classes = self.truth.vocabulary
        found = iter(self.segmenter.segment_batch(images, classes=classes, settings=self.settings) if images else [])
        answers = [why_unread(item) if isinstance(item.pixels, PatchwordError) else next(found) for item in items]
        return [
            answer if isinstance(answer, PatchwordError) else self.truth.prediction(answer.label_map)
            for answer in answers
        ]

    def describe(self) -> dict[str, Any]:
        """The segmenter and its settings."""
        return {**self.segmenter.describe(), "settings": self.settings.model_dump(mode="json")}


@dataclass(frozen=True)
class FolderPredictor:
    """Label maps that any program has left on disk; see `predictions.find_predictions`.

    Attributes:
        folder: as the user named it.
        paths: name of a photograph -> its prediction.
        truth: what is scored.
        names: of the values, which are positions in them; None where they are coded as the masks'.
    """

    folder: Path
    paths: Mapping[str, Path]
    truth: Truth
    names: tuple[str, ...] | None
    batch: int = 1

    def source(self, pair: Pair) -> Path:
        """The prediction's file."""
        return self.paths[pair.name]

    def read(self, path: Path) -> Pixels:
        """The prediction's values, checked with `predict`."""
        return cast(Pixels, read_indices(path))

    def predict(self, items: Sequence[Photograph]) -> list[Positions | PatchwordError]:
        """As of `Predictor`."""
        return [self._positions(item) for item in items]

    def describe(self) -> dict[str, Any]:
        """The folder, and how its values are coded."""
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
