"""Text embeddings: prompts cleaned and encoded, one unit vector a word of a vocabulary, and a small file of them.

The file holds the words of one vocabulary, without the text tower that made them. It is NumPy's .npz, which any program
can read without patchword:

| array | what it is |
|---|---|
| `vectors` | (n, d) float32, unit length: one row a word, averaged over its prompts |
| `class_of` | (n,) int64: which class each word belongs to; background words make one more class, the last |
| `names` | (k,) text: the classes' names |
| `words` | (n,) text |
| `about` | JSON: the text tower with its fingerprint, the vocabulary and its hash, versions |
"""

from __future__ import annotations

import html
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import ftfy
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.nn import functional

from patchword.config.base import one_line
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import key_of
from patchword.errors import PatchwordError, first_line, warn
from patchword.models.pixels import unit
from patchword.models.protocols import ImageTextEncoder, ModelRecord
from patchword.precision import float32_matmul

BACKGROUND = -1
_ALIKE = 0.9999  # cosine from which on two words are the same to a model
_SHOWN = 3  # words or pairs that a warning names
_ROWS = 1024  # words that are compared with all others at once; bounds memory
_TOKENIZING = Lock()  # tokenizers keep their padding and truncation in themselves, and refuse two threads at a time
TEXT_BATCH = 256  # prompts a forward pass; bounds memory, changes no result
SUFFIX = ".npz"
FORMAT: Literal["patchword-text-vectors"] = "patchword-text-vectors"
VERSION: Literal[1] = 1


def clean_prompt(prompt: str) -> str:
    """A prompt as OpenAI's CLIP, OpenCLIP and SigLIP clean it before they tokenize.

    Typographic quotes, ligatures and full-width letters become plain ones, broken encodings and HTML entities are
    undone, and white space is single. Letters are not lowered here: that is the tokenizer's.

    Source: `basic_clean` and `whitespace_clean` of OpenAI's CLIP.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def encode_in_batches(prompts: Sequence[str], *, encode: Callable[[list[str]], Tensor], empty: Tensor) -> Tensor:
    """Clean prompts (`clean_prompt`) and encode them some at a time, so that thousands of them fit.

    Args:
        prompts: n strings.
        encode: takes a list of cleaned strings to (len, d).
        empty: (0, d), what no prompts give.

    Returns:
        (n, d) float32, unit length.
    """
    if isinstance(prompts, str):
        raise PatchwordError(f"prompts must be a list of strings, not the string {prompts!r}")
    for position, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise PatchwordError(f"prompt {position} must be a string, not {prompt!r}")
    cleaned = list(map(clean_prompt, prompts))
    with _TOKENIZING, float32_matmul("highest"):
        chunks = [encode(cleaned[start : start + TEXT_BATCH]) for start in range(0, len(cleaned), TEXT_BATCH)]
    return unit(torch.cat([empty, *chunks]))


def count_tokens(
    prompts: Sequence[str], *, tokenizer: Callable[..., Any], prepare: Callable[[str], str] = str
) -> list[int]:
    """How many tokens each prompt has, cleaned, prepared and uncut, by a tokenizer of transformers."""
    prepared = [prepare(clean_prompt(prompt)) for prompt in prompts]
    with _TOKENIZING:
        return [len(ids) for ids in tokenizer(prepared, truncation=False, verbose=False)["input_ids"]]


@dataclass(frozen=True, eq=False)
class TextVectors:
    """The words of a vocabulary in the space of an image-text encoder.

    Attributes:
        words: (n, d) unit length, one row a word, classes in order and background words last.
        classes: (n,) int64, the class that each word belongs to; -1 for a background word.
        count: number of classes, at most n; each has a word.
    """

    words: Tensor
    classes: Tensor
    count: int

    def __post_init__(self) -> None:
        if self.words.ndim != 2 or self.classes.shape != self.words.shape[:1]:
            shapes = f"{tuple(self.words.shape)} and {tuple(self.classes.shape)}"
            raise PatchwordError(f"words and classes must have shapes (n, d) and (n,), not {shapes}")
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
        """
        if similarity.shape[dim] != len(self.words):
            raise PatchwordError(
                f"similarity has {similarity.shape[dim]} entries along dimension {dim}; "
                f"it needs one a word, {len(self.words)}"
            )
        # without synonyms there is nothing to gather
        names, background = self.classes[: self.count], self.classes[self.count :]
        if bool(
            (names == torch.arange(self.count, device=names.device)).all() and (background < 0).all()
        ):  # no synonyms
            return similarity.narrow(dim, 0, self.count)
        moved = similarity.movedim(dim, -1)  # (..., n)
        named = self.classes != BACKGROUND
        kept = moved[..., named.to(moved.device)]
        target = self.classes[named].to(moved.device).expand(kept.shape)
        scores = kept.new_full((*kept.shape[:-1], self.count), float("-inf"))
        return scores.scatter_reduce(-1, target, kept, reduce="amax").movedim(-1, dim)


