"""The alignment module: frozen patch features in, vectors in the text space out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchword.errors import PatchwordError


class AlignmentModule(nn.Module):
    """One pre-norm transformer block over the patches of an image, then a linear map to the text space.

    The text is not an input, so the label set stays open (docs/method.md, stage 2 [paper]).
    Self-attention has heads of a fixed size: features whose channels are no multiple of it are projected to the next
    multiple inside the attention only.

    Args:
        dim: channels D of the encoder's patch features.
        text_dim: channels d of the text space.
        head_size: channels of an attention head [chosen].
        mlp_ratio: width of the MLP in multiples of `dim` [chosen].
        seed: of the initial weights; the global random state is neither used nor changed.

    About 7.5 M parameters at D = 768, d = 512.
    """

    def __init__(self, *, dim: int, text_dim: int, head_size: int = 64, mlp_ratio: float = 4.0, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        self.text_dim = text_dim
        self.heads = math.ceil(dim / head_size)
        inner = self.heads * head_size
        hidden = max(1, round(dim * mlp_ratio))
        with torch.random.fork_rng(devices=[]):  # the layers' own initialisation draws from the global state
            self.attention_norm = nn.LayerNorm(dim)
            self.attention_input = nn.Linear(dim, 3 * inner)
            self.attention_output = nn.Linear(inner, dim)
            self.mlp_norm = nn.LayerNorm(dim)
            self.mlp_input = nn.Linear(dim, hidden)
            self.mlp_output = nn.Linear(hidden, dim)
            self.final_norm = nn.LayerNorm(dim)
            self.projection = nn.Linear(dim, text_dim)
        self._initialise(seed)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patch features (b, D, h, w) to unit vectors (b, d, h, w) in the text space.

        Raises:
            PatchwordError: when the features do not have D channels.
        """
        if patches.ndim != 4 or patches.shape[1] != self.dim:
            raise PatchwordError(
                f"patch features have shape {tuple(patches.shape)}; allowed is (batch, {self.dim}, height, width)"
            )
        batch, _, height, width = patches.shape
        tokens = patches.flatten(2).transpose(1, 2)  # (b, h * w, D)
        tokens = tokens + self._attend(self.attention_norm(tokens))
        tokens = tokens + self.mlp_output(functional.gelu(self.mlp_input(self.mlp_norm(tokens))))
        # Unit length is computed in the type of the features, whatever type autocast chose for the rest.
        aligned = functional.normalize(self.projection(self.final_norm(tokens)).to(patches.dtype), dim=-1)
        return aligned.transpose(1, 2).reshape(batch, self.text_dim, height, width)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Self-attention among the tokens (b, n, D) of each image."""
        joined = self.attention_input(tokens).unflatten(-1, (3, self.heads, -1))  # (b, n, 3, heads, head size)
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # each (b, heads, n, head size)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.attention_output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _initialise(self, seed: int) -> None:
        """Draw the weights as vision transformers do: truncated normal of 0.02, biases zero."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
                nn.init.zeros_(layer.bias)
