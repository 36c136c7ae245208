"""A vocabulary's text vectors: one unit vector a word, averaged over the prompt templates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.protocols import ImageTextEncoder
from patchword.vocabulary import Vocabulary

BACKGROUND = -1


@dataclass(frozen=True, eq=False)
class TextVectors:
    """The words of a vocabulary in the space of an image-text encoder.

    Attributes:
        words: (n, d) unit length, one row a word, classes in order and background words last.
        classes: (n,) int64, the class that each word belongs to; -1 for a background word.
        count: number of classes, at most n; each has a word.

    Raises:
        PatchwordError: when the three do not fit together.
    """

    words: Tensor
    classes: Tensor
    count: int

    def __post_init__(self) -> None:
        if self.words.ndim != 2 or self.classes.shape != self.words.shape[:1]:
            shapes = f"{tuple(self.words.shape)} and {tuple(self.classes.shape)}"
            raise PatchwordError(f"words and classes have shapes {shapes}; allowed are (n, d) and (n,)")
        present = set(self.classes.tolist()) - {BACKGROUND}
        if present != set(range(self.count)):
            raise PatchwordError(f"words belong to classes {sorted(present)}; each of 0 to {self.count - 1} needs one")

    def class_vectors(self) -> Tensor:
        """One vector a class: the mean over its words, brought back to unit length.

        Returns:
            (count, d), unit length; background words are left out.
        """
        named = self.classes != BACKGROUND
        member = functional.one_hot(self.classes[named], self.count).to(self.words.dtype)  # (n, count)
        return functional.normalize(member.T @ self.words[named], dim=1)  # (count, d)

    def class_scores(self, similarity: Tensor, dim: int = -1) -> Tensor:
        """One score a class: the maximum over its words.

        Args:
            similarity: of any shape with n entries along `dim`, in the order of `words`.
            dim: the dimension that runs over words.

        Returns:
            the same shape with count entries along `dim`; background words are left out.

        Raises:
            PatchwordError: when `dim` does not have n entries.
        """
        if similarity.shape[dim] != len(self.words):
            raise PatchwordError(
                f"similarity has {similarity.shape[dim]} entries along dimension {dim}; "
                f"it needs one a word, {len(self.words)}"
            )
        if self._is_one_word_a_class():
            return similarity.narrow(dim, 0, self.count)
        moved = similarity.movedim(dim, -1)  # (..., n)
        named = self.classes != BACKGROUND
        kept = moved[..., named.to(moved.device)]
        target = self.classes[named].to(moved.device).expand(kept.shape)
        scores = kept.new_full((*kept.shape[:-1], self.count), float("-inf"))
        return scores.scatter_reduce(-1, target, kept, reduce="amax").movedim(-1, dim)

    def _is_one_word_a_class(self) -> bool:
        classes = self.classes[: self.count]
        background = self.classes[self.count :]
        return bool((classes == torch.arange(self.count, device=classes.device)).all() and (background < 0).all())


@torch.no_grad()
def encode_vocabulary(
    encoder: ImageTextEncoder, *, vocabulary: Vocabulary, background: bool = False, batch_size: int = 256
) -> TextVectors:
    """Encode every word in every template, average over the templates and bring back to unit length.

    Args:
        encoder: the text tower.
        vocabulary: classes, templates and background words.
        background: whether the background words come along, after the classes.
        batch_size: prompts in one call of the encoder, at least 1; a word's templates stay together even where they are
            more than that.

    Returns:
        words (n, d) on the encoder's device, classes (n,), count.

    Raises:
        PatchwordError: when the batch size is below 1.

    Source: averaging over templates and its seven defaults are CLIP's (Radford et al., 2021, section 3.1.4).
    """
    if batch_size < 1:
        raise PatchwordError(f"batch size is {batch_size}; allowed is 1 or more prompts")
    words = [(word, position) for position, entry in enumerate(vocabulary.classes) for word in entry.words]
    if background:
        words += [(word, BACKGROUND) for word in vocabulary.background]
    templates = vocabulary.templates
    group = max(1, batch_size // len(templates))
    vectors = []
    for start in range(0, len(words), group):
        prompts = [template.replace("{}", word) for word, _ in words[start : start + group] for template in templates]
        encoded = encoder.encode_text(prompts)  # (group * templates, d)
        vectors.append(encoded.reshape(-1, len(templates), encoded.shape[1]).mean(dim=1))  # (group, d)
    stacked = functional.normalize(torch.cat(vectors), dim=1)  # (n, d)
    classes = torch.tensor([position for _, position in words], device=stacked.device)
    return TextVectors(stacked, classes, len(vocabulary))
