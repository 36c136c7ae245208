"""Where the weights of each family are for each role, and what goes around them; no model is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from patchword.models.clip import clip_sizes
from patchword.models.protocols import PatchEncoder
from patchword.models.registry import Kind
from patchword.models.sam import sam_sizes
from patchword.models.sam2 import sam2_sizes
from patchword.models.sam_features import Sam2Features, SamFeatures, sam2_tower_sizes, sam_tower_sizes
from patchword.models.siglip import siglip_sizes
from patchword.models.tokens import (
    TokenEncoder,
    clip_tokens,
    convnext_sizes,
    interpolated_tokens,
    plain_tokens,
    unmasked_tokens,
    vit_sizes,
    without_mask,
)


@dataclass(frozen=True)
class Weights:
    """How a checkpoint of a family is loaded for one role.

    Attributes:
        class_name: transformers class whose weights the checkpoint has.
        sizes: takes the config to (patch size, channels, input size), each in pixels or channels.
        part: attribute of the model that the role needs, such as one tower; "" for the whole. `sizes` gets its config.
        options: of `from_pretrained`, besides those of every model.
    """

    class_name: str
    sizes: Callable[[Any], tuple[int, int, int]]
    part: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


WEIGHTS: dict[tuple[str, Kind], Weights] = {
    ("clip", "image-text"): Weights("CLIPModel", clip_sizes),
    ("clip", "patch"): Weights("CLIPModel", vit_sizes, part="vision_model"),
    ("siglip", "image-text"): Weights("SiglipModel", siglip_sizes),
    ("siglip", "patch"): Weights("SiglipModel", vit_sizes, part="vision_model"),
    ("dinov2", "patch"): Weights("Dinov2Model", vit_sizes),
    ("dinov2-with-registers", "patch"): Weights("Dinov2WithRegistersModel", vit_sizes),
    ("dinov3", "patch"): Weights("DINOv3ViTModel", vit_sizes),
    ("dinov3-convnext", "patch"): Weights("DINOv3ConvNextModel", convnext_sizes),
    ("mae", "patch"): Weights("ViTMAEModel", vit_sizes),
    ("vit", "patch"): Weights("ViTModel", vit_sizes, options={"add_pooling_layer": False}),
    ("sam", "mask"): Weights("SamModel", sam_sizes),
    ("sam", "patch"): Weights("SamModel", sam_tower_sizes, part="vision_encoder"),
    ("sam2", "mask"): Weights("Sam2Model", sam2_sizes),
    ("sam2", "patch"): Weights("Sam2Model", sam2_tower_sizes, part="vision_encoder"),
}


def build_patch_encoder(family: str, model: Any, *, record: Any) -> PatchEncoder:
    """Put the adapter of a family around its loaded image encoder."""
    return _PATCH_ENCODERS[family](model, record=record)


def _unmasked(model: Any, *, record: Any) -> PatchEncoder:
    return TokenEncoder(without_mask(model), record=record, tokens=unmasked_tokens)


_PATCH_ENCODERS: dict[str, Callable[..., PatchEncoder]] = {
    "clip": partial(TokenEncoder, tokens=clip_tokens),
    "siglip": partial(TokenEncoder, tokens=interpolated_tokens),
    "dinov2": partial(TokenEncoder, tokens=plain_tokens),
    "dinov2-with-registers": partial(TokenEncoder, tokens=plain_tokens),
    "dinov3": partial(TokenEncoder, tokens=plain_tokens),
    "dinov3-convnext": partial(TokenEncoder, tokens=plain_tokens),
    "mae": _unmasked,
    "vit": partial(TokenEncoder, tokens=interpolated_tokens),
    "sam": SamFeatures,
    "sam2": Sam2Features,
}
