"""What transformers' image-text models share: one way through the image tower that parts at the last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.models.pixels import resize
from patchword.models.protocols import ModelRecord, check_images
from patchword.models.registry import Filter
from patchword.models.text_embeddings import count_tokens, encode_in_batches


class DualEncoder(ABC):
    """`ImageTextEncoder` around a transformers model whose text side is in float32 and whose image side is in any type.

    Args:
        model: in evaluation mode on its device.
        tokenizer: its tokenizer.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
    """

    text_dtype = torch.float32

    def __init__(self, model: Any, *, tokenizer: Any, record: ModelRecord, resample: Filter) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.record = record
        self.device = torch.device(model.device)
        self.dtype: torch.dtype = model.vision_model.dtype
        self.resample: Filter = resample

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts, cut at the text context's length, to (n, d)."""
        empty = torch.zeros(0, self.record.dim, device=self.device)
        return encode_in_batches(prompts, encode=self._encode_batch, empty=empty)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images as wholes, each squashed to the model's square input, to (b, d)."""
        check_images(images)
        size = (self.record.input_size, self.record.input_size)
        return self._image_vectors(
            self.image_tokens(resize(images.float().to(self.device), size=size, mode=self.resample))
        )

    @torch.no_grad()
    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode every patch, without resizing, to (b, d, h, w); position embeddings are interpolated to the grid."""
        patch = self.record.patch_size
        check_images(images, multiple_of=patch)
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return self._patch_vectors(self.image_tokens(images.float().to(self.device)), grid=grid)

    @torch.no_grad()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_images` and `encode_patches` give, by one way through the layers that they share."""
        side, patch = self.record.input_size, self.record.patch_size
        if images.shape[-2:] != (side, side) or side % patch:
            return self.encode_images(images), self.encode_patches(images)
        check_images(images)
        tokens = self.image_tokens(images.float().to(self.device).clamp(0, 1))
        return self._image_vectors(tokens), self._patch_vectors(tokens, grid=(side // patch, side // patch))

    @property
    def context_length(self) -> int:
        """The most tokens of a prompt, its start and end among them, that the text tower takes."""
        return int(self.model.config.text_config.max_position_embeddings)

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, uncut and without padding."""
        return count_tokens(prompts, tokenizer=self.tokenizer, prepare=self._lowered)

    @abstractmethod
    def image_tokens(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [0, 1], sides multiples of the patch, to the tokens from which both results come."""

    @abstractmethod
    def _image_vectors(self, tokens: Tensor) -> Tensor:
        """Tokens of `image_tokens` to (b, d), unit length."""

    @abstractmethod
    def _patch_vectors(self, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Tokens of `image_tokens` to (b, d, h, w), unit length."""

    @abstractmethod
    def _encode_batch(self, prompts: list[str]) -> Tensor:
        """Prompts to (n, d), any length."""

    @abstractmethod
    def _lowered(self, prompt: str) -> str:
        """The prompt in the case that the tokenizer expects."""
