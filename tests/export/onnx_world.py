"""Segmenters of tiny random models, trained on nothing, for the tests of ONNX files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.artifact import (
    Artifact,
    ArtifactConfig,
    ModuleShape,
    StepRecord,
    Tower,
    TrainingFacts,
    write_artifact,
)
from patchword.alignment.module import AlignmentModule
from patchword.config.align import AlignSettings, ModuleKind
from patchword.data.vocabulary import Vocabulary
from patchword.models.loading import load_image_text, load_patch_encoder

LAST_STEP = StepRecord(
    step=1, learning_rate=1e-4, temperature=0.07, total=1.0, patch_patch=0.5, text_anchor=0.25, patch_anchor=0.25
)
CLASSES = "cat\ndog; puppy\nsofa; couch; settee\n@background: sky; grass\n"


def make_segmenter(
    folder: Path, *, encoder: Path | str, text: Path, kind: ModuleKind = "block", size: int = 40
) -> Path:
    """A segmenter's folder with a module of random weights, large enough that patches differ."""
    loaded = load_patch_encoder(str(encoder), device="cpu", dtype="float32")
    vision = loaded.record
    words = load_image_text(str(text), device="cpu", dtype="float32").record
    shape = ModuleShape(kind=kind, dim=vision.dim, text_dim=words.dim, head_size=16, mlp_ratio=2.0)
    module = shape.build().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
    _spread(module, loaded(torch.rand(1, 3, 6 * vision.patch_size, 6 * vision.patch_size, generator=generator)))
    vocabulary = Vocabulary.parse(CLASSES)
    config = ArtifactConfig(
        encoder=Tower.of(vision),
        text_encoder=Tower.of(words),
        module=shape,
        image_size=size,
        temperature=0.07,
        vocabulary=vocabulary.to_text(),
        vocabulary_hash=vocabulary.hash,
        settings=AlignSettings(),
        training=TrainingFacts(
            data_fingerprint="0" * 64,
            images=1,
            images_without_labels=0,
            images_skipped=0,
            labelled_share=1.0,
            classes_without_patches=(),
            steps=1,
            last=LAST_STEP,
        ),
    )
    folder.mkdir(parents=True)
    write_artifact(folder, artifact=Artifact(module, config), card="")
    return folder


@torch.no_grad()
def _spread(module: AlignmentModule, patches: Tensor) -> None:
    """Move what all patches have in common out of their vectors, so that they do not all take the same class."""
    kept: list[Tensor] = []
    hook = module.projection.register_forward_hook(lambda *passed: kept.append(passed[2]))
    module(patches)
    hook.remove()
    module.projection.bias -= kept[0].mean(dim=(0, 1))
