"""The classes that a caller names, as text vectors that patches are compared with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.colours import with_one_more
from patchword.errors import PatchwordError
from patchword.models.protocols import ImageTextEncoder
from patchword.text import BACKGROUND, TextVectors, encode_vocabulary
from patchword.vocabulary import DEFAULT_TEMPLATES, Vocabulary

BACKGROUND_NAME = "background"
Classes = str | Path | Sequence[str] | Vocabulary

_KEPT = 16  # vocabularies whose vectors are kept; a matter of memory only


@dataclass(frozen=True)
class ClassWords:
    """The words of n classes and their colours (n, 3); background words, where given, make one more class, the last,
    named "background"."""

    names: tuple[str, ...]
    vectors: TextVectors
    colours: NDArray[np.uint8]

    def scores(self, patches: Tensor) -> Tensor:
        """Compare patches with the classes: the highest cosine over a class's words.

        Args:
            patches: (d, h, w) unit length.

        Returns:
            (n, h, w).
        """
        words = self.vectors.words.to(device=patches.device, dtype=patches.dtype)
        similarity = torch.einsum("wd,dyx->wyx", words, patches)
        scores = self.vectors.class_scores(similarity, dim=0)
        behind = self.vectors.classes == BACKGROUND
        if not behind.any():
            return scores
        background = similarity[behind.to(patches.device)].amax(dim=0, keepdim=True)  # (1, h, w)
        return torch.cat([scores, background])


class WordEncoder:
    """Turns class names into vectors, once for each list of classes.

    Args:
        encoder: the text tower.
        templates: prompt templates of classes that come without templates of their own.
    """

    def __init__(self, encoder: ImageTextEncoder, *, templates: Sequence[str] = DEFAULT_TEMPLATES) -> None:
        self._encoder = encoder
        self._templates = tuple(templates)
        self._known: OrderedDict[str, ClassWords] = OrderedDict()

    def __call__(self, classes: Classes, *, background: Sequence[str] | None = None) -> ClassWords:
        """Encode classes.

        Args:
            classes: anything that `Vocabulary.of` takes.
            background: background words; None takes those of the vocabulary, an empty list none.

        Raises:
            PatchwordError: for all that `Vocabulary` refuses, and for background words beside a class "background".
        """
        vocabulary = self.vocabulary_of(classes, background=background)
        if vocabulary.hash not in self._known:
            self._known[vocabulary.hash] = self._encode(vocabulary)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(vocabulary.hash)
        return self._known[vocabulary.hash]

    def vocabulary_of(self, classes: Classes, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `classes` and `background` mean here."""
        vocabulary = Vocabulary.of(classes, background=background or ())
        if background is not None and not background:
            vocabulary = replace(vocabulary, background=())
        if vocabulary.templates == DEFAULT_TEMPLATES and not isinstance(classes, Vocabulary):
            vocabulary = replace(vocabulary, templates=self._templates)
        if vocabulary.background and BACKGROUND_NAME in vocabulary.names:
            raise PatchwordError(
                f"there are a class {BACKGROUND_NAME!r} and background words as well; allowed is one of the two"
            )
        return vocabulary

    def _encode(self, vocabulary: Vocabulary) -> ClassWords:
        vectors = encode_vocabulary(self._encoder, vocabulary=vocabulary, background=True)
        if not vocabulary.background:
            return ClassWords(vocabulary.names, vectors, vocabulary.colours)
        return ClassWords((*vocabulary.names, BACKGROUND_NAME), vectors, with_one_more(vocabulary.colours))
