"""Every method against naive code: from pixels to text space, one patch, one head and one pair of patches at a time."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.clip import ClipEncoder, ProxyClip, proxy_attention
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.models.pixels import interpolate_positions
from patchword.models.protocols import ModelRecord
from patchword.segmentation.methods import METHODS
from patchword.segmentation.opening import load_method

CLIP_PATCH = 8
SIZES = [(40, 56), (32, 32), (24, 48)]  # larger than the training's 32 x 32, the same, neither
BETA, GAMMA, SPREAD, OFFSET = 1.2, 3.0, 5.0, 0.1


@pytest.fixture(scope="module")
def clip(tiny_clip: Path) -> ClipEncoder:
    loaded = load_image_text(str(tiny_clip), device="cpu")
    assert isinstance(loaded, ClipEncoder)
    return loaded


def picture(size: tuple[int, int], *, seed: int = 0, count: int = 1) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def features_of(name: str, clip: ClipEncoder, encoder: Any) -> Callable[[Tensor], Tensor]:
    segmenter = load_method(name, image_text=clip, encoder=encoder if METHODS[name].needs_encoder else None)
    return segmenter.encode_patches


# the tower up to its last layer


def naive_tokens(clip: ClipEncoder, image: Tensor, *, offset: float) -> tuple[Tensor, tuple[int, int]]:
    """One image (3, h, w) to the last layer's input (1 + n, c), and the grid."""
    tower = clip.model.vision_model
    mean, std = torch.tensor(clip.record.mean), torch.tensor(clip.record.std)
    weights = tower.embeddings.patch_embedding.weight.flatten(1)  # (c, 3 * p * p)
    rows, columns = image.shape[1] // CLIP_PATCH, image.shape[2] // CLIP_PATCH
    table = tower.embeddings.position_embedding.weight
    around = naive_positions(table[1:], (rows, columns), offset=offset)
    tokens = [tower.embeddings.class_embedding + table[0]]
    for row in range(rows):
        for column in range(columns):
            cell = image[:, row * CLIP_PATCH : (row + 1) * CLIP_PATCH, column * CLIP_PATCH : (column + 1) * CLIP_PATCH]
            pixels = ((cell - mean[:, None, None]) / std[:, None, None]).flatten()
            tokens.append(weights @ pixels + around[row * columns + column])
    hidden = tower.pre_layrnorm(torch.stack(tokens))
    for layer in tower.encoder.layers[:-1]:
        hidden = hidden + naive_attention(layer, hidden, logits=query_key)
        hidden = hidden + naive_mlp(layer, hidden)
    return hidden, (rows, columns)


def naive_positions(table: Tensor, grid: tuple[int, int], *, offset: float) -> Tensor:
    """As DINO's code has it: the scale is taken from sides that are `offset` patches longer."""
    side = int(math.sqrt(len(table)))
    if grid == (side, side):
        return table
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((grid[0] + offset) / side, (grid[1] + offset) / side)
    resized = functional.interpolate(square, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    assert tuple(resized.shape[-2:]) == grid
    return resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)


def query_key(query: Tensor, key: Tensor) -> list[Tensor]:
    return [query @ key.T / math.sqrt(query.shape[1])]


def query_query(query: Tensor, key: Tensor) -> list[Tensor]:
    return query_key(query, query)


def key_key(query: Tensor, key: Tensor) -> list[Tensor]:
    return query_key(key, key)


def both_with_themselves(query: Tensor, key: Tensor) -> list[Tensor]:
    return query_query(query, key) + key_key(query, key)


