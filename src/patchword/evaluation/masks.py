"""What the values of ground-truth masks mean, and how predictions are held against them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap, read_indices
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.pairs import Pair
from patchword.segmentation.words import BACKGROUND_NAME

ZeroIs = Literal["class", "background", "ignore"]
IGNORE = -1
Positions = NDArray[np.signedinteger[Any]]


class Truth(Protocol):
    """What is scored, what the masks say of it, and how predictions are held against them."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What a model is asked for, background words included where background is scored."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that are scored, in the order of the confusion matrix."""

    def read_truth(self, pair: Pair) -> Positions:
        """The truth of a photograph (h, w) as indices of `names`, -1 where a pixel does not count."""

    def of_values(self, values: NDArray[np.integer[Any]], *, source: str) -> Positions:
        """Values (h, w) coded as those of the masks, as indices of `names`, -1 for what does not count."""

    def prediction(self, label_map: LabelMap) -> Positions:
        """A label map over `vocabulary` as (h, w) indices of `names`, -1 where nothing is predicted."""


@dataclass(frozen=True)
class MaskRule:
    """How the values of a data set's masks refer to a class list.

    Attributes:
        vocabulary: the class list; its background words are dropped where background is not scored.
        zero_is: what value 0 means. "class": the first class, and value v is the class at position v, counted from 0
            (COCO-Stuff, Cityscapes). "background": background, a class of its own before the list, and value v is the
            v-th class; a pixel for which nothing is predicted counts as background (PASCAL VOC). "ignore": such pixels
            do not count, and value v is the v-th class (ADE20K; VOC without background).
        ignore_index: the value of pixels that do not count; None for 255 in 8-bit masks and 65535 in 16-bit ones.
    """

    vocabulary: Vocabulary
    zero_is: ZeroIs = "class"
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        allowed = get_args(ZeroIs)
        if self.zero_is not in allowed:
            raise PatchwordError(f"zero is {self.zero_is!r}; allowed are {', '.join(allowed)}")
        if self.ignore_index is not None and not self.largest < self.ignore_index <= 65535:
            raise PatchwordError(
                f"ignore index is {self.ignore_index}; the masks' classes go to {self.largest}, "
                f"so allowed are {self.largest + 1} to 65535"
            )
        if self.zero_is == "background" and BACKGROUND_NAME in self.vocabulary.names:
            raise PatchwordError(
                f"the class list has a class {BACKGROUND_NAME!r} and zero is background too; take the class out of the "
                "list, or let zero be a class"
            )
        if self.zero_is != "background":
            object.__setattr__(self, "vocabulary", replace(self.vocabulary, background=()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that are scored, in the order of the confusion matrix."""
        return (BACKGROUND_NAME, *self.vocabulary.names) if self.zero_is == "background" else self.vocabulary.names

    @property
    def largest(self) -> int:
        """The largest mask value that is a class."""
        return len(self.vocabulary) - (self.zero_is == "class")

    def read_truth(self, pair: Pair) -> Positions:
        """Read a photograph's mask as indices of `names`, -1 where a pixel does not count.

        Returns:
            (h, w) of a small signed type.
        """
        return self.of_values(read_indices(pair.mask), source=f"mask {pair.mask}")

    def of_values(self, values: NDArray[np.integer[Any]], *, source: str) -> Positions:
        """Values that are coded as those of the masks, as indices of `names`, -1 for those that do not count.

        Args:
            values: (h, w).
            source: what they are of, for errors.

        Returns:
            (h, w) of a small signed type.
        """
        positions = _signed(values)
        ignore = self.ignore_index or (255 if values.dtype == np.uint8 else 65535)
        ignored = positions == ignore
        if ignore <= self.largest and ignored.any():
            raise PatchwordError(
                f"{source} holds the value {ignore}, which is a class of {len(self.vocabulary)} and by default what "
                f"does not count; name another ignore index, {self.largest + 1} to 65535, or write 16-bit masks"
            )
        outside = ((positions > self.largest) | (positions < 0)) & ~ignored
        if outside.any():
            shifted = self.zero_is == "class" and bool((positions[outside] == self.largest + 1).all())
            raise PatchwordError(
                f"{source} holds {values_of(positions[outside])}; {len(self.vocabulary)} classes with "
                f"zero as {self.zero_is} allow 0 to {self.largest}, and the ignore index"
                + ("; where 0 is not a class, zero is background or ignore (--zero-is)" if shifted else "")
            )
        if self.zero_is == "ignore":
            positions -= 1
        positions[ignored] = IGNORE
        return positions

    def prediction(self, label_map: LabelMap) -> Positions:
        """Bring a label map over the vocabulary to indices of `names`, -1 where nothing is predicted.

        A class that the map has beyond the vocabulary is background: scored where background is, else no prediction.

        Returns:
            (h, w) of a small signed type.
        """
        values = _signed(label_map.indices)
        values[values >= len(self.vocabulary)] = IGNORE
        return values + 1 if self.zero_is == "background" else values


def values_of(values: NDArray[np.integer[Any]], *, most: int = 5) -> str:
    """The values among those given and how many pixels have each, the most frequent first, at most so many."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    told = [f"{int(found[place])} ({_pixels(int(counts[place]))})" for place in order]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"the value{'' if len(found) == 1 else 's'} {', '.join(told)}{more}"


def _pixels(count: int) -> str:
    return "1 pixel" if count == 1 else f"{count:,} pixels"


def _signed(indices: NDArray[np.integer[Any]]) -> Positions:
    """A copy in the smallest signed type that holds every value of the indices' own and -1."""
    values: Positions = indices.astype(np.int16 if indices.dtype == np.uint8 else np.int32)
    return values
