"""SigLIP and SigLIP 2 (fixed resolution): images and words in one space, patches brought there by the pooling head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.checkpoint import Adapter, Loaded, load_tokenizer, side_of
from patchword.models.image_text import DualEncoder
from patchword.models.pixels import interpolate_positions, normalise, to_map, unit


class SiglipEncoder(DualEncoder):
    """`ImageTextEncoder` around a transformers `SiglipModel`; the arguments are those of `DualEncoder`."""

    def _image_vectors(self, tokens: Tensor) -> Tensor:
        return unit(self.model.vision_model.head(tokens))

    def _patch_vectors(self, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
        return to_map(unit(head_value_path(self.model.vision_model.head, tokens)), grid=grid)

    def _lowered(self, prompt: str) -> str:
        return prompt.lower()

    def _encode_batch(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            [self._lowered(prompt) for prompt in prompts],
            padding="max_length",
            padding_side="right",  # the text tower pools the last position, padding or not
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        # without attention mask: the text tower was trained to see its padding
        features: Tensor = self.model.get_text_features(input_ids=tokens["input_ids"].to(self.device)).pooler_output
        return features

    def image_tokens(self, images: Tensor) -> Tensor:
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
    """Patch tokens into the text space.

    SigLIP has no class token and no projection: its text space is what the attention-pooling head puts out. Each
    patch token, after the final layer norm, takes the head's own path with the attention replaced by identity:
    u = out_proj(v_proj(x)), then u + mlp(layernorm(u)), as if the head attended to that patch alone. No source: this
    is patchword's own, after the idea of MaskCLIP.

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
