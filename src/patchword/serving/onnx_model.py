"""A segmenter of an ONNX file and a file of text embeddings, in NumPy alone: a server of it needs no torch."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.data.colours import with_one_more
from patchword.data.masks import LabelMap, ignore_index
from patchword.data.vocabulary import BACKGROUND_NAME, Vocabulary
from patchword.data.vocabulary_words import key_of
from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.facts import open_session, parse_facts, run_patches

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_MOST_VALUES = 2**22  # upsampled scores in memory at once; bounds memory, changes no result
_FIXED: dict[str, Any] = {
    "window": None,
    "stride": None,
    "join": "features",
    "softmax_over": "classes",
    "class_prior": 0.0,
}


class OnnxModel:
    """An exported segmenter that knows the words of its file of text embeddings, and no others.

    Args:
        path: of a file that `patchword export --format onnx` wrote.
        text: of a file that `patchword export --format text-embeddings` wrote.
    """

    kind: str = "onnx"
    method: str | None = None

    def __init__(self, path: str | Path, *, text: str | Path) -> None:
        self._session = open_session(path)
        facts = parse_facts(self._session.get_modelmeta().custom_metadata_map, place=str(path))
        self.name = Path(path).stem
        self.image_size, self._patch = facts.image_size, facts.patch_size
        self._temperature = facts.temperature
        self._dim = facts.module.text_dim
        self._text = str(text)
        self._known, self._vectors = _read_text(Path(text), fingerprint=facts.text_encoder.fingerprint)
        self.trained: Vocabulary | None = self._known
        self.defaults: Mapping[str, Any] = {"refine": "none"}

    def vocabulary(self, classes: Sequence[str] | None, background: Sequence[str] | None) -> Vocabulary:
        """The classes of a request, all of whose words are in the file."""
        if classes is None and background is None:
            return self._known
        found = Vocabulary.of(
            self._known if classes is None else list(classes),
            background=background or (),
            templates=self._known.templates,
        )
        if background is not None and not background:
            found = Vocabulary(found.classes, (), found.templates, found.shared)
        words = [word for entry in found.classes for word in entry.words]
        unknown = next((word for word in (*words, *found.background) if key_of(word) not in self._vectors), None)
        if unknown is not None:
            known = ", ".join(entry.name for entry in self._known.classes[:20])
            raise PatchwordError(f"{self._text} has no vector for {unknown!r}; it has those of {known}")
        return found

    def check(self, size: tuple[int, int], settings: SegmentSettings) -> None:
        """Refuse what needs torch."""
        for name, only in _FIXED.items():
            if getattr(settings, name) != only:
                raise PatchwordError(f"{name} is {getattr(settings, name)!r}; this model takes {only!r} alone")
        if settings.refine != "none":
            raise PatchwordError(f"refine is {settings.refine!r}; this model, which runs without torch, takes 'none'")

    def encode(self, images: Sequence[Pixels], settings: SegmentSettings) -> list[Any]:
        """Patch vectors of images, those of one size together."""
        found: list[Any] = [None] * len(images)
        sizes: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            size = seen_size(
                (image.shape[0], image.shape[1]),
                image_size=settings.image_size or self.image_size,
                patch_size=self._patch,
            )
            sizes.setdefault(size, []).append(place)
        for size, places in sizes.items():
            batch = np.stack([_resized(images[place], size) for place in places])
            vectors = run_patches(self._session, batch, dim=self._dim)
            for place, one in zip(places, vectors, strict=True):
                found[place] = Seen(np.ascontiguousarray(one, dtype=np.float32), images[place].shape[:2])
        return found

    def decide(self, encoded: Any, vocabulary: Vocabulary, settings: SegmentSettings) -> tuple[LabelMap, Floats]:
        """A class and a confidence for every pixel."""
        rows = [(word, place) for place, entry in enumerate(vocabulary.classes) for word in entry.words]
        names, colours = vocabulary.names, vocabulary.colours
        if vocabulary.background or (settings.background_threshold and BACKGROUND_NAME not in names):
            names, colours = (*names, BACKGROUND_NAME), with_one_more(colours)
            rows += [(word, len(names) - 1) for word in vocabulary.background]
        words = np.stack([self._vectors[key_of(word)] for word, _ in rows])
        similarity = np.tensordot(words, encoded.vectors, axes=1)  # (words, h/patch, w/patch)
        count = max(place for _, place in rows) + 1
        scores = np.full((count, *similarity.shape[1:]), -np.inf, np.float32)
        for (_, place), one in zip(rows, similarity, strict=True):
            np.maximum(scores[place], one, out=scores[place])
        indices, confidence = decide_pixels(
            scores, size=encoded.size, temperature=settings.temperature or self._temperature, names=len(names)
        )
        if settings.background_threshold:
            indices[confidence < np.float32(settings.background_threshold)] = names.index(BACKGROUND_NAME)
        if settings.threshold:
            indices[confidence < np.float32(settings.threshold)] = ignore_index(len(names))
        return LabelMap(indices, names, colours), confidence


class Seen:
    """Unit patch vectors (d, h/patch, w/patch), and the (height, width) of the image that they are of."""

    def __init__(self, vectors: Floats, size: tuple[int, ...]) -> None:
        self.vectors = vectors
        self.size = (size[0], size[1])
        self.nbytes = vectors.nbytes


def seen_size(size: tuple[int, int], *, image_size: int, patch_size: int) -> tuple[int, int]:
    """What `models.pixels.model_size` gives, without torch."""

    def whole(length: float) -> int:
        return max(1, int(length / patch_size + 0.5)) * patch_size

    scale = image_size / math.sqrt(size[0] * size[1])
    longest = whole(image_size) ** 2 // patch_size
    return min(whole(size[0] * scale), longest), min(whole(size[1] * scale), longest)


def decide_pixels(
    scores: Floats, *, size: tuple[int, int], temperature: float, names: int
) -> tuple[NDArray[np.unsignedinteger[Any]], Floats]:
    """The class of the best score of every pixel, and its share in a softmax; scores are upsampled bilinearly.

    Args:
        scores: (n, rows, columns) cosines.
        size: (height, width) of the result.
        temperature: of the softmax.
        names: how many classes the label map has.
    """
    height, width = size
    down = _weights(scores.shape[1], height)  # (height, rows)
    across = _weights(scores.shape[2], width).T  # (columns, width)
    wide = scores @ across  # (n, rows, width)
    indices = np.empty(size, np.uint8 if names < 255 else np.uint16)
    confidence = np.empty(size, np.float32)
    strip = max(1, _MOST_VALUES // (len(scores) * width))
    for top in range(0, height, strip):
        part = np.matmul(down[top : top + strip], wide)  # (n, strip, width)
        best = part.argmax(axis=0)
        indices[top : top + strip] = best
        part -= part.max(axis=0)
        confidence[top : top + strip] = 1 / np.exp(part / np.float32(temperature)).sum(axis=0)
    return indices, confidence


def _weights(cells: int, pixels: int) -> Floats:
    """How much each cell counts in each pixel, (pixels, cells): bilinear, edges clamped."""
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    weights: Floats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)
    return weights


def _resized(image: Pixels, size: tuple[int, int]) -> Floats:
    """(3, h, w) in [0, 1], bicubic with antialiasing."""
    height, width = size
    if image.shape[:2] == size:
        return (np.moveaxis(image, -1, 0) / 255).astype(np.float32)
    channels = [
        np.asarray(
            Image.fromarray(image[..., channel].astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        )
        for channel in range(3)
    ]
    return np.asarray(np.clip(np.stack(channels) / 255, 0, 1), np.float32)


def _read_text(path: Path, *, fingerprint: str) -> tuple[Vocabulary, dict[str, Floats]]:
    """The vocabulary of a file of text embeddings, and the vector of each word."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            vectors, about = np.asarray(arrays["vectors"], np.float32), json.loads(str(arrays["about"]))
            words = [str(word) for word in arrays["words"]]
        made, text = about["text_encoder"]["fingerprint"], about["vocabulary"]
    except FileNotFoundError:
        raise PatchwordError(f"{path} does not exist; give a file of text embeddings") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise PatchwordError(f"{path} is not a file of text embeddings, or is damaged: {first_line(error)}") from None
    if made != fingerprint:
        raise PatchwordError(f"{path} was made by another text encoder than the one of the model")
    return Vocabulary.recorded(text, source=str(path)), {
        key_of(word): vector for word, vector in zip(words, vectors, strict=True)
    }
