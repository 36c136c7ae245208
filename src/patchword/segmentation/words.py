"""The classes that a caller names, as text vectors that patches are compared with."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.segment import SegmentSettings, SoftmaxOver
from patchword.data.colours import with_one_more
from patchword.data.folders import cache_folder, write_bytes
from patchword.data.vocabulary import BACKGROUND_NAME, Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.errors import PatchwordError, warn
from patchword.models.pixels import compute_type
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import BACKGROUND, StoredText, TextVectors, check_words, encode_vocabulary
from patchword.segmentation.pixels import PostprocessConfig
from patchword.versions import versions

_log = logging.getLogger(__name__)

_FORMAT = "patchword-text-cache-2"  # 2: prompts are cleaned
_ENCODES = ("patchword", "torch", "transformers", "open_clip_torch", "ftfy")
_MOST_BYTES = 2**28  # kept on disk, what was used last; a matter of disk only


class TextStore:
    """A folder of text vectors. Several processes may use it at the same time.

    Args:
        folder: made with the first entry; None keeps nothing.
        most_bytes: entries beyond this go, those first that were used least recently.
    """

    def __init__(self, folder: Path | None, *, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    @classmethod
    def from_environment(cls) -> TextStore:
        """The store in patchword's cache folder (see `cache_folder`); none keeps nothing."""
        folder = cache_folder()
        return cls(None if folder is None else folder / "text")

    def read(
        self, encoder: ImageTextEncoder, vocabulary: Vocabulary, *, make: Callable[[], TextVectors]
    ) -> TextVectors:
        """The vectors of a vocabulary: those that are kept, or else new ones, which then are.

        A store that cannot be read or written is as if it were empty.
        """
        if self._folder is None or not encoder.record.fingerprint:
            return make()
        identity = text_identity(encoder, vocabulary)
        path = self._folder / f"{hashlib.sha256(_canonical(identity).encode()).hexdigest()[:32]}.safetensors"
        kept = _load(path, identity=identity, device=encoder.device)
        if kept is not None:
            with suppress(OSError):
                os.utime(path)  # used now
            return kept
        made = make()
        try:
            write_bytes(path, _packed(made, identity=identity))
            self._make_room(path)
        except (PatchwordError, OSError) as error:
            _log.info("text vectors are not kept: %s", error)
        return made

    def _make_room(self, newest: Path) -> None:
        entries = []
        for path in newest.parent.glob("*.safetensors"):
            with suppress(OSError):  # another process may have removed it
                status = path.stat()
                entries.append((path != newest, -status.st_mtime, status.st_size, path))
        held = 0
        for is_older, _, size, path in sorted(entries):
            held += size
            if is_older and held > self._most_bytes:
                path.unlink(missing_ok=True)


