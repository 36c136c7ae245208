"""Who predicts: a segmenter, or whoever has left masks in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from patchword.errors import PatchwordError
from patchword.evaluate.masks import Truth
from patchword.evaluate.pairs import Pair
from patchword.images import read_image
from patchword.maps import LabelMap, read_indices
from patchword.runs.stream import Photograph, Pixels
from patchword.segment.dense import AnySegmenter
from patchword.segment.settings import SegmentSettings
from patchword.segment.words import BACKGROUND_NAME
from patchword.vocabulary import Vocabulary


class Predictor(Protocol):
    """Gives label maps over a truth's vocabulary, several at once."""

    @property
    def batch(self) -> int:
        """How many photographs it is asked about at once."""

    def source(self, pair: Pair) -> Path:
        """The file that it needs of a photograph."""

    def read(self, path: Path) -> Pixels:
        """Read such a file; in a thread of its own, ahead of `predict`."""

    def predict(self, items: Sequence[Photograph]) -> list[LabelMap | PatchwordError]:
        """The label maps of what was read, in its order; in place of one that cannot be made, why."""

    def describe(self) -> dict[str, Any]:
        """What a person must know to predict the same again, as JSON can hold it."""


@dataclass(frozen=True)
class SegmenterPredictor:
    """A segmenter, asked for the classes of a vocabulary.

    Attributes:
        segmenter: any.
        vocabulary: the classes; its background words take part.
        settings: how images are seen.
    """

    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings

    @classmethod
    def of(
        cls, segmenter: AnySegmenter, *, truth: Truth, settings: SegmentSettings | Mapping[str, Any] | None = None
    ) -> SegmenterPredictor:
        """A segmenter that predicts what a truth scores.

        Raises:
            PatchwordError: when background is scored, and there are neither words for it nor a threshold.
        """
        chosen, vocabulary = SegmentSettings.of(settings), truth.vocabulary
        scored = BACKGROUND_NAME in truth.names and BACKGROUND_NAME not in vocabulary.names
        if scored and not (vocabulary.background or chosen.threshold or chosen.background_threshold):
            raise PatchwordError(
                "background is scored, and there are neither words for it nor a threshold; give some, such as sky and "
                "wall, in the class list or beside it, or set background_threshold"
            )
        return cls(segmenter, vocabulary, chosen)

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

    def predict(self, items: Sequence[Photograph]) -> list[LabelMap | PatchwordError]:
        """As of `Predictor`."""
        images = [item.pixels for item in items if not isinstance(item.pixels, PatchwordError)]
        found = iter(
            self.segmenter.segment_batch(images, classes=self.vocabulary, settings=self.settings) if images else []
        )
        answers = [item.pixels if isinstance(item.pixels, PatchwordError) else next(found) for item in items]
        return [answer if isinstance(answer, PatchwordError) else answer.label_map for answer in answers]

    def describe(self) -> dict[str, Any]:
        """The segmenter and its settings."""
        return {**self.segmenter.describe(), "settings": self.settings.model_dump(mode="json")}


@dataclass(frozen=True)
class FolderPredictor:
    """Label maps that any program has left on disk; see `predictions.find_predictions`.

    Attributes:
        folder: as the user named it.
        paths: name of a photograph -> its prediction.
        names: of the values.
    """

    folder: Path
    paths: Mapping[str, Path]
    names: tuple[str, ...]
    batch: int = 1

    def source(self, pair: Pair) -> Path:
        """The prediction's file."""
        return self.paths[pair.name]

    def read(self, path: Path) -> Pixels:
        """The prediction's values, checked with `predict`."""
        return cast(Pixels, read_indices(path))

    def predict(self, items: Sequence[Photograph]) -> list[LabelMap | PatchwordError]:
        """As of `Predictor`."""
        return [self._label_map(item) for item in items]

    def describe(self) -> dict[str, Any]:
        """The folder."""
        return {"kind": "folder", "folder": str(self.folder)}

    def _label_map(self, item: Photograph) -> LabelMap | PatchwordError:
        if isinstance(item.pixels, PatchwordError):
            return item.pixels
        try:
            return LabelMap.of_values(item.pixels, names=self.names, source=str(item.path))
        except PatchwordError as error:
            return error
