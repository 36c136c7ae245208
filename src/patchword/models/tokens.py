"""Patch encoders whose features are the last tokens of a transformers model's last layer, after its final layer norm.

What comes before the patch tokens (class token, registers, a pooled token) is dropped, whatever it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from patchword.models.common import interpolate_positions, side, to_map
from patchword.models.pixels import antialiasing_on, normalise
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

    Its masking orders the patches by noise and keeps the first; with `mask_ratio` 0 (see `without_mask`) it keeps all,
    and noise that rises from patch to patch leaves them in their order.
    """
    patch = model.config.patch_size
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    noise = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(pixels.shape[0], count)
    hidden: Tensor = model(pixels, noise=noise, interpolate_pos_encoding=True).last_hidden_state
    return hidden


def without_mask(model: Any) -> Any:
    """Set a freshly loaded `ViTMAEModel` to mask nothing."""
    model.config.mask_ratio = 0.0
    return model


def vit_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of a patch feature and input size, from the config of a vision transformer."""
    patch = side(config.patch_size, what="patch_size")
    return patch, int(config.hidden_size), side(config.image_size, what="image_size")


def convnext_sizes(config: Any) -> tuple[int, int, int]:
    """The same of DINOv3's ConvNeXt: the stem strides by 4, every further stage by 2."""
    stride = 4 * 2 ** (len(config.hidden_sizes) - 1)
    return stride, int(config.hidden_sizes[-1]), side(config.image_size, what="image_size")
