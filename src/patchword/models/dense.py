"""The last layer of CLIP's image tower, changed so that patch tokens keep to their own place.

CLIP learns only its class token; in the last layer every patch attends to the same few places and forgets where it is.
Each variant below replaces that layer for the patch tokens and leaves all layers before it as they are. With x the
layer's input, y = layer_norm1(x), and q, k, v the layer's projections of y split in heads of size e:

| variant | attention | residual and MLP | source |
|---|---|---|---|
| value | identity | none | patchword's own reading of MaskCLIP |
| maskclip | identity | both kept | MaskCLIP (Zhou et al., arXiv 2112.01071) |
| sclip | softmax(q q^T / sqrt e) + softmax(k k^T / sqrt e) | both kept | SCLIP (Wang et al., arXiv 2312.01597) |
| clearclip | softmax(q q^T / sqrt e) | none | ClearCLIP (Lan et al., arXiv 2407.12442) |
| naclip | softmax(k k^T / sqrt e + neighbourhood) | none | NACLIP (Hajimiri et al., arXiv 2404.08181) |
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from patchword.errors import PatchwordError

Dense = Literal["value", "maskclip", "sclip", "clearclip", "naclip"]


def check_dense(dense: str) -> Dense:
    """Refuse a name that is no dense variant."""
    for variant in get_args(Dense):
        if dense == variant:
            return dense  # type: ignore[return-value]
    raise PatchwordError(f"dense {dense!r} is unknown (choose from {', '.join(get_args(Dense))})")


def dense_last_layer(layer: Any, hidden: Tensor, *, dense: Dense, grid: tuple[int, int], spread: float) -> Tensor:
    """Apply the last layer of CLIP's image tower in one of the dense variants.

    Args:
        layer: the `CLIPEncoderLayer`.
        hidden: (b, 1 + h * w, c) its input, class token first.
        dense: variant.
        grid: (h, w) in patches.
        spread: standard deviation of NACLIP's neighbourhood in patches, above 0; the others do not use it.

    Returns:
        (b, 1 + h * w, c), before the final layer norm and the projection to the text space.
    """
    if dense == "value":
        return value_path(layer, hidden)
    if dense == "maskclip":
        return maskclip(layer, hidden)
    if dense == "sclip":
        return sclip(layer, hidden)
    if dense == "clearclip":
        return clearclip(layer, hidden)
    return naclip(layer, hidden, grid=grid, spread=spread)


def value_path(layer: Any, hidden: Tensor) -> Tensor:
    """out_proj(v_proj(layer_norm1(x))): attention replaced by identity, no residual, no MLP, no scale.

    Every token keeps its own value. Final layer norm and projection follow in the caller. MaskCLIP's equation is for
    CLIP's ResNet, whose pooling has neither residual nor MLP; this carries it over to the last layer's attention alone,
    as ClearCLIP found the residual and the MLP to be noise. `maskclip` is what MaskCLIP's own code does with a vision
    transformer.
    """
    normed = layer.layer_norm1(hidden)
    values: Tensor = layer.self_attn.out_proj(layer.self_attn.v_proj(normed))
    return values


def maskclip(layer: Any, hidden: Tensor) -> Tensor:
    """MaskCLIP as its authors' code has it for vision transformers: identity for attention, the rest of the layer kept.

    u = x + out_proj(v_proj(layer_norm1(x))), then u + mlp(layer_norm2(u)). No scale; no token sees another in this
    layer, so the class token, which is dropped afterwards, has no part in it.
    """
    hidden = hidden + value_path(layer, hidden)
    out: Tensor = hidden + layer.mlp(layer.layer_norm2(hidden))
    return out


def sclip(layer: Any, hidden: Tensor) -> Tensor:
    """SCLIP: correlative self-attention, the sum of softmax(q q^T / sqrt e) and softmax(k k^T / sqrt e), applied to v.

    The sum is not halved, residual and MLP are those of the layer, and the class token takes part as query and as key.
    """
    query, key, value = _heads(layer.self_attn, layer.layer_norm1(hidden))
    mixed = _attend(query, value) + _attend(key, value)
    hidden = hidden + _merge(layer.self_attn, mixed)
    out: Tensor = hidden + layer.mlp(layer.layer_norm2(hidden))
    return out


def clearclip(layer: Any, hidden: Tensor) -> Tensor:
    """ClearCLIP: softmax(q q^T / sqrt e) applied to v; no residual, no MLP.

    The class token takes part as query and as key.
    """
    query, _, value = _heads(layer.self_attn, layer.layer_norm1(hidden))
    return _merge(layer.self_attn, _attend(query, value))


def naclip(layer: Any, hidden: Tensor, *, grid: tuple[int, int], spread: float) -> Tensor:
    """NACLIP: softmax(k k^T / sqrt e + w) applied to v; no residual, no MLP.

    w is added to the logits after their scaling: exp(-d^2 / (2 spread^2)) for two patches d patches apart (1 for a
    patch and itself), 0 where either is the class token. NACLIP's own spread is 5 patches.
    """
    _, key, value = _heads(layer.self_attn, layer.layer_norm1(hidden))
    prior = neighbourhood(grid, spread=spread).to(key)
    return _merge(layer.self_attn, _attend(key, value, prior=prior))


def neighbourhood(grid: tuple[int, int], *, spread: float) -> Tensor:
    """NACLIP's spatial prior between all tokens of a grid.

    Args:
        grid: (h, w) in patches.
        spread: standard deviation in patches, above 0.

    Returns:
        (1 + h * w, 1 + h * w) float32, row and column 0 (the class token) zero.
    """
    rows, columns = (_gaussian(count, spread=spread) for count in grid)
    prior = torch.kron(rows, columns)  # (h * w, h * w): a Gaussian of a squared distance is a product over the axes
    return torch.nn.functional.pad(prior, (1, 0, 1, 0))


def _gaussian(count: int, *, spread: float) -> Tensor:
    places = torch.arange(count, dtype=torch.float32)
    return torch.exp(-(places[:, None] - places[None]).square() / (2 * spread**2))  # (count, count)


def _heads(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*normed.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        projection(normed).view(shape).transpose(1, 2)  # (b, heads, n, e)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value


def _attend(vectors: Tensor, value: Tensor, *, prior: Tensor | None = None) -> Tensor:
    """Attention of (b, heads, n, e) vectors among themselves, scaled by 1 / sqrt e, applied to the values."""
    return torch.nn.functional.scaled_dot_product_attention(vectors, vectors, value, attn_mask=prior)


def _merge(attention: Any, mixed: Tensor) -> Tensor:
    merged: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return merged
