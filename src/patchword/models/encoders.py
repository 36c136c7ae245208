"""Patch encoders of transformers: vision transformers, and the image towers of CLIP, SigLIP, SAM and SAM 2."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from patchword.models.checkpoint import Adapter, Loaded, side_of
from patchword.models.pixels import antialiasing_on, interpolate_positions, normalise, pad_bottom_right, to_map
from patchword.models.protocols import ModelRecord, check_images

Tokens = Callable[[Any, Tensor], Tensor]


class TokenEncoder:
    """`PatchEncoder` around a model that turns pixels into tokens.

    Args:
        model: in evaluation mode on its device.
        record: what is known of the checkpoint.
        tokens: takes the model and normalised pixels (b, 3, h, w) to tokens (b, any + n, D), the n patches last and in
            reading order.
    """

    def __init__(self, model: Any, *, record: ModelRecord, tokens: Tokens) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.dtype
        self._tokens = tokens

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to their patch tokens.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.
        """
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        with antialiasing_on(self.device):
            tokens = self._tokens(self.model, pixels.to(self.model.dtype))
        return to_map(tokens[:, -grid[0] * grid[1] :], grid=grid)


def plain_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Of a model that takes any size by itself: DINOv2 (interpolates), DINOv3 (rotary positions, or convolutions)."""
    hidden: Tensor = model(pixels).last_hidden_state
    return hidden


def interpolated_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Of a model that must be told to interpolate its position embeddings: ViT, SigLIP's image tower."""
    hidden: Tensor = model(pixels, interpolate_pos_encoding=True).last_hidden_state
    return hidden


