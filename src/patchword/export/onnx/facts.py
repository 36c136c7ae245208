"""What an ONNX file says of itself: one JSON text in its metadata, under the key "patchword"."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchword.alignment.artifact import ModuleShape, Tower
from patchword.config.base import one_line
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, first_line

KEY = "patchword"
FORMAT: Literal["patchword-onnx"] = "patchword-onnx"
VERSION: Literal[1] = 1
IMAGES, VECTORS, CLASS_OF, SIZE = "images", "vectors", "class_of", "size"
CLASSES, CONFIDENCE, SCORES, PATCHES = "classes", "confidence", "scores", "patches"
INPUTS, OUTPUTS = (IMAGES, VECTORS, CLASS_OF, SIZE), (CLASSES, CONFIDENCE, SCORES, PATCHES)


@dataclass(frozen=True)
class Agreement:
    """How much an int8 file keeps of a float32 file on drawn pictures: the share of patches that keep their class, in
    [0, 1], and the least cosine of a patch vector.
    """

    share: float
    cosine: float


class OnnxFacts(BaseModel):
    """Everything that whoever runs the file may want to know.

    Attributes:
        encoder, text_encoder: the frozen models, with fingerprints and licences; the text encoder is not in the file.
        patch_size: sides of images are multiples of it, in pixels.
        image_size: images are seen with as many pixels as a square of that side, in pixels.
        temperature: of the softmax that the confidence is taken from.
        vocabulary: of the training, in the text format; any other will do.
        data_fingerprint: of what the module learned from.
        largest_difference: from torch, of any channel of a unit patch vector, as found when the file was made; of the
            float32 model also where the file is int8.
        int8_agreement, int8_cosine: see `Agreement`; None in float32 files, and in int8 files of earlier versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["patchword-onnx"] = FORMAT
    version: Literal[1] = VERSION
    opset: int
    precision: Literal["float32", "int8"]
    encoder: Tower
    text_encoder: Tower
    module: ModuleShape
    patch_size: int = Field(ge=1)
    image_size: int = Field(ge=1)
    temperature: float = Field(gt=0)
    vocabulary: str
    vocabulary_hash: str
    data_fingerprint: str
    largest_difference: float
    int8_agreement: float | None = None
    int8_cosine: float | None = None
    versions: dict[str, str]

    def parsed_vocabulary(self) -> Vocabulary:
        return Vocabulary.recorded(self.vocabulary, source="the model's metadata")


def parse_facts(metadata: Mapping[str, str], *, place: str) -> OnnxFacts:
    if KEY not in metadata:
        raise PatchwordError(
            f'{place} is not a patchword segmenter (it has no metadata "{KEY}"); give a file that '
            "`patchword export MODEL --format onnx` writes"
        )
    try:
        facts = OnnxFacts.model_validate_json(metadata[KEY])
    except ValidationError as error:
        raise PatchwordError(
            f"{place}: its metadata {KEY!r} cannot be read: {one_line(error, place='field')}"
        ) from None
    facts.parsed_vocabulary()
    return facts


def import_onnx_package(name: str) -> Any:
    """Import onnx, onnx_ir, onnxscript or onnxruntime."""
    package = name.split(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise PatchwordError(f'ONNX needs the package {package}, which {why}; pip install "patchword[onnx]"') from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters say to their developers off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_CPU = "CPUExecutionProvider"


def open_session(path: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> Any:
    """Load an ONNX file into onnxruntime.

    Of the execution providers, the preferred first, such as "CUDAExecutionProvider", the first must start; None is the
    CPU's. None of `threads` leaves their number to onnxruntime.
    """
    runtime = import_onnx_package("onnxruntime")
    path = Path(path)
    if not path.is_file():
        raise PatchwordError(f"{path} does not exist; give a file that `patchword export` wrote")
    there = runtime.get_available_providers()
    asked = [providers] if isinstance(providers, str) else list(providers or (_CPU,))
    for provider in asked:
        if provider not in there:
            raise PatchwordError(f"onnxruntime has no {provider} on this machine (choose from {', '.join(there)})")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are for onnxruntime's developers
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        session = runtime.InferenceSession(str(path), options, providers=asked)
    except Exception as error:  # onnxruntime has an exception type a status code
        raise PatchwordError(f"{path} cannot be loaded by onnxruntime: {first_line(error)}") from None
    if asked[0] not in session.get_providers():  # onnxruntime logs it and computes with the next
        raise PatchwordError(f"onnxruntime has {asked[0]}, but cannot start it on this machine (its log says why)")
    return session


def run_patches(session: Any, images: np.ndarray[Any, np.dtype[np.float32]], *, dim: int) -> Any:
    """Patch vectors (b, d, rows, columns) of images (b, 3, h, w) in [0, 1]; the rest runs for one pixel."""
    nothing = {
        VECTORS: np.zeros((1, dim), np.float32),
        CLASS_OF: np.zeros(1, np.int64),
        SIZE: np.ones(2, np.int64),
    }
    return session.run([PATCHES], {IMAGES: images, **nothing})[0]
