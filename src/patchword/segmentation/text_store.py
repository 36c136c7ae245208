"""Text vectors on disk, so that a vocabulary is encoded once and not once a process.

An entry is named by the content that it depends on: the text tower's weights and tokenizer, the type and the kind of
device that it computes in, the vocabulary with its words, templates and background words, and the versions of the
software that encodes. Nothing else can give other vectors, so no entry is out of date. A damaged one is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.data.folders import cache_folder, write_bytes
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.common import compute_type
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import TextVectors
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

        Args:
            encoder: the text tower.
            vocabulary: what is encoded.
            make: encodes it.

        Returns:
            its vectors on the encoder's device. A store that cannot be read or written is as if it were empty.
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
