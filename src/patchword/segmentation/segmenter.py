"""The segmenter: a frozen vision encoder, the trained alignment module and a frozen text tower."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from patchword.alignment.artifact import (
    MARKER,
    Artifact,
    ArtifactConfig,
    Tower,
    model_card,
    read_artifact,
    write_artifact,
)
from patchword.alignment.module import AlignmentModule
from patchword.data.folders import prepare_output
from patchword.errors import PatchwordError
from patchword.export.publish import find_artifact, push_folder
from patchword.models.loading import choose_device, load_image_text, load_patch_encoder
from patchword.models.pixels import compute_type
from patchword.models.protocols import ImageTextEncoder, MaskGenerator, ModelRecord, PatchEncoder
from patchword.precision import choose_dtype
from patchword.segmentation.dense import DenseSegmenter


class _Model(Protocol):
    @property
    def record(self) -> ModelRecord: ...


M = TypeVar("M", bound=_Model)


class Segmenter(DenseSegmenter):
    """Segments any image by any class names, also names that were never trained.

    Args:
        encoder: the frozen vision encoder, the one of the training. The module computes in the encoder's type; what
            comes after (cosines, upsampling, softmax) always in float32.
        module: the trained alignment module; moved to the encoder's device.
        text: the image-text model whose text tower is used, the one of the training.
        config: what is known of the training.
        mask_generator: what snaps edges where the setting `refine` is "sam".
    """

    def __init__(
        self,
        *,
        encoder: PatchEncoder,
        module: AlignmentModule,
        text: ImageTextEncoder,
        config: ArtifactConfig,
        mask_generator: MaskGenerator | None = None,
    ) -> None:
        _check_parts(encoder, module, text, config, place="the alignment module")
        self.encoder = encoder
        self.module = module.to(encoder.device).eval()
        self.config = config
        trained = config.parsed_vocabulary()
        super().__init__(
            text,
            encode=self._encode,
            patch_size=encoder.record.patch_size,
            image_size=config.image_size,
            temperature=config.temperature,
            device=encoder.device,
            templates=trained.templates,
            trained=trained,
            mask_generator=mask_generator,
            facts={
                "kind": "aligned",
                "encoder": config.encoder.identity(),
                "text_encoder": config.text_encoder.identity(),
            },
        )

    def describe(self) -> dict[str, Any]:
        """The frozen models, the training data and the numbers that a segmentation depends on."""
        return {**self._facts, **self._numbers(self.encoder, data_fingerprint=self.config.training.data_fingerprint)}

    def save_pretrained(
        self, folder: str | Path, *, scores: Mapping[str, float] | None = None, overwrite: bool = False
    ) -> Path:
        """Write `model.safetensors` (the module only), `config.json` and `README.md`.

        Args:
            folder: must be new or empty unless `overwrite` is set.
            scores: measurements for the model card, by name.
            overwrite: empty the folder first, if it holds a model.

        Returns:
            The folder.
        """
        path = prepare_output(folder, overwrite=overwrite, marker=MARKER)
        config = self.config.model_copy(update={"scores": dict(scores)}) if scores is not None else self.config
        write_artifact(path, artifact=Artifact(self.module, config), card=model_card(config))
        return path

    def push_to_hub(
        self,
        name: str,
        *,
        scores: Mapping[str, float] | None = None,
        private: bool = False,
        revision: str | None = None,
        message: str = "Segmenter made by patchword",
    ) -> str:
        """Upload what `save_pretrained` writes; who you are is what `hf auth login` has stored.

        Args:
            name: "user/name" of the repository on the hub, made when it is not there.
            scores: measurements for the model card, by name.
            private: whether a repository that is made is private.
            revision: branch to upload to; None for the main branch.
            message: of the commit.

        Returns:
            the address of the commit.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / MARKER, scores=scores)
            return push_folder(folder, name=name, private=private, revision=revision, message=message)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        encoder: str | Path | PatchEncoder | None = None,
        text_encoder: str | Path | ImageTextEncoder | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Self:
        """Load what `save_pretrained` or `patchword align` wrote, or `push_to_hub` uploaded.

        Args:
            folder: of the model, or its hub name, `name@revision` for a branch, tag or commit.
            encoder: the vision encoder, loaded, or where it is now; None looks where it was in training.
            text_encoder: likewise for the image-text model.
            device: "auto" or a torch device; of frozen models that are loaded here.
            dtype: "auto", "float32", "bfloat16" or "float16"; likewise.
        """
        artifact = read_artifact(find_artifact(folder))
        config = artifact.config
        vision = load_tower(
            encoder, config.encoder, load_patch_encoder, option="encoder", place=folder, device=device, dtype=dtype
        )
        text = load_tower(
            text_encoder,
            config.text_encoder,
            load_image_text,
            option="text_encoder",
            place=folder,
            device=device,
            dtype=dtype,
        )
        _check_parts(vision, artifact.module, text, config, place=str(folder))
        return cls(encoder=vision, module=artifact.module, text=text, config=config)

    def _encode(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) to aligned unit patch vectors (b, d, h/patch, w/patch)."""
        features = self.encoder(images).float()
        kind = compute_type(self.encoder)
        with torch.autocast(features.device.type, kind, enabled=kind != torch.float32):
            aligned: Tensor = self.module(features)  # unit length is computed in the type of the features, float32
        return aligned


def load_tower(
    given: str | Path | M | None,
    tower: Tower,
    load: Callable[..., M],
    *,
    option: str,
    place: str | Path,
    device: str,
    dtype: str,
) -> M:
    """A frozen model: the one given, or loaded from the name given, or from where it was in training."""
    if given is not None and not isinstance(given, str | Path):
        return given
    if given is not None:
        return load(str(given), device=device, dtype=dtype)
    trained = tower.trained_name()
    choose_dtype(dtype, device=choose_device(device))  # a wrong one has nothing to do with where the tower is
    try:
        return load(trained.name, revision=trained.revision, device=device, dtype=dtype)
    except PatchwordError as error:
        raise tower.missing(error, option=option, place=place) from error


def _check_parts(
    encoder: PatchEncoder, module: AlignmentModule, text: ImageTextEncoder, config: ArtifactConfig, *, place: str
) -> None:
    config.encoder.check(encoder.record, role="vision encoder", place=place)
    config.text_encoder.check(text.record, role="text encoder", place=place)
    if (module.dim, module.text_dim) != (encoder.record.dim, text.record.dim):
        raise PatchwordError(
            f"{place} maps {module.dim} to {module.text_dim} channels; {encoder.record.name} and "
            f"{text.record.name} need {encoder.record.dim} to {text.record.dim}"
        )
