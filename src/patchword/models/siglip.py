"""SigLIP and SigLIP 2 (fixed resolution): images and words in one space, patches brought there by the pooling head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.checkpoint import Adapter, Loaded, load_tokenizer, side_of
from patchword.models.pixels import interpolate_positions, normalise, resize, to_map, unit
from patchword.models.protocols import ModelRecord, check_images
from patchword.models.registry import Filter
from patchword.models.text_embeddings import count_tokens, encode_in_batches


class SiglipEncoder:
    """`ImageTextEncoder` around a transformers `SiglipModel`.

    Args:
        model: a `SiglipModel` in evaluation mode on its device, its text side in float32, its image side in any type.
        tokenizer: its tokenizer.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
    """

    text_dtype = torch.float32

    def __init__(self, model: Any, *, tokenizer: Any, record: ModelRecord, resample: Filter = "bilinear") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.vision_model.dtype
        self.resample: Filter = resample

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts, in lower case and padded on the right to the context's length, as in training."""
        empty = torch.zeros(0, self.record.dim, device=self.device)
        return encode_in_batches(prompts, encode=self._encode_batch, empty=empty)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images by the attention-pooling head, each squashed to the model's square input."""
        check_images(images)
        size = (self.record.input_size, self.record.input_size)
        hidden = self._tokens(resize(images.float().to(self.device), size=size, mode=self.resample))
        return unit(self.model.vision_model.head(hidden))

    @torch.no_grad()
    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode every patch, without resizing; position embeddings are interpolated (bicubic) to the grid.

        SigLIP has no class token and no projection: its text space is what the attention-pooling head puts out. Each
        patch token, after the final layer norm, takes the head's own path with the attention replaced by identity:
        u = out_proj(v_proj(x)), then u + mlp(layernorm(u)), as if the head attended to that patch alone. No source:
        this is patchword's own, after the idea of MaskCLIP.
        """
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        hidden = self._tokens(images.float().to(self.device))
        return to_map(unit(head_value_path(self.model.vision_model.head, hidden)), grid=grid)

    @torch.no_grad()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_images` and `encode_patches` give; the two part only at the pooling head."""
        side, patch = self.record.input_size, self.record.patch_size
        if images.shape[-2:] != (side, side) or side % patch:
            return self.encode_images(images), self.encode_patches(images)
        check_images(images)
        head = self.model.vision_model.head
        hidden = self._tokens(images.float().to(self.device).clamp(0, 1))
        patches = to_map(unit(head_value_path(head, hidden)), grid=(side // patch, side // patch))
        return unit(head(hidden)), patches

    @property
    def context_length(self) -> int:
        """The most tokens of a prompt that the text tower takes."""
        return int(self.model.config.text_config.max_position_embeddings)

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, uncut and without padding."""
        return count_tokens(prompts, tokenizer=self.tokenizer, prepare=str.lower)

    def _encode_batch(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            [prompt.lower() for prompt in prompts],
            padding="max_length",
            padding_side="right",  # the text tower pools the last position, padding or not
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        # without attention mask: the text tower was trained to see its padding
        features: Tensor = self.model.get_text_features(input_ids=tokens["input_ids"].to(self.device)).pooler_output
        return features

    def _tokens(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [0, 1] to patch tokens (b, n, c) after the final layer norm."""
        tower = self.model.vision_model
        pixels = normalise(images, mean=self.record.mean, std=self.record.std).to(self.dtype)
        patches = tower.embeddings.patch_embedding(pixels)  # (b, c, h, w)
        positions = tower.embeddings.position_embedding.weight
        around = interpolate_positions(positions, grid=(patches.shape[-2], patches.shape[-1]))
        hidden = patches.flatten(2).transpose(1, 2) + around  # (b, h * w, c)
        hidden = tower.encoder(inputs_embeds=hidden).last_hidden_state
        normed: Tensor = tower.post_layernorm(hidden)
        return normed


def head_value_path(head: Any, tokens: Tensor) -> Tensor:
    """SigLIP's attention-pooling head with its attention replaced by identity.

    Args:
        head: the `SiglipMultiheadAttentionPoolingHead`.
        tokens: (b, n, c) patch tokens after the final layer norm.

    Returns:
        (b, n, c); for an image of one patch this is what the head itself gives.
    """
    attention = head.attention
    width = tokens.shape[-1]
    values = torch.nn.functional.linear(
        tokens, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
    )
    values = attention.out_proj(values)
    out: Tensor = values + head.mlp(head.layernorm(values))
    return out


def siglip_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the text space and input size, from a `SiglipConfig`."""
    vision, text = config.vision_config, config.text_config
    if not vision.vision_use_head:
        raise PatchwordError("vision_use_head is false in the checkpoint's config; use a SigLIP with a pooling head")
    patch = side_of(vision.patch_size, what="patch_size")
    return patch, int(text.projection_size or text.hidden_size), side_of(vision.image_size, what="image_size")


def _build(loaded: Loaded) -> SiglipEncoder:
    loaded.model.vision_model.to(loaded.dtype)  # the text tower stays in float32
    tokenizer = load_tokenizer(loaded.folder, vocabulary=loaded.model.config.text_config.vocab_size)
    resample = loaded.preprocessing.resample
    return SiglipEncoder(loaded.model, tokenizer=tokenizer, record=loaded.record, resample=resample)


ADAPTERS = {("siglip", "image-text"): Adapter("SiglipModel", siglip_sizes, _build)}
