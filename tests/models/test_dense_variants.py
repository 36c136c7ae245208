"""The dense variants of CLIP's last layer against naive computations, one token and one head at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.clip import dense_last_layer, neighbourhood
from patchword.models.loading import load_image_text
from patchword.models.registry import Dense

GRID = (3, 4)
SPREAD = 1.7
VARIANTS = ("value", "maskclip", "sclip", "clearclip", "naclip")


@pytest.fixture(scope="module")
def layer(tiny_clip: Path) -> Any:
    return load_image_text(str(tiny_clip), device="cpu").model.vision_model.encoder.layers[-1]


@pytest.fixture(scope="module")
def hidden() -> Tensor:
    return torch.randn(2, 1 + GRID[0] * GRID[1], 32, generator=torch.Generator().manual_seed(1))


def place(token: int) -> tuple[int, int]:
    """Row and column of a patch token; token 0 is the class token."""
    return (token - 1) // GRID[1], (token - 1) % GRID[1]


def prior(first: int, second: int) -> float:
    if first == 0 or second == 0:
        return 0.0
    (top, left), (bottom, right) = place(first), place(second)
    return math.exp(-((top - bottom) ** 2 + (left - right) ** 2) / (2 * SPREAD**2))


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def naive_attention(layer: Any, tokens: Tensor, dense: str) -> Tensor:
    """The attention part for one image (n, c), token by token."""
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    count, size = len(tokens), attention.head_dim
    mixed = torch.zeros_like(value)
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = query[:, part], key[:, part], value[:, part]
        for token in range(count):
            by_query = [float(q[token] @ q[other]) / math.sqrt(size) for other in range(count)]
            by_key = [float(k[token] @ k[other]) / math.sqrt(size) for other in range(count)]
            if dense in ("value", "maskclip"):
                weights = [float(other == token) for other in range(count)]
            elif dense == "sclip":
                weights = [a + b for a, b in zip(softmax(by_query), softmax(by_key), strict=True)]
            elif dense == "clearclip":
                weights = softmax(by_query)
            else:
                weights = softmax([logit + prior(token, other) for other, logit in enumerate(by_key)])
            mixed[token, part] = sum(weight * v[other] for other, weight in enumerate(weights))
    return attention.out_proj(mixed)


@pytest.mark.parametrize("dense", VARIANTS)
def test_variant_agrees_with_naive_computation(layer: Any, hidden: Tensor, dense: Dense) -> None:
    with torch.no_grad():
        got = dense_last_layer(layer, hidden, dense=dense, grid=GRID, spread=SPREAD)
        for image, tokens in enumerate(hidden):
            expected = naive_attention(layer, tokens, dense)
            if dense in ("maskclip", "sclip"):  # these keep residual and MLP
                expected = tokens + expected
                expected = expected + layer.mlp(layer.layer_norm2(expected))
            torch.testing.assert_close(got[image], expected, rtol=1e-4, atol=1e-5)


def test_neighbourhood_counts_distance_in_patches_and_leaves_the_class_token_out() -> None:
    got = neighbourhood(GRID, spread=SPREAD)
    expected = torch.tensor([[prior(first, second) for second in range(13)] for first in range(13)])
    torch.testing.assert_close(got, expected)


def test_variants_differ(tiny_clip: Path) -> None:
    images = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    maps = [load_image_text(str(tiny_clip), device="cpu", dense=dense).encode_patches(images) for dense in VARIANTS]
    for first in range(len(maps)):
        for second in range(first):
            assert (maps[first] - maps[second]).abs().max() > 1e-3


@pytest.mark.parametrize("dense", ["value", "maskclip"])
def test_without_attention_a_token_touches_no_other(layer: Any, hidden: Tensor, dense: Dense) -> None:
    changed = hidden.clone()
    changed[:, 5, 0] += 1
    with torch.no_grad():
        before = dense_last_layer(layer, hidden, dense=dense, grid=GRID, spread=SPREAD)
        after = dense_last_layer(layer, changed, dense=dense, grid=GRID, spread=SPREAD)
    moved = (before - after).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [5]


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(
        PatchwordError, match=r"dense 'proxyclip' is unknown \(choose from value, maskclip, sclip, clearclip, naclip"
    ):
        load_image_text("anything", dense="proxyclip")
