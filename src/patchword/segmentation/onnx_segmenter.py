"""A segmenter whose image side is an ONNX file; words come from a text tower or from a small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.export.onnx.facts import INPUTS, OUTPUTS, open_session, parse_facts, run_patches
from patchword.models.loading import load_image_text
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import StoredText
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.segmenter import load_tower


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
        text_encoder: the image-text model, loaded, or where it is now; or a file of text embeddings (.npz), whose words
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
    session = open_session(path, threads=torch.get_num_threads(), providers=providers)
    facts = parse_facts(session.get_modelmeta().custom_metadata_map, place=str(path))
    lost = sorted({*INPUTS, *OUTPUTS} - {value.name for value in (*session.get_inputs(), *session.get_outputs())})
    if lost:
        raise PatchwordError(f"{path} has no {', '.join(lost)}; it must be a file that `patchword export` wrote")

    def encode(images: Tensor) -> Tensor:
        vectors = run_patches(session, images.float().cpu().numpy(), dim=facts.module.text_dim)
        return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))

    try:
        text = load_tower(
            text_encoder,
            facts.text_encoder,
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
            f"{error} (a file of text embeddings will do: `patchword export --format text-embeddings`)"
        ) from None
    facts.text_encoder.check(text.record, role="text encoder", place=str(path))
    trained = text.vocabulary if isinstance(text, StoredText) else facts.parsed_vocabulary()
    return DenseSegmenter(
        text,
        encode=encode,
        patch_size=facts.patch_size,
        image_size=facts.image_size,
        temperature=facts.temperature,
        device=torch.device("cpu"),
        templates=trained.templates,
        trained=trained,
        facts={
            "kind": "onnx",
            "encoder": facts.encoder.identity(),
            "data_fingerprint": facts.data_fingerprint,
            "precision": facts.precision,
            "opset": facts.opset,
        },
    )
