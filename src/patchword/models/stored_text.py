"""Text vectors in a small file: the words of one vocabulary, without the text tower that made them.

The file is NumPy's .npz, which any program can read without patchword:

| array | what it is |
|---|---|
| `vectors` | (n, d) float32, unit length: one row a word, averaged over its prompts |
| `class_of` | (n,) int64: which class each word belongs to; background words make one more class, the last |
| `names` | (k,) text: the classes' names |
| `words` | (n,) text |
| `about` | JSON: the text tower with its fingerprint, the vocabulary and its hash, versions |
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from patchword.config.base import one_line
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, first_line
from patchword.models.protocols import ModelRecord

SUFFIX = ".npz"
FORMAT: Literal["patchword-text-vectors"] = "patchword-text-vectors"
VERSION: Literal[1] = 1


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
        vectors: (n, d) unit length, one a word, in the order of `prompts_by_word`.
        record: of the text tower that made them.
        vocabulary: whose words they are.
        place: where they come from, for messages.
    """

    device = torch.device("cpu")

    def __init__(self, vectors: Tensor, *, record: ModelRecord, vocabulary: Vocabulary, place: str) -> None:
        prompts = prompts_by_word(vocabulary)
        if vectors.shape != (len(prompts), record.dim):
            expected = (len(prompts), record.dim)
            raise PatchwordError(f"{place} has vectors of shape {tuple(vectors.shape)}; its own facts allow {expected}")
        self.record = record
        self.vocabulary = vocabulary
        self._place = place
        self._vectors = vectors
        self._rows = {prompt: row for row, (_, texts) in enumerate(prompts) for prompt in texts}

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
        words = [word for word, _ in prompts_by_word(self.vocabulary)]
        return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def prompts_by_word(vocabulary: Vocabulary) -> list[tuple[str, tuple[str, ...]]]:
    """Every word of a vocabulary with its prompts: classes in order, background words last."""
    entries = [(word, entry.templates or vocabulary.templates) for entry in vocabulary.classes for word in entry.words]
    entries += [(word, vocabulary.templates) for word in vocabulary.background]
    return [(word, tuple(template.replace("{}", word) for template in templates)) for word, templates in entries]


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
        words=np.array([word for word, _ in prompts_by_word(vocabulary)]),
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