@torch.no_grad()
def encode_vocabulary(
    encoder: ImageTextEncoder,
    *,
    vocabulary: Vocabulary,
    background: bool = False,
    batch_size: int = 256,
    done: Callable[[int], None] | None = None,
) -> TextVectors:
    """Encode every word in its templates, average over them and bring back to unit length.

    Args:
        encoder: the text tower.
        vocabulary: classes, background words and templates; a class's own templates replace the others for its words.
        background: whether the background words come along, after the classes.
        batch_size: prompts in one call of the encoder, at least 1; a word's templates stay together even where they are
            more than that.

    Returns:
        words (n, d) on the encoder's device, classes (n,), count.
    """
    if batch_size < 1:
        raise PatchwordError(f"batch size must be at least 1, not {batch_size}")
    words = _words_of(vocabulary, background=background)
    vectors = []
    for batch in _batches(words, size=batch_size):
        encoded = encoder.encode_text([prompt for word in batch for prompt in word.prompts])  # (prompts, d)
        parts = torch.split(encoded, [len(word.templates) for word in batch])
        vectors += [part.mean(dim=0) for part in parts]
        if done is not None:
            done(len(batch))
    stacked = functional.normalize(torch.stack(vectors), dim=1)  # (n, d)
    classes = torch.tensor([word.position for word in words], device=stacked.device)
    return TextVectors(stacked, classes, len(vocabulary))


def check_words(vectors: TextVectors, *, encoder: ImageTextEncoder, vocabulary: Vocabulary) -> None:
    """Warn of words that the text tower does not see whole, and of words of two classes that are the same to it."""
    words = _words_of(vocabulary, background=True)
    limit, counts = getattr(encoder, "context_length", None), getattr(encoder, "token_counts", None)
    if limit is not None and counts is not None:
        # a token is a byte or more; two are the ends
        long = [word for word in words if max(len(prompt.encode()) for prompt in word.prompts) > limit - 2]
        most = [(word.text, max(counts(word.prompts))) for word in long]
        cut = [
            f"{(word if len(word) <= 40 else word[:40] + '...')!r} has {tokens} in its longest prompt"
            for word, tokens in most
            if tokens > limit
        ]
        if cut:
            warn(f"the text encoder takes {limit} tokens and cuts the rest: {_some(cut)}")
    alike = _words_alike(vectors.words.float(), words)
    if alike:
        pairs = [f"{first!r} and {second!r} (cosine {cosine:.5f})" for first, second, cosine in alike]
        warn(f"the text encoder cannot tell apart {_some(pairs)}; use other words, or make them one class")


def _words_alike(vectors: Tensor, words: Sequence[_Word]) -> list[tuple[str, str, float]]:
    """Pairs of words of different classes whose vectors have a cosine of nearly 1; a shared word is meant to."""
    classes = torch.tensor([word.position for word in words], device=vectors.device)
    found = []
    for start in range(0, len(words), _ROWS):
        cosines = vectors[start : start + _ROWS] @ vectors.T  # (rows, n)
        differ = classes[start : start + _ROWS, None] != classes
        for row, column in torch.nonzero((cosines > _ALIKE) & differ).tolist():
            first, second = words[start + row].text, words[column].text
            if start + row < column and key_of(first) != key_of(second):
                found.append((first, second, float(cosines[row, column])))
    return found


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return "; ".join(parts[:_SHOWN]) + more


@dataclass(frozen=True)
class _Word:
    """A word, the class that it belongs to (-1 for a background word), and the templates that it is put into."""

    text: str
    position: int
    templates: tuple[str, ...]

    @property
    def prompts(self) -> list[str]:
        return [template.replace("{}", self.text) for template in self.templates]


