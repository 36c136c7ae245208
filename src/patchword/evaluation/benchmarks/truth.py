"""What the pixels of a benchmark's masks mean, and how predictions are held against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap, read_indices
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.masks import IGNORE, MaskRule, Pair, values_of

BACKGROUND = -2  # what a table of mask values says of background; IGNORE is the other that is no class
UNLABELLED = -3  # pixels that nobody labelled, where it is a choice whether they are background or ignored
_UNKNOWN = -4
_LARGEST = 65535

Values = Callable[[Pair], NDArray[np.integer]]
Meaning = Mapping[int, int]


def mask_values(pair: Pair) -> NDArray[np.integer]:
    return read_indices(pair.mask)


@dataclass(frozen=True)
class BenchmarkTruth:
    """The ground truth of a benchmark that was found on disk.

    Attributes:
        vocabulary: what a model is asked for; it has background words only where background is scored by words.
        scores_background: whether background is a class, the first; else its pixels do not count.
        values: reads the values of a pair's mask, (h, w) integers.
        meaning: what each value is: a position in the class list, BACKGROUND, IGNORE or UNLABELLED.
        unlabelled_is_background: whether UNLABELLED is background; else it is ignored.
    """

    vocabulary: Vocabulary
    scores_background: bool
    values: Values
    meaning: Meaning
    unlabelled_is_background: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self._rule.names

    @property
    def rule(self) -> str:
        """How mask values were read, in words."""
        background = "background is scored, as class 0" if self.scores_background else "background does not count"
        chosen = self.unlabelled_is_background and UNLABELLED in self.meaning.values()
        unlabelled = "are background" if chosen else "do not count"
        return f"{len(self.vocabulary)} classes; {background}; unlabelled pixels {unlabelled}"

    def read_truth(self, pair: Pair) -> NDArray[np.int64]:
        return self.of_values(self.values(pair), source=f"mask {pair.mask} of {pair.name}")

    def of_values(self, values: NDArray[np.integer], *, source: str) -> NDArray[np.int64]:
        if values.dtype in (np.uint8, np.uint16):
            truth: NDArray[np.int64] = self._table[values]
        else:
            inside = np.clip(values, 0, _LARGEST)
            truth = np.where(inside == values, self._table[inside], _UNKNOWN)
        unknown = truth == _UNKNOWN
        if unknown.any():
            raise PatchwordError(f"{source} has {values_of(values[unknown])}; values must be {self._ranges}")
        return truth

    def prediction(self, label_map: LabelMap) -> NDArray[np.int64]:
        """Where background is scored it is what the map has beyond the vocabulary, and what it has no class for."""
        return self._rule.prediction(label_map)

    @cached_property
    def _rule(self) -> MaskRule:
        return MaskRule(self.vocabulary, zero_is="background" if self.scores_background else "class")

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Index of `names` of every mask value, (65536,)."""
        shift = int(self.scores_background)
        background = 0 if self.scores_background else IGNORE
        unlabelled = background if self.unlabelled_is_background else IGNORE
        special = {IGNORE: IGNORE, BACKGROUND: background, UNLABELLED: unlabelled}
        table = np.full(_LARGEST + 1, _UNKNOWN, dtype=np.int64)
        for value, position in self.meaning.items():
            table[value] = special.get(position, position + shift)
        return table

    @property
    def _ranges(self) -> str:
        runs = _runs(sorted(self.meaning))
        return ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in runs)


def _runs(values: list[int]) -> list[tuple[int, int]]:
    """Neighbouring numbers as (first, last)."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = runs[-1][0], value
        else:
            runs.append((value, value))
    return runs
