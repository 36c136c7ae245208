"""SAM 2 and SAM 2.1: points to masks, on an input squashed to a square, without the memory that videos need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.models.common import side
from patchword.models.decode import PromptDecoder
from patchword.models.pixels import Filter, normalise, resize
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord, check_each


class Sam2MaskGenerator:
    """`MaskGenerator` around a transformers `Sam2Model`.

    Predicted object scores are left aside: they say whether a prompted object is still in a video's frame. As in
    `SamMaskGenerator`, only the image encoder runs in another dtype than float32.

    Args:
        model: a `Sam2Model` in evaluation mode on its device, in float32.
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
        """Run the image encoder once on all images, each squashed to the square input that the model was trained on.

        Args:
            images: each (1, 3, h, w), RGB in [0, 1], of any size.

        Returns:
            for each image feature levels (1, c, h', w') float32, coarse to fine: the one that prompts attend to, then
            the two that sharpen masks.
        """
        check_each(images)
        if not images:
            return ()
        size = (self.record.input_size, self.record.input_size)
        resized = [resize(image.float().to(self.device), size=size, mode=self.resample) for image in images]
        pixels = normalise(torch.cat(resized), mean=self.record.mean, std=self.record.std).to(self.encoder_dtype)
        levels = self.model.vision_encoder(pixels).fpn_hidden_states  # fine to coarse
        decoder = self.model.mask_decoder
        fine, middle, coarse = (level.float() for level in levels)
        coarse = coarse + self.model.no_memory_embedding.view(1, -1, 1, 1)
        features = (coarse, decoder.conv_s1(middle), decoder.conv_s0(fine))
        return tuple(
            ImageEmbedding(tuple(level[row : row + 1] for level in features), (image.shape[-2], image.shape[-1]), size)
            for row, image in enumerate(images)
        )

    @torch.no_grad()
    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        """Decode the prompts of several images in one call, k foreground points a prompt, several masks a prompt.

        Args:
            embeddings: one an image.
            points: for each image (n, k, 2) as x, y in pixels of the image as given, within the image.

        Returns:
            for each image n x m proposals; low-resolution logits cover the whole squashed image.
        """
        decoded = self._decoder(embeddings, points, device=self.device)
        return tuple(
            MaskProposals(logits, scores, embedding.image_size)
            for embedding, (logits, scores) in zip(embeddings, decoded, strict=True)
        )

    def _decode(self, levels: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(image_embeddings=levels[::-1], input_points=points, multimask_output=True)
        return output.pred_masks, output.iou_scores  # transformers takes levels from fine to coarse


def sam2_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `Sam2Config`.

    The patch is the side of the input that one cell of the coarsest level covers.
    """
    prompt = config.prompt_encoder_config
    patch = side(prompt.patch_size, what="patch_size")
    return patch, int(config.vision_config.fpn_hidden_size), side(prompt.image_size, what="image_size")