def as_dino(encoder: TokenEncoder) -> TokenEncoder:
    """A ViT as DINO's own code computes it: offset 0.1 in its positions, 1e-6 in its layer norms; weights shared.

    Source: Caron et al., arXiv 2104.14294, and their published code.
    """
    shared = {id(tensor): tensor for tensor in (*encoder.model.parameters(), *encoder.model.buffers())}
    model = copy.deepcopy(encoder.model, shared)
    for part in model.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-6
    positions, patch = model.embeddings.position_embeddings[0], encoder.record.patch_size  # (1 + n, D)

    def interpolate(tokens: Tensor, height: int, width: int) -> Tensor:
        grid = (height // patch, width // patch)
        return torch.cat([positions[:1], interpolate_positions(positions[1:], grid=grid, offset=0.1)])[None]

    model.embeddings.interpolate_pos_encoding = interpolate
    return TokenEncoder(model, record=encoder.record, tokens=interpolated_tokens)


def clip_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Of CLIP's image tower, which itself gives only its class token to its final layer norm."""
    hidden: Tensor = model.post_layernorm(interpolated_tokens(model, pixels))
    return hidden


def unmasked_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Of MAE's encoder with every patch kept and none moved.

    Its masking orders the patches by noise and keeps the first; with `mask_ratio` 0 it keeps all,
    and noise that rises from patch to patch leaves them in their order.
    """
    patch = model.config.patch_size
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    noise = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(pixels.shape[0], count)
    hidden: Tensor = model(pixels, noise=noise, interpolate_pos_encoding=True).last_hidden_state
    return hidden


def vit_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of a patch feature and input size, from the config of a vision transformer."""
    patch = side_of(config.patch_size, what="patch_size")
    return patch, int(config.hidden_size), side_of(config.image_size, what="image_size")


def convnext_sizes(config: Any) -> tuple[int, int, int]:
    """The same of DINOv3's ConvNeXt: the stem strides by 4, every further stage by 2."""
    stride = 4 * 2 ** (len(config.hidden_sizes) - 1)
    return stride, int(config.hidden_sizes[-1]), side_of(config.image_size, what="image_size")


class SamFeatures:
    """`PatchEncoder` around a transformers `SamVisionEncoder`: the map that SAM's prompts attend to.

    An image is seen at its own size, not padded to the square of 1,024 pixels: absolute and relative positions
    are interpolated to its grid, windows that it does not fill are padded as the model pads them. At the square itself
    the features are those of SAM.

    Args:
        model: a `SamVisionEncoder` in evaluation mode on its device.
        record: what is known of the checkpoint.
    """

    def __init__(self, model: Any, *, record: ModelRecord) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.dtype

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to the output of the neck: last layer, two convolutions, each with a layer norm.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.
        """
        check_images(images, multiple_of=self.record.patch_size)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        hidden = self.model.patch_embed.projection(pixels.to(self.model.dtype)).permute(0, 2, 3, 1)  # (b, h, w, c)
        if self.model.pos_embed is not None:
            grid = (hidden.shape[1], hidden.shape[2])
            positions = interpolate_positions(self.model.pos_embed[0].flatten(0, 1), grid=grid)  # (h * w, c)
            hidden = hidden + positions.reshape(*grid, -1)
        for layer in self.model.layers:
            hidden = layer(hidden)
        features: Tensor = self.model.neck(hidden)  # (b, D, h, w)
        return features.float()


class Sam2Features:
    """`PatchEncoder` around a transformers `Sam2VisionModel`: the level of its feature pyramid that prompts attend to.

    An image is seen at its own size, padded below and to the right with zeros (after normalisation) to whole windows of
    the first stage and whole cells of the last; of the map, the part that the image covers is kept.

    Args:
        model: a `Sam2VisionModel` in evaluation mode on its device.
        record: what is known of the checkpoint.
    """

    def __init__(self, model: Any, *, record: ModelRecord) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.dtype
        self._whole = whole_cell(model.config.backbone_config)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to the coarsest level of the pyramid, a sum of two stages, with no layer norm after it.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.
        """
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        height, width = images.shape[-2:]
        padded = tuple(math.ceil(length / self._whole) * self._whole for length in (height, width))
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        pixels = pad_bottom_right(pixels, size=(padded[0], padded[1])).to(self.model.dtype)
        levels = self.model(pixels).fpn_hidden_states  # fine to coarse
        features: Tensor = levels[-1][..., : height // patch, : width // patch]
        return features.float()


def whole_cell(config: Any) -> int:
    """Side in pixels of the squares that an image must be made of, from a `Sam2HieraDetConfig`.

    Positions repeat from window to window of the first stage, so it must have whole windows; each later stage halves
    the grid, so the last must have whole cells.
    """
    stride = config.patch_stride[0]
    window = stride * config.window_size_per_stage[0]
    cell = stride * config.query_stride[0] ** config.num_query_pool_stages
    return math.lcm(window, cell)


def sam_tower_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the neck and input size, from a `SamVisionConfig`."""
    patch = side_of(config.patch_size, what="patch_size")
    return patch, int(config.output_channels), side_of(config.image_size, what="image_size")


def sam2_tower_sizes(config: Any) -> tuple[int, int, int]:
    """Side of a cell of the coarsest pyramid level, its channels and input size, from a `Sam2VisionConfig`."""
    backbone = config.backbone_config
    stages = len(backbone.embed_dim_per_stage)
    left_out = stages - config.num_feature_levels  # the coarsest stages only add to the level below them
    stride = backbone.patch_stride[0] * backbone.query_stride[0] ** (stages - 1 - left_out)
    return stride, int(config.fpn_hidden_size), side_of(backbone.image_size, what="image_size")


def _adapter(
    class_name: str, tokens: Tokens, *, sizes: Callable[[Any], tuple[int, int, int]] = vit_sizes, **more: Any
) -> Adapter:
    def build(loaded: Loaded) -> TokenEncoder:
        return TokenEncoder(loaded.model, record=loaded.record, tokens=tokens)

    return Adapter(class_name, sizes, build, **more)


def _unmasked(loaded: Loaded) -> TokenEncoder:
    loaded.model.config.mask_ratio = 0.0
    return TokenEncoder(loaded.model, record=loaded.record, tokens=unmasked_tokens)


ADAPTERS = {
    ("clip", "patch"): _adapter("CLIPModel", clip_tokens, part="vision_model"),
    ("siglip", "patch"): _adapter("SiglipModel", interpolated_tokens, part="vision_model"),
    ("dinov2", "patch"): _adapter("Dinov2Model", plain_tokens),
    ("dinov2-with-registers", "patch"): _adapter("Dinov2WithRegistersModel", plain_tokens),
    ("dinov3", "patch"): _adapter("DINOv3ViTModel", plain_tokens),
    ("dinov3-convnext", "patch"): _adapter("DINOv3ConvNextModel", plain_tokens, sizes=convnext_sizes),
    ("mae", "patch"): Adapter("ViTMAEModel", vit_sizes, _unmasked),
    ("vit", "patch"): _adapter("ViTModel", interpolated_tokens, options={"add_pooling_layer": False}),
    ("sam", "patch"): Adapter(
        "SamModel",
        sam_tower_sizes,
        lambda loaded: SamFeatures(loaded.model, record=loaded.record),
        part="vision_encoder",
    ),
    ("sam2", "patch"): Adapter(
        "Sam2Model",
        sam2_tower_sizes,
        lambda loaded: Sam2Features(loaded.model, record=loaded.record),
        part="vision_encoder",
    ),
}
