"""SAM: points to masks, on an input padded to a square."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchword.models.common import side
from patchword.models.decode import check_prompts, decode_in_chunks
from patchword.models.pixels import (
    Filter,
    crop_logits,
    longest_side_size,
    map_points,
    normalise,
    pad_bottom_right,
    resize,
)
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord, check_images

UPSCALE = 4  # SamMaskDecoder has two stride-2 transposed convolutions, in every checkpoint


class SamProposer:
    """`MaskProposer` around a transformers `SamModel`.

    Only the image encoder runs in another dtype than float32: in bfloat16 point coordinates are off by up to two pixels
    of a 1024-pixel input, and prompt encoder and mask decoder cost next to nothing.

    Args:
        model: a `SamModel` in evaluation mode on its device, in float32.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
        encoder_dtype: dtype of the image encoder.
        prompts_per_call: prompts decoded at once; more need more memory, with the same result.
    """

    def __init__(
        self,
        model: Any,
        *,
        record: ModelRecord,
        resample: Filter = "bilinear",
        encoder_dtype: torch.dtype = torch.float32,
        prompts_per_call: int = 64,
    ) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.resample: Filter = resample
        self.encoder_dtype = encoder_dtype
        self.prompts_per_call = prompts_per_call
        model.vision_encoder.to(encoder_dtype)

    @torch.no_grad()
    def embed(self, images: Tensor) -> ImageEmbedding:
        """Run the image encoder once: longer side to the input size, padded below and to the right.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], all of one size.

        Returns:
            one feature level (b, c, h', w') float32.

        Raises:
            PatchwordError: when the shape or the type is another.
        """
        check_images(images)
        image_size = (images.shape[-2], images.shape[-1])
        target = self.record.input_size
        input_size = longest_side_size(image_size, target=target)
        resized = resize(images.float().to(self.device), size=input_size, mode=self.resample)
        pixels = normalise(resized, mean=self.record.mean, std=self.record.std)
        pixels = pad_bottom_right(pixels, size=(target, target)).to(self.encoder_dtype)
        features = self.model.vision_encoder(pixels).last_hidden_state.float()
        return ImageEmbedding((features,), image_size, input_size)

    @torch.no_grad()
    def masks_at(self, embedding: ImageEmbedding, points: Tensor) -> MaskProposals:
        """Decode n prompts of k foreground points each, several masks a prompt.

        Args:
            embedding: of one image.
            points: (n, k, 2) as x, y in pixels of the image as given, within the image.

        Returns:
            n x m proposals over the part of the input that the image covers.

        Raises:
            PatchwordError: when the shapes are others or a point is outside the image.
        """
        check_prompts(embedding, points)
        mapped = map_points(
            points.float().to(self.device), image_size=embedding.image_size, input_size=embedding.input_size
        )
        features = embedding.features[0].to(self.device)
        logits, scores = decode_in_chunks(
            mapped,
            decode=lambda part: self._decode(features, part),
            chunk=self.prompts_per_call,
            masks=self.model.config.mask_decoder_config.num_multimask_outputs,
            side=UPSCALE * features.shape[-1],
        )
        cells, target = logits.shape[-1], self.record.input_size
        valid = (embedding.input_size[0] * cells / target, embedding.input_size[1] * cells / target)
        return MaskProposals(crop_logits(logits, valid=valid), scores, embedding.image_size)

    def _decode(self, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(image_embeddings=features, input_points=points[None], multimask_output=True)
        return output.pred_masks[0], output.iou_scores[0]


def sam_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `SamConfig`."""
    vision = config.vision_config
    patch = side(vision.patch_size, what="patch_size")
    return patch, int(vision.output_channels), side(vision.image_size, what="image_size")
