"""SAM 2 and SAM 2.1: points to masks, on an input squashed to a square, without the memory that videos need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchword.models.common import side
from patchword.models.decode import check_prompts, decode_in_chunks
from patchword.models.pixels import Filter, map_points, normalise, resize
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord, check_images


class Sam2Proposer:
    """`MaskProposer` around a transformers `Sam2Model`.

    Predicted object scores are left aside: they say whether a prompted object is still in a video's frame. As in
    `SamProposer`, only the image encoder runs in another dtype than float32.

    Args:
        model: a `Sam2Model` in evaluation mode on its device, in float32.
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
        """Run the image encoder once, each image squashed to the square input that the model was trained on.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], all of one size.

        Returns:
            feature levels float32, coarse to fine: the one that prompts attend to, then the two that sharpen masks.

        Raises:
            PatchwordError: when the shape or the type is another.
        """
        check_images(images)
        size = (self.record.input_size, self.record.input_size)
        resized = resize(images.float().to(self.device), size=size, mode=self.resample)
        pixels = normalise(resized, mean=self.record.mean, std=self.record.std).to(self.encoder_dtype)
        levels = self.model.vision_encoder(pixels).fpn_hidden_states  # fine to coarse
        decoder = self.model.mask_decoder
        fine, middle, coarse = (level.float() for level in levels)
        coarse = coarse + self.model.no_memory_embedding.view(1, -1, 1, 1)
        features = (coarse, decoder.conv_s1(middle), decoder.conv_s0(fine))
        return ImageEmbedding(features, (images.shape[-2], images.shape[-1]), size)

    @torch.no_grad()
    def masks_at(self, embedding: ImageEmbedding, points: Tensor) -> MaskProposals:
        """Decode n prompts of k foreground points each, several masks a prompt.

        Args:
            embedding: of one image.
            points: (n, k, 2) as x, y in pixels of the image as given, within the image.

        Returns:
            n x m proposals; low-resolution logits cover the whole squashed image.

        Raises:
            PatchwordError: when the shapes are others or a point is outside the image.
        """
        check_prompts(embedding, points)
        mapped = map_points(
            points.float().to(self.device), image_size=embedding.image_size, input_size=embedding.input_size
        )
        features = [level.to(self.device) for level in reversed(embedding.features)]  # transformers: fine to coarse
        logits, scores = decode_in_chunks(
            mapped,
            decode=lambda part: self._decode(features, part),
            chunk=self.prompts_per_call,
            masks=self.model.config.mask_decoder_config.num_multimask_outputs,
            side=features[0].shape[-1],  # masks come at the resolution of the finest level
        )
        return MaskProposals(logits, scores, embedding.image_size)

    def _decode(self, features: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(image_embeddings=features, input_points=points[None], multimask_output=True)
        return output.pred_masks[0], output.iou_scores[0]


def sam2_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `Sam2Config`.

    The patch is the side of the input that one cell of the coarsest level covers.
    """
    prompt = config.prompt_encoder_config
    patch = side(prompt.patch_size, what="patch_size")
    return patch, int(config.vision_config.fpn_hidden_size), side(prompt.image_size, what="image_size")
