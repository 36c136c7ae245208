"""The image encoders of SAM and SAM 2 as patch encoders, at any size and without the square that prompts need."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from patchword.models.common import interpolate_positions, side
from patchword.models.pixels import normalise, pad_bottom_right
from patchword.models.protocols import ModelRecord, check_images


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
    patch = side(config.patch_size, what="patch_size")
    return patch, int(config.output_channels), side(config.image_size, what="image_size")


def sam2_tower_sizes(config: Any) -> tuple[int, int, int]:
    """Side of a cell of the coarsest pyramid level, its channels and input size, from a `Sam2VisionConfig`."""
    backbone = config.backbone_config
    stages = len(backbone.embed_dim_per_stage)
    left_out = stages - config.num_feature_levels  # the coarsest stages only add to the level below them
    stride = backbone.patch_stride[0] * backbone.query_stride[0] ** (stages - 1 - left_out)
    return stride, int(config.fpn_hidden_size), side(backbone.image_size, what="image_size")