def _words_of(vocabulary: Vocabulary, *, background: bool) -> list[_Word]:
    words = [
        _Word(word, position, entry.templates or vocabulary.templates)
        for position, entry in enumerate(vocabulary.classes)
        for word in entry.words
    ]
    if background:
        words += [_Word(word, BACKGROUND, vocabulary.templates) for word in vocabulary.background]
    return words


def _batches(words: Sequence[_Word], *, size: int) -> Iterator[list[_Word]]:
    """Runs of words with at most `size` prompts together, or of one word that has more."""
    batch: list[_Word] = []
    prompts = 0
    for word in words:
        if batch and prompts + len(word.templates) > size:
            yield batch
            batch, prompts = [], 0
        batch.append(word)
        prompts += len(word.templates)
    yield batch


class TextVectorFacts(BaseModel):
    """What a file of text vectors says of itself.

    Attributes:
        text_encoder: the text tower.
        vocabulary: in the text format.
        vocabulary_hash: its hash.
        versions: of the software that made the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["patchword-text-vectors"] = FORMAT
    version: Literal[1] = VERSION
    text_encoder: ModelRecord
    vocabulary: str
    vocabulary_hash: str
    versions: dict[str, str]


class StoredText:
    """`ImageTextEncoder` whose only texts are those of a file, and which knows no images.

    Args:
        vectors: (n, d) unit length, one a word, classes in order and background words last.
        record: of the text tower that made them.
        vocabulary: whose words they are.
        place: where they come from, for messages.
    """

    device = torch.device("cpu")

    def __init__(self, vectors: Tensor, *, record: ModelRecord, vocabulary: Vocabulary, place: str) -> None:
        words = _words_of(vocabulary, background=True)
        expected = (len(words), record.dim)
        if vectors.shape != expected:
            raise PatchwordError(f"{place} has vectors of shape {tuple(vectors.shape)}; its own facts allow {expected}")
        self.record = record
        self.vocabulary = vocabulary
        self._place = place
        self._vectors = vectors
        self._rows = {prompt: row for row, word in enumerate(words) for prompt in word.prompts}

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """The stored vector of each prompt's word, (n, d) unit length."""
        unknown = next((prompt for prompt in prompts if prompt not in self._rows), None)
        if unknown is not None:
            raise PatchwordError(
                f"{self._place} has no vector for {unknown!r}; use the words and templates that it was made "
                f"with: {self._words()}"
            )
        return self._vectors[[self._rows[prompt] for prompt in prompts]]

    def encode_images(self, images: Tensor) -> Tensor:
        """Refuse: there is no image tower."""
        raise self._blind()

    def encode_patches(self, images: Tensor) -> Tensor:
        """Refuse: there is no image tower."""
        raise self._blind()

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: there is no image tower."""
        raise self._blind()

    def _blind(self) -> PatchwordError:
        return PatchwordError(f"{self._place} holds only text embeddings; images need an image-text model")

    def _words(self) -> str:
        words = [word.text for word in _words_of(self.vocabulary, background=True)]
        return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def pack_text_vectors(
    vectors: NDArray[np.float32],
    *,
    class_of: NDArray[np.int64],
    names: Sequence[str],
    facts: TextVectorFacts,
    vocabulary: Vocabulary,
) -> bytes:
    """The bytes of a file of text vectors; the same ones for the same content."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        vectors=vectors.astype("<f4"),
        class_of=class_of.astype("<i8"),
        names=np.array(list(names)),
        words=np.array([word.text for word in _words_of(vocabulary, background=True)]),
        about=np.array(facts.model_dump_json()),
    )
    return buffer.getvalue()


def load_stored_text(path: str | Path) -> StoredText:
    """Read a file of text vectors."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held: dict[str, Any] = {name: arrays[name] for name in ("vectors", "about")}
    except FileNotFoundError:
        raise PatchwordError(f"{path} does not exist; give a file of text embeddings") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PatchwordError(f"{path} is not a file of text embeddings, or is damaged: {first_line(error)}") from None
    try:
        facts = TextVectorFacts.model_validate_json(str(held["about"]))
    except ValidationError as error:
        raise PatchwordError(f"{path} is not a file of text embeddings: {one_line(error, place='field')}") from None
    vocabulary = Vocabulary.recorded(facts.vocabulary, source=str(path))
    vectors = torch.from_numpy(np.asarray(held["vectors"], dtype=np.float32))
    return StoredText(vectors, record=facts.text_encoder, vocabulary=vocabulary, place=str(path))