def text_identity(encoder: ImageTextEncoder, vocabulary: Vocabulary) -> dict[str, Any]:
    """All that text vectors depend on."""
    tokenizer = getattr(encoder, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # OpenCLIP wraps those of transformers
    tokenizer = getattr(tokenizer, "backend_tokenizer", None)
    software = versions()
    return {
        "format": _FORMAT,
        "encoder": encoder.record.fingerprint,
        "family": encoder.record.family,
        "tokenizer": "" if tokenizer is None else hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "computed_in": str(getattr(encoder, "text_dtype", compute_type(encoder))),
        "device": encoder.device.type,
        "vocabulary": vocabulary.hash,
        "versions": {name: software.get(name, "") for name in _ENCODES},
    }


def _packed(vectors: TextVectors, *, identity: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    tensors = {"words": vectors.words.float().cpu().contiguous(), "classes": vectors.classes.cpu().contiguous()}
    about = {"identity": identity, "count": vectors.count, "check": _check(tensors)}
    return save(tensors, metadata={"about": _canonical(about)})  # one entry: several have no certain order


def _load(path: Path, *, identity: dict[str, Any], device: torch.device) -> TextVectors | None:
    """The vectors in a file; None where it is not there, or not what it should be."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in ("words", "classes")}
        if about["identity"] != identity or about["check"] != _check(tensors):
            raise ValueError("its content is not what it says")
        return TextVectors(tensors["words"].to(device), tensors["classes"].to(device), about["count"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("text vectors in %s are damaged and made again: %s", path, error)
        return None


def _check(tensors: dict[str, Tensor]) -> int:
    """A checksum of what the tensors hold."""
    total = 0
    for name in ("words", "classes"):
        total = zlib.crc32(tensors[name].numpy().tobytes(), total)
    return total


def _canonical(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True, separators=(",", ":"))


Classes = str | Path | Sequence[str] | Vocabulary

_KEPT = 16  # vocabularies whose vectors are kept; a matter of memory only


@dataclass(frozen=True)
class ClassWords:
    """The words of n classes and their colours (n, 3); background words, where given, make one more class, the last,
    named "background"."""

    names: tuple[str, ...]
    vectors: TextVectors
    colours: NDArray[np.uint8]

    def scores(self, patches: Tensor, *, over: SoftmaxOver = "classes") -> Tensor:
        """Compare patches with the classes: the highest cosine over a class's words, or the cosine of every word.

        Args:
            patches: (..., d, h, w) unit length.
            over: what there is a map of.

        Returns:
            (..., n, h, w) float32, or (..., words, h, w).
        """
        words = self.vectors.words.to(device=patches.device, dtype=torch.float32)
        with torch.autocast(patches.device.type, enabled=False):
            flat: Tensor = words @ patches.float().flatten(-2)  # (..., words, h * w)
        similarity = flat.reshape(*flat.shape[:-1], *patches.shape[-2:])  # (..., words, h, w)
        if over == "words":
            return similarity
        scores = self.vectors.class_scores(similarity, dim=-3)
        behind = self.vectors.classes == BACKGROUND
        if not behind.any():
            return scores
        background = similarity[..., behind.to(patches.device), :, :].amax(dim=-3, keepdim=True)  # (..., 1, h, w)
        return torch.cat([scores, background], dim=-3)

    def class_of(self, over: SoftmaxOver = "classes") -> NDArray[np.int64]:
        """The position in `names` that each map of `scores` speaks for, (n,) or (words,) int64."""
        if over == "classes":
            return np.arange(len(self.names))
        classes = self.vectors.classes.cpu().numpy()
        return np.where(classes == BACKGROUND, len(self.names) - 1, classes)

    def decision(self, settings: SegmentSettings, *, temperature: float) -> tuple[ClassWords, PostprocessConfig]:
        """The rule that settings mean for these classes.

        Pixels below the background threshold become the class named "background": the one of the class list, the one
        that background words make, or, where there is neither, one that is added at the end.

        Args:
            settings: thresholds, temperature and what the softmax is over.
            temperature: where the settings have none.
        """
        rule = PostprocessConfig(
            class_of=self.class_of(settings.softmax_over),
            count=len(self.names),
            temperature=settings.temperature or temperature,
            threshold=settings.threshold,
        )
        if not settings.background_threshold:
            return self, rule
        classes = self
        if BACKGROUND_NAME not in self.names:
            classes = replace(self, names=(*self.names, BACKGROUND_NAME), colours=with_one_more(self.colours))
        return classes, replace(
            rule,
            count=len(classes.names),
            background_threshold=settings.background_threshold,
            background=classes.names.index(BACKGROUND_NAME),
        )


def mask_names(vocabulary: Vocabulary, *, settings: SegmentSettings) -> tuple[str, ...]:
    """Names of a label map's values, as `ClassWords.decision` has them, without any model."""
    has_background = bool(vocabulary.background or settings.background_threshold)
    if has_background and BACKGROUND_NAME not in vocabulary.names:
        return (*vocabulary.names, BACKGROUND_NAME)
    return vocabulary.names


def check_background(vocabulary: Vocabulary, *, settings: SegmentSettings, level: int = 2) -> str:
    """What to say where every pixel gets one of the classes; of a single class it is a warning.

    Args:
        vocabulary: that is asked for.
        settings: of the segmentation.
        level: as of `warn`.

    Returns:
        a remark for a person; empty where there is a background, and where the warning says it.
    """
    has_background = BACKGROUND_NAME in mask_names(vocabulary, settings=settings)
    if has_background or settings.threshold:
        return ""
    if len(vocabulary) > 1:
        return "every pixel gets one of them; background words or background_threshold make a background"
    warn(
        f"every pixel becomes {vocabulary.names[0]!r}: there is one class, and no background; give background words "
        '(--background "sky, wall"; background=) or a threshold (--set background_threshold=0.3)',
        level=level + 1,
    )
    return ""


class WordEncoder:
    """Turns class names into vectors, once for each list of classes, and kept on disk for other processes.

    Several threads may call it at the same time.

    Args:
        encoder: the text tower.
        trained: the classes that are meant where none are named; None where there are none.
        templates: prompt templates of classes that come without templates of their own.
        store: where vectors are kept across processes; None for the one that the environment names.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        store: TextStore | None = None,
        trained: Vocabulary | None = None,
    ) -> None:
        self._encoder = encoder
        self.trained = encoder.vocabulary if isinstance(encoder, StoredText) else trained
        # Vectors from a file are read already, and could be others than those of the same words in another file.
        usual = TextStore(None) if isinstance(encoder, StoredText) else TextStore.from_environment()
        self._store = usual if store is None else store
        self._templates = tuple(templates)
        self._known: OrderedDict[str, ClassWords] = OrderedDict()
        self._lock = Lock()

    def __call__(self, classes: Classes | None, *, background: Sequence[str] | None = None) -> ClassWords:
        """Encode classes.

        Args:
            classes: anything that `Vocabulary.of` takes; None for those of the training.
            background: background words; None takes those of the vocabulary, an empty list none.
        """
        vocabulary = self.vocabulary_of(classes, background=background)
        with self._lock:
            words = self._known.get(vocabulary.hash)
        if words is None:
            words = self._encode(vocabulary)
        with self._lock:
            self._known[vocabulary.hash] = words
            self._known.move_to_end(vocabulary.hash)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return words

    def vocabulary_of(self, classes: Classes | None, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `classes` and `background` mean here."""
        if classes is None:
            classes = self.trained
            if classes is None:
                raise PatchwordError("classes are needed: this segmenter was trained on none; name some")
        vocabulary = Vocabulary.of(classes, background=background or ())
        if background is not None and not background and vocabulary.background:
            vocabulary = replace(vocabulary, background=())
        usual = vocabulary.templates == DEFAULT_TEMPLATES != self._templates
        if usual and not isinstance(classes, Vocabulary):
            vocabulary = replace(vocabulary, templates=self._templates)
        if vocabulary.background and BACKGROUND_NAME in vocabulary.names:
            raise PatchwordError(
                f"there is a class {BACKGROUND_NAME!r} and there are background words; use only one of the two"
            )
        return vocabulary

    def _encode(self, vocabulary: Vocabulary) -> ClassWords:
        make = partial(encode_vocabulary, self._encoder, vocabulary=vocabulary, background=True)
        vectors = self._store.read(self._encoder, vocabulary, make=make)
        check_words(vectors, encoder=self._encoder, vocabulary=vocabulary)
        if not vocabulary.background:
            return ClassWords(vocabulary.names, vectors, vocabulary.colours)
        return ClassWords((*vocabulary.names, BACKGROUND_NAME), vectors, with_one_more(vocabulary.colours))
