"""Patch encoders against transformers' own forward pass on the same random checkpoint, at several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_pictures import FORWARD
from tiny import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor

from patchword.models.loading import load_mask_generator, load_patch_encoder

HALF = [0.5] * 3
Reference = Callable[[Any, Tensor], Tensor]


def pictures(height: int, width: int, *, count: int = 1, seed: int = 3) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pixels_of(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def of_clip(model: Any, pixels: Tensor) -> Tensor:
    hidden = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    return model.vision_model.post_layernorm(hidden)[:, 1:]


def of_siglip(model: Any, pixels: Tensor) -> Tensor:
    return model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state


def of_vit(model: Any, pixels: Tensor) -> Tensor:
    return model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]


def of_convnext(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels).last_hidden_state[:, 1:]


def of_mae(model: Any, pixels: Tensor) -> Tensor:
    """Layer by layer, without the masking that the model's own forward pass begins with."""
    embeddings = model.embeddings
    patches = embeddings.patch_embeddings(pixels)
    first = embeddings.cls_token.expand(len(pixels), 1, -1)
    tokens = torch.cat([first, patches], dim=1)
    tokens = tokens + embeddings.interpolate_pos_encoding(tokens, *pixels.shape[-2:])
    for layer in model.layers:
        tokens = layer(tokens, None)
    return model.layernorm(tokens)[:, 1:]


CASES: dict[str, tuple[str, list[float], list[float], Reference, int]] = {
    "tiny_clip": ("CLIPModel", CLIP_MEAN, CLIP_STD, of_clip, 8),
    "tiny_siglip": ("SiglipModel", HALF, HALF, of_siglip, 8),
    "tiny_vit": ("ViTModel", HALF, HALF, of_vit, 8),
    "tiny_mae": ("ViTMAEModel", IMAGENET_MEAN, IMAGENET_STD, of_mae, 8),
    "tiny_dinov3_convnext": ("DINOv3ConvNextModel", IMAGENET_MEAN, IMAGENET_STD, of_convnext, 32),
}


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (2, 2), (9, 6)], ids=["trained", "wide", "smaller", "larger"])
@pytest.mark.parametrize("fixture", CASES)
def test_tokens_agree_with_the_forward_pass(
    fixture: str, grid: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    import transformers

    class_name, mean, std, reference, patch = CASES[fixture]
    folder = request.getfixturevalue(fixture)
    images = pictures(grid[0] * patch, grid[1] * patch, count=2)
    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = reference(model, pixels_of(images, mean, std))
    got = load_patch_encoder(str(folder), device="cpu")(images)
    assert tokens.shape[1] == grid[0] * grid[1]
    for row in range(grid[0]):
        for column in range(grid[1]):
            torch.testing.assert_close(got[:, :, row, column], tokens[:, row * grid[1] + column], **FORWARD)


def test_mae_masks_nothing_though_its_config_says_three_quarters(tiny_mae: Path) -> None:
    """Every patch counts: of each, the change of its pixels is seen, and twice the same is the same."""
    encoder: Any = load_patch_encoder(str(tiny_mae), device="cpu")
    images = pictures(32, 32)
    before = encoder(images)
    for row in range(4):
        for column in range(4):
            changed = images.clone()
            changed[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
            assert not torch.equal(encoder(changed), before)
    assert torch.equal(encoder(images), before)


def test_sam_at_its_own_square_is_sam(tiny_sam: Path) -> None:
    """96 x 96 pixels: what prompts attend to."""
    images = pictures(96, 96, count=2)
    embeddings = load_mask_generator(str(tiny_sam), device="cpu").embed([image[None] for image in images])
    expected = torch.cat([embedding.features[0] for embedding in embeddings])
    torch.testing.assert_close(load_patch_encoder(str(tiny_sam), device="cpu")(images), expected, **FORWARD)


@pytest.mark.parametrize("size", [(48, 72), (136, 104)], ids=["smaller", "larger"])
def test_sam_of_another_size_is_sam_made_for_that_size(tiny_sam: Path, size: tuple[int, int]) -> None:
    """A hand-written pass: interpolated absolute positions, SAM's own layers, its neck."""
    from transformers import SamModel

    model = SamModel.from_pretrained(tiny_sam).eval().vision_encoder
    images = pictures(*size)
    grid = (size[0] // 8, size[1] // 8)
    with torch.no_grad():
        patches = model.patch_embed.projection(pixels_of(images, IMAGENET_MEAN, IMAGENET_STD))
        positions = torch.nn.functional.interpolate(model.pos_embed.permute(0, 3, 1, 2), grid, mode="bicubic")
        hidden = (patches + positions).permute(0, 2, 3, 1)
        for layer in model.layers:
            hidden = layer(hidden)
        expected = model.neck(hidden)
    torch.testing.assert_close(load_patch_encoder(str(tiny_sam), device="cpu")(images), expected, **FORWARD)


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (160, 32)])
def test_sam2_of_whole_windows_agrees_with_the_forward_pass(tiny_sam2: Path, size: tuple[int, int]) -> None:
    from transformers import Sam2Model

    images = pictures(*size, count=2)
    model = Sam2Model.from_pretrained(tiny_sam2).eval().vision_encoder
    with torch.no_grad():
        levels = model(pixels_of(images, IMAGENET_MEAN, IMAGENET_STD)).fpn_hidden_states
    expected = min(levels, key=lambda level: level.shape[-1])
    assert expected.shape[-2:] == (size[0] // 16, size[1] // 16)
    torch.testing.assert_close(load_patch_encoder(str(tiny_sam2), device="cpu")(images), expected, **FORWARD)


@pytest.mark.parametrize(("size", "padded"), [((48, 80), (64, 96)), ((16, 16), (32, 32)), ((128, 144), (128, 160))])
def test_sam2_pads_below_and_to_the_right(tiny_sam2: Path, size: tuple[int, int], padded: tuple[int, int]) -> None:
    """As if the picture went on in the mean colour, which is zero after normalisation; the rest of the map is cut."""
    encoder = load_patch_encoder(str(tiny_sam2), device="cpu")
    images = pictures(*size)
    longer = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(1, 1, *padded)
    longer[..., : size[0], : size[1]] = images
    expected = encoder(longer)[..., : size[0] // 16, : size[1] // 16]
    torch.testing.assert_close(encoder(images), expected, **FORWARD)


def test_real_sam2_needs_whole_squares_of_32() -> None:
    """The published sizes, none of which needs more than the last stage's cell."""
    from transformers import Sam2HieraDetConfig

    from patchword.models.encoders import whole_cell

    tiny, large = Sam2HieraDetConfig(), Sam2HieraDetConfig(window_size_per_stage=[8, 4, 16, 8])
    assert (whole_cell(tiny), whole_cell(large)) == (32, 32)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (72, 40)], ids=["smaller", "larger"])
def test_dinov3_of_any_size_leaves_its_registers_out(tmp_path: Path, size: tuple[int, int], gated: bool) -> None:
    """Rotary positions need no interpolation; the gated MLP is that of the larger models."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_register_tokens=4,
        use_gated_mlp=gated,
    )
    model = DINOv3ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    images = pictures(*size, count=2)
    rows, columns = size[0] // 8, size[1] // 8
    with torch.no_grad():
        hidden = model(pixels_of(images, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
    assert hidden.shape[1] == 1 + 4 + rows * columns
    got = load_patch_encoder(str(tmp_path), device="cpu")(images)
    expected = hidden[:, 5:].transpose(1, 2).reshape(2, 32, rows, columns)
    torch.testing.assert_close(got, expected, **FORWARD)
