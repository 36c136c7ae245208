"""DINOv2 (with and without registers) and DINOv3: images to patch features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchword.models.common import side, to_map
from patchword.models.pixels import normalise
from patchword.models.protocols import ModelRecord, check_images


class DinoEncoder:
    """`PatchEncoder` around `Dinov2Model`, `Dinov2WithRegistersModel` or `DINOv3ViTModel`.

    Args:
        model: one of them, in evaluation mode on its device.
        record: what is known of the checkpoint.
    """

    def __init__(self, model: Any, *, record: ModelRecord) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self._prefix = 1 + int(getattr(model.config, "num_register_tokens", 0))  # class token, then registers

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to the patch tokens of the last layer, after the final layer norm.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.

        Raises:
            PatchwordError: when the shape or the type is another.
        """
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        hidden = self.model(pixels.to(self.model.dtype)).last_hidden_state  # (b, 1 + registers + n, D)
        return to_map(hidden[:, self._prefix :], grid=grid)


def dino_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of a patch feature and input size, from the config of any of the three models."""
    patch = side(config.patch_size, what="patch_size")
    return patch, int(config.hidden_size), side(config.image_size, what="image_size")
