"""CLIP: images and words in one space, and patches brought there by a changed last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.common import count_tokens, encode_in_batches, interpolate_positions, side, to_map, unit
from patchword.models.dense import Dense, dense_last_layer
from patchword.models.pixels import Filter, normalise, resize
from patchword.models.protocols import ModelRecord, check_images


class ClipEncoder:
    """`ImageTextEncoder` around a transformers `CLIPModel`.

    Args:
        model: a `CLIPModel` in evaluation mode on its device, its text side in float32, its image side in any type.
        tokenizer: its tokenizer.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
        dense: variant of the last layer that `encode_patches` uses, see `patchword.models.dense`.
        spread: standard deviation in patches of NACLIP's neighbourhood, above 0.
        position_offset: how `encode_patches` resamples position embeddings where the grid is not that of the training;
            see `interpolate_positions`. 0 stretches them exactly; the published methods' own code has 0.1.
    """

    text_dtype = torch.float32

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        record: ModelRecord,
        resample: Filter = "bicubic",
        dense: Dense = "value",
        spread: float = 5.0,
        position_offset: float = 0.0,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.vision_model.dtype
        self.resample: Filter = resample
        self.dense: Dense = dense
        self.spread = spread
        self.position_offset = position_offset
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._lowers = normalizer is not None and normalizer.normalize_str("A") == "a"

    def varied(self, *, dense: Dense, position_offset: float) -> ClipEncoder:
        """The same model, its weights shared, with another path to patch features.

        Args:
            dense, position_offset: as of the class.
        """
        return ClipEncoder(
            self.model,
            tokenizer=self.tokenizer,
            record=self.record,
            resample=self.resample,
            dense=dense,
            spread=self.spread,
            position_offset=position_offset,
        )

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts, cut at the text context's length.

        Args:
            prompts: n strings.

        Returns:
            (n, d) float32, unit length.
        """
        empty = torch.zeros(0, self.record.dim, device=self.device)
        return encode_in_batches(prompts, encode=self._encode_batch, empty=empty)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images by their class token, each squashed to the square input that the model was trained on.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], any size.

        Returns:
            (b, d) float32, unit length.
        """
        check_images(images)
        size = (self.record.input_size, self.record.input_size)
        hidden = self.before_last_layer(resize(images.float().to(self.device), size=size, mode=self.resample))
        return self._class_vectors(hidden)

    @torch.no_grad()
    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode every patch, without resizing; position embeddings are interpolated (bicubic) to the grid.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, d, h/patch, w/patch) float32, unit length along d.
        """
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return self._patch_vectors(self.before_last_layer(images.float().to(self.device)), grid=grid)

    @torch.no_grad()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_images` and `encode_patches` give; the two part only at the last layer.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch; of another size than the model's input
                they take two passes.

        Returns:
            (b, d) and (b, d, h/patch, w/patch) float32, unit length along d.
        """
        side, patch = self.record.input_size, self.record.patch_size
        if images.shape[-2:] != (side, side) or side % patch:
            return self.encode_images(images), self.encode_patches(images)
        check_images(images)
        hidden = self.before_last_layer(images.float().to(self.device).clamp(0, 1))
        return self._class_vectors(hidden), self._patch_vectors(hidden, grid=(side // patch, side // patch))

    @property
    def context_length(self) -> int:
        """The most tokens of a prompt, its start and end among them, that the text tower takes."""
        return int(self.model.config.text_config.max_position_embeddings)

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, uncut."""
        return count_tokens(prompts, tokenizer=self.tokenizer, prepare=self._lowered)

    def _lowered(self, prompt: str) -> str:
        """In Python's lower case, as OpenAI's tokenizer has it: the fast tokenizer's has no final sigma."""
        return prompt.lower() if self._lowers else prompt

    def _encode_batch(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            list(map(self._lowered, prompts)),
            padding=True,
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        output = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
        )
        features: Tensor = output.pooler_output
        return features

    def before_last_layer(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [0, 1], sides multiples of the patch, to the input (b, 1 + n, c) of the last layer."""
        tower = self.model.vision_model
        pixels = normalise(images, mean=self.record.mean, std=self.record.std).to(self.dtype)
        patches = tower.embeddings.patch_embedding(pixels)  # (b, c, h, w)
        positions = tower.embeddings.position_embedding.weight
        grid = (patches.shape[-2], patches.shape[-1])
        around = interpolate_positions(positions[1:], grid=grid, offset=self.position_offset)
        tokens = patches.flatten(2).transpose(1, 2) + around  # (b, h * w, c)
        first = (tower.embeddings.class_embedding + positions[0]).expand(len(images), 1, -1)
        hidden: Tensor = tower.pre_layrnorm(torch.cat([first, tokens], dim=1))  # (b, 1 + h * w, c)
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        return hidden

    def _class_vectors(self, hidden: Tensor) -> Tensor:
        """Input (b, 1 + n, c) of the last layer to (b, d), by the class token."""
        hidden = self.model.vision_model.encoder.layers[-1](hidden, None)
        return unit(self.to_text_space(hidden[:, 0]))

    def _patch_vectors(self, hidden: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Input (b, 1 + h * w, c) of the last layer to (b, d, h, w), by the changed layer."""
        last = self.model.vision_model.encoder.layers[-1]
        hidden = dense_last_layer(last, hidden, dense=self.dense, grid=grid, spread=self.spread)
        return to_map(unit(self.to_text_space(hidden[:, 1:])), grid=grid)

    def to_text_space(self, tokens: Tensor) -> Tensor:
        """Tokens (..., c) that the last layer put out to (..., d): final layer norm and projection, no unit length."""
        projected: Tensor = self.model.visual_projection(self.model.vision_model.post_layernorm(tokens))
        return projected


def check_pooled_token(tokenizer: Any, *, pooled: int, where: str) -> None:
    """Refuse a tokenizer whose end token is not the one that CLIP's text tower takes the prompt's vector from.

    With 2, as the oldest configs have it, the tower takes the highest token number of the prompt instead.

    Args:
        tokenizer: the checkpoint's.
        pooled: `eos_token_id` of the text tower's config.
        where: name of the checkpoint, for the message.
    """
    expected = len(tokenizer) - 1 if pooled == 2 else pooled
    if tokenizer.eos_token_id != expected:
        ends = f"prompts end in token {tokenizer.eos_token_id} and the text tower looks for token {expected}"
        raise PatchwordError(f"{where}: {ends}; the tokenizer and config.json must agree")


def clip_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the text space and input size, from a `CLIPConfig`."""
    vision = config.vision_config
    patch = side(vision.patch_size, what="patch_size")
    return patch, int(config.projection_dim), side(vision.image_size, what="image_size")