def naive_attention(layer: Any, hidden: Tensor, *, logits: Any) -> Tensor:
    """out_proj of the sum of softmax(logits) v over what `logits` gives, one head at a time."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    size = attention.head_dim
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = sum(one.softmax(dim=1) for one in logits(query[:, part], key[:, part]))
        heads.append(weights @ value[:, part])
    return attention.out_proj(torch.cat(heads, dim=1))


# the last layer


def near(query: Tensor, key: Tensor, *, grid: tuple[int, int]) -> list[Tensor]:
    (logits,) = key_key(query, key)
    for first in range(1, len(logits)):
        for second in range(1, len(logits)):
            (top, left), (bottom, right) = divmod(first - 1, grid[1]), divmod(second - 1, grid[1])
            logits[first, second] += math.exp(-((top - bottom) ** 2 + (left - right) ** 2) / (2 * SPREAD**2))
    return [logits]


def with_rest_of_layer(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    hidden = hidden + mixed
    return hidden + naive_mlp(layer, hidden)


def naive_mlp(layer: Any, hidden: Tensor) -> Tensor:
    """With the activation that the checkpoint names."""
    inner = layer.mlp.fc1(layer.layer_norm2(hidden))
    if layer.mlp.config.hidden_act == "quick_gelu":
        return layer.mlp.fc2(inner * torch.sigmoid(1.702 * inner))
    return layer.mlp.fc2(inner * (1 + torch.erf(inner / math.sqrt(2))) / 2)


def naive_last_layer(name: str, layer: Any, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
    if name == "maskclip":
        value = layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(hidden)))
        return with_rest_of_layer(layer, hidden, value)
    if name == "sclip":
        return with_rest_of_layer(layer, hidden, naive_attention(layer, hidden, logits=both_with_themselves))
    if name == "clearclip":
        return naive_attention(layer, hidden, logits=query_query)
    return naive_attention(layer, hidden, logits=lambda query, key: near(query, key, grid=grid))


def naive_proxy(layer: Any, hidden: Tensor, grid: tuple[int, int], features: Tensor) -> Tensor:
    """Features (D, rows, columns) of the vision encoder; (rows * columns, c)."""
    values = layer.self_attn.v_proj(layer.layer_norm1(hidden))[1:]
    rows, columns = features.shape[1:]
    resized = torch.stack(
        [
            bilinear(values, grid, (row + 0.5) / rows, (column + 0.5) / columns)
            for row in range(rows)
            for column in range(columns)
        ]
    )
    vectors = [vector / vector.norm() for vector in features.flatten(1).T]
    similarity = torch.tensor([[float(first @ second) for second in vectors] for first in vectors])
    mean = sum(float(entry) for entry in similarity.flatten()) / similarity.numel()
    mixed = []
    for row in similarity:
        logits = [(float(entry) - BETA * mean) * GAMMA for entry in row]
        kept = [math.exp(logit) if logit >= 0 else 0.0 for logit in logits]
        mixed.append(sum(weight / sum(kept) * value for weight, value in zip(kept, resized, strict=True)))
    return layer.self_attn.out_proj(torch.stack(mixed))


def bilinear(values: Tensor, grid: tuple[int, int], down: float, across: float) -> Tensor:
    """The value at a place given as shares of height and width, between the centres of the four cells around it."""
    corners = []
    for share, count in ((down, grid[0]), (across, grid[1])):
        place = min(max(share * count - 0.5, 0), count - 1)
        low = min(int(place), count - 1)
        corners.append((low, min(low + 1, count - 1), place - low))
    (top, bottom, below), (left, right, beside) = corners
    upper = values[top * grid[1] + left] * (1 - beside) + values[top * grid[1] + right] * beside
    lower = values[bottom * grid[1] + left] * (1 - beside) + values[bottom * grid[1] + right] * beside
    return upper * (1 - below) + lower * below


def to_text_space(clip: ClipEncoder, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    projected = clip.model.visual_projection(clip.model.vision_model.post_layernorm(tokens))
    unit = torch.stack([vector / vector.norm() for vector in projected])
    return unit.T.reshape(-1, *grid)


# the comparisons


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["maskclip", "sclip", "clearclip", "naclip"])
@torch.no_grad()
def test_method_agrees_with_naive_code(clip: ClipEncoder, name: str, size: tuple[int, int]) -> None:
    image = picture(size)
    hidden, grid = naive_tokens(clip, image[0], offset=0.0 if name == "maskclip" else OFFSET)
    last = clip.model.vision_model.encoder.layers[-1]
    expected = to_text_space(clip, naive_last_layer(name, last, hidden, grid)[1:], grid)
    got = features_of(name, clip, None)(image)
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_proxyclip_agrees_with_naive_code(clip: ClipEncoder, tiny_dinov2: Path, size: tuple[int, int]) -> None:
    image = picture(size)
    encoder = load_patch_encoder(str(tiny_dinov2), device="cpu")
    hidden, grid = naive_tokens(clip, image[0], offset=OFFSET)
    features = encoder(image)[0]
    tokens = naive_proxy(clip.model.vision_model.encoder.layers[-1], hidden, grid, features)
    expected = to_text_space(clip, tokens, (features.shape[1], features.shape[2]))
    torch.testing.assert_close(features_of("proxyclip", clip, encoder)(image)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_activation_is_the_checkpoints(tiny_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "clip"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["vision_config"]["hidden_act"] == "quick_gelu"
    config["vision_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    other = load_image_text(str(folder), device="cpu")
    assert isinstance(other, ClipEncoder)
    image = picture((24, 40))
    hidden, grid = naive_tokens(other, image[0], offset=OFFSET)
    last = other.model.vision_model.encoder.layers[-1]
    expected = to_text_space(other, naive_last_layer("sclip", last, hidden, grid)[1:], grid)
    torch.testing.assert_close(features_of("sclip", other, None)(image)[0], expected, rtol=1e-4, atol=1e-5)


class SixPixelPatches:
    """A vision encoder whose patches are not CLIP's: the colours of each patch's pixels, some of them."""

    device = torch.device("cpu")
    record = ModelRecord("colours", "colours", None, "0", 6, 12, (0.0,) * 3, (1.0,) * 3, 48, "")

    def __call__(self, images: Tensor) -> Tensor:
        return functional.pixel_unshuffle(images, 3).unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2)) - 0.5


@torch.no_grad()
def test_proxyclip_on_a_grid_that_is_not_clips(clip: ClipEncoder) -> None:
    image = picture((24, 36))  # 4 x 6 patches of the encoder; CLIP sees 24 x 40 pixels, 3 x 5 patches
    encoder = SixPixelPatches()
    seen = functional.interpolate(image, (24, 40), mode="bilinear", antialias=True)
    hidden, grid = naive_tokens(clip, seen[0], offset=OFFSET)
    assert grid == (3, 5)
    tokens = naive_proxy(clip.model.vision_model.encoder.layers[-1], hidden, grid, encoder(image)[0])
    expected = to_text_space(clip, tokens, (4, 6))
    torch.testing.assert_close(features_of("proxyclip", clip, encoder)(image)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_gives_what_its_images_give_alone(clip: ClipEncoder, tiny_dinov2: Path, name: str) -> None:
    encoder = load_patch_encoder(str(tiny_dinov2), device="cpu")
    images = picture((40, 24), count=3)
    images[1] *= 0.3  # so that the mean similarity of the images differs
    features = features_of(name, clip, encoder)
    together = features(images)
    alone = torch.cat([features(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


FAMILIES = [
    "dinov2", "dinov2_registers", "dinov3", "dinov3_convnext", "mae", "vit", "clip", "siglip", "sam", "sam2", "timm",
    "open_clip",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_proxyclip_takes_any_vision_encoder(clip: ClipEncoder, family: str, request: pytest.FixtureRequest) -> None:
    encoder = load_patch_encoder(str(request.getfixturevalue(f"tiny_{family}")), device="cpu")
    patch = encoder.record.patch_size
    patches = ProxyClip(clip, encoder=encoder)(picture((2 * patch, 3 * patch)))
    assert patches.shape == (1, clip.record.dim, 2, 3)
    torch.testing.assert_close(patches.norm(dim=1), torch.ones(1, 2, 3))


# positions and attention by themselves


@pytest.mark.parametrize("grid", [(5, 7), (3, 4), (9, 2)])
@pytest.mark.parametrize("offset", [0.0, OFFSET])
def test_positions_are_resampled_by_the_scale_that_is_said(grid: tuple[int, int], offset: float) -> None:
    table = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        interpolate_positions(table, grid=grid, offset=offset), naive_positions(table, grid, offset=offset)
    )


def test_offset_matters_at_every_grid_but_the_trained_one() -> None:
    table = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(interpolate_positions(table, grid=(4, 4), offset=OFFSET), table)
    moved = interpolate_positions(table, grid=(5, 4), offset=OFFSET) - interpolate_positions(table, grid=(5, 4))
    assert moved.abs().max() > 1e-3


def test_attention_in_pieces_is_the_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    features, values = torch.randn(2, 5, 3, 4, generator=generator), torch.randn(2, 12, 7, generator=generator)
    whole = proxy_attention(features, values, beta=BETA, gamma=GAMMA)
    for most in (1, 24, 60):
        pieces = proxy_attention(features, values, beta=BETA, gamma=GAMMA, most_values=most)
        torch.testing.assert_close(pieces, whole)


def test_where_all_patches_look_alike_each_keeps_its_own_value() -> None:
    values = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    alike = torch.ones(1, 3, 2, 3)  # the mean similarity is 1, and 1.2 times that is above every similarity
    torch.testing.assert_close(proxy_attention(alike, values, beta=BETA, gamma=GAMMA), values)


def test_numbers_of_proxyclip_are_its_own_and_can_be_others(clip: ClipEncoder, tiny_dinov2: Path) -> None:
    encoder = load_patch_encoder(str(tiny_dinov2), device="cpu")
    image = picture((32, 32))
    published = ProxyClip(clip, encoder=encoder)(image)
    assert torch.equal(ProxyClip(clip, encoder=encoder, beta=BETA, gamma=GAMMA)(image), published)
    for other in ({"beta": 0.5}, {"gamma": 9.0}):
        assert (ProxyClip(clip, encoder=encoder, **other)(image) - published).abs().max() > 1e-3


@pytest.mark.parametrize("numbers", [{"beta": -0.1}, {"gamma": 0.0}, {"gamma": math.nan}])
def test_numbers_out_of_range_are_refused(clip: ClipEncoder, numbers: dict[str, float]) -> None:
    with pytest.raises(PatchwordError, match="beta must be at least 0 and gamma above 0"):
        ProxyClip(clip, encoder=SixPixelPatches(), **numbers)


def test_the_encoder_given_is_left_as_it_was(clip: ClipEncoder) -> None:
    before = clip.encode_patches(picture((40, 40)))
    load_method("naclip", image_text=clip)
    assert (clip.dense, clip.position_offset) == ("value", 0.0)
    assert torch.equal(clip.encode_patches(picture((40, 40))), before)
