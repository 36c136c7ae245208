"""SAM: points to masks, on an input padded to a square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.models.common import side
from patchword.models.decode import PromptDecoder
from patchword.models.pixels import (
    Filter,
    MaskFrame,
    crop_logits,
    longest_side_size,
    normalise,
    pad_bottom_right,
    resize,
)
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord, check_each


class SamMaskGenerator:
    """`MaskGenerator` around a transformers `SamModel`.

    Only the image encoder runs in another dtype than float32: in bfloat16 point coordinates are off by up to two pixels
    of a 1024-pixel input, and prompt encoder and mask decoder cost next to nothing.

    Args:
        model: a `SamModel` in evaluation mode on its device, in float32.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
        encoder_dtype: dtype of the image encoder.
    """

    def __init__(
        self,
        model: Any,
        *,
        record: ModelRecord,
        resample: Filter = "bilinear",
        encoder_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.resample: Filter = resample
        self.encoder_dtype = encoder_dtype
        self._decoder = PromptDecoder(self._decode)
        model.vision_encoder.to(encoder_dtype)

    @torch.no_grad()
    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        """Run the image encoder once on all images: longer side to the input size, padded below and to the right.

        Args:
            images: each (1, 3, h, w), RGB in [0, 1], of any size.

        Returns:
            for each image one feature level (1, c, h', w') float32.
        """
        check_each(images)
        if not images:
            return ()
        target = self.record.input_size
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        inputs = [longest_side_size(size, target=target) for size in sizes]
        pixels = torch.cat([self._input(image, size=size) for image, size in zip(images, inputs, strict=True)])
        features = self.model.vision_encoder(pixels).last_hidden_state.float()  # (b, c, h', w')
        return tuple(
            ImageEmbedding((one,), size, seen) for one, size, seen in zip(features.split(1), sizes, inputs, strict=True)
        )

    @torch.no_grad()
    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        """Decode the prompts of several images in one call, k foreground points a prompt, several masks a prompt.

        Args:
            embeddings: one an image.
            points: for each image (n, k, 2) as x, y in pixels of the image as given, within the image.

        Returns:
            for each image n x m proposals over the part of the input that the image covers.
        """
        decoded = self._decoder(embeddings, points, device=self.device)
        return tuple(
            MaskProposals(
                self._valid(logits, embedding),
                scores,
                embedding.image_size,
                padded=logits,
                frame=MaskFrame(self.record.input_size, embedding.input_size),
            )
            for embedding, (logits, scores) in zip(embeddings, decoded, strict=True)
        )

    def _input(self, image: Tensor, *, size: tuple[int, int]) -> Tensor:
        """An image (1, 3, h, w) at the given size, normalised and padded to the square input."""
        resized = resize(image.float().to(self.device), size=size, mode=self.resample)
        pixels = normalise(resized, mean=self.record.mean, std=self.record.std)
        return pad_bottom_right(pixels, size=(self.record.input_size,) * 2).to(self.encoder_dtype)

    def _decode(self, levels: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(image_embeddings=levels[0], input_points=points, multimask_output=True)
        return output.pred_masks, output.iou_scores

    def _valid(self, logits: Tensor, embedding: ImageEmbedding) -> Tensor:
        """The part of logits (n, m, h', w') that the image covers."""
        cells, target = logits.shape[-1], self.record.input_size
        return crop_logits(
            logits, valid=(embedding.input_size[0] * cells / target, embedding.input_size[1] * cells / target)
        )


def sam_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `SamConfig`."""
    vision = config.vision_config
    patch = side(vision.patch_size, what="patch_size")
    return patch, int(vision.output_channels), side(vision.image_size, what="image_size")
