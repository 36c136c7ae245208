"""A segmenter whose image side is an ONNX file; words come from a text tower or from a small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.export.onnx.facts import INPUTS, OUTPUTS, OnnxFacts, open_session, parse_facts, run_patches
from patchword.models import load_image_text
from patchword.models.protocols import ImageTextEncoder
from patchword.models.stored_text import StoredText
from patchword.segmentation.baseline import DenseSegmenter
from patchword.segmentation.segmenter import load_tower


class OnnxFeatures:
    """`DenseFeatures` of an ONNX file: images to aligned unit patch vectors, returned on the CPU.

    Args:
        path: of a file that `export_onnx` wrote.
        threads: that onnxruntime may use; None for as many as torch.
        providers: onnxruntime's execution providers in order of preference; None for the CPU's.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        self._session = open_session(path, threads=threads or torch.get_num_threads(), providers=providers)
        self.facts: OnnxFacts = parse_facts(self._session.get_modelmeta().custom_metadata_map, place=str(path))
        names = {value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())}
        lost = sorted({*INPUTS, *OUTPUTS} - names)
        if lost:
            raise PatchwordError(f"{path} has no {', '.join(lost)}; it must be a file that `patchword export` wrote")
        self.patch_size = self.facts.patch_size
        self.image_size = self.facts.image_size

    def __call__(self, images: Tensor) -> Tensor:
        """As of `DenseFeatures`."""
        vectors = run_patches(self._session, images.float().cpu().numpy(), dim=self.facts.module.text_dim)
        return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))

    def describe(self) -> dict[str, Any]:
        """The models and numbers that the vectors depend on."""
        return {
            "kind": "onnx",
            "encoder": self.facts.encoder.identity(),
            "data_fingerprint": self.facts.data_fingerprint,
            "precision": self.facts.precision,
            "opset": self.facts.opset,
        }


def load_onnx_segmenter(
    path: str | Path,
    *,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    device: str = "auto",
    dtype: str = "auto",
    providers: Sequence[str] | None = None,
) -> DenseSegmenter:
    """Load an ONNX file and the text side that belongs to it; it segments as `Segmenter` does, with all settings.

    Args:
        path: of a file that `export_onnx` wrote.
        text_encoder: the image-text model, loaded, or where it is now; or a file of text vectors (.npz), whose words
            are then the only ones; None looks where the image-text model was in training.
        device: "auto" or "cpu", where images are prepared and pixels decided.
        dtype: "auto" or "float32"; the file has a precision of its own.
        providers: onnxruntime's execution providers in order of preference, such as "CUDAExecutionProvider"; None for
            the CPU's.
    """
    if device not in ("auto", "cpu"):
        raise PatchwordError(f"device is {device!r}; the ONNX file {path} runs on the CPU (choose from auto, cpu)")
    if dtype not in ("auto", "float32"):
        raise PatchwordError(f"dtype is {dtype!r}; the ONNX file {path} takes float32 (choose from auto, float32)")
    features = OnnxFeatures(path, providers=providers)
    try:
        text = load_tower(
            text_encoder,
            features.facts.text_encoder,
            load_image_text,
            option="text_encoder",
            place=path,
            device="cpu",
            dtype="float32",
        )
    except PatchwordError as error:
        if text_encoder is not None:
            raise
        raise PatchwordError(
            f"{error} (a file of text vectors will do: `patchword export --format text-vectors`)"
        ) from None
    features.facts.text_encoder.check(text.record, role="text encoder", place=str(path))
    trained = text.vocabulary if isinstance(text, StoredText) else features.facts.parsed_vocabulary()
    return DenseSegmenter(
        text,
        features=features,
        temperature=features.facts.temperature,
        templates=trained.templates,
        trained=trained,
    )
