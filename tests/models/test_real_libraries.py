"""timm and OpenCLIP themselves, where they are installed: the adapters against their own forward passes.

Random models, nothing is fetched. Elsewhere the stand-ins of `stand_ins.py` have to do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.loading import load_image_text, load_patch_encoder

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def real(package: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package and not a stand-in that another test has put in its place; the test is skipped without it."""
    if getattr(sys.modules.get(package), "__file__", None) is None:
        monkeypatch.delitem(sys.modules, package, raising=False)
    return pytest.importorskip(package, exc_type=ImportError)


def pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(4))


def normalised(images: Tensor, record: Any) -> Tensor:
    return (images - torch.tensor(record.mean).view(3, 1, 1)) / torch.tensor(record.std).view(3, 1, 1)


def save_timm(model: Any, architecture: str, folder: Path) -> str:
    """Write a model in timm's hub format; its name."""
    config = {"architecture": architecture, "num_classes": 1000, "pretrained_cfg": dict(model.pretrained_cfg)}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return f"timm:{folder}"


@pytest.mark.parametrize(("architecture", "patch", "dim"), [("convnext_atto", 32, 320), ("resnet18", 32, 512)])
def test_timm_networks(
    architecture: str, patch: int, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = real("timm", monkeypatch)
    torch.manual_seed(0)
    model = timm.create_model(architecture).eval()
    encoder = load_patch_encoder(save_timm(model, architecture, tmp_path), device="cpu")
    assert (encoder.record.patch_size, encoder.record.dim) == (patch, dim)
    images = pictures(patch * 5, patch * 4)
    with torch.no_grad():
        expected = model.forward_features(normalised(images, encoder.record))
    torch.testing.assert_close(encoder(images), expected, **TOLERANCE)


def test_timm_transformer_gives_its_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = real("timm", monkeypatch)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    encoder = load_patch_encoder(save_timm(model, "vit_tiny_patch16_224", tmp_path), device="cpu")
    images = pictures(96, 64)
    with torch.no_grad():
        tokens = model.forward_features(normalised(images, encoder.record))[:, 1:]
    torch.testing.assert_close(encoder(images), tokens.transpose(1, 2).reshape(2, 192, 6, 4), **TOLERANCE)


@pytest.mark.parametrize("tower", ["own", "timm"])
def test_open_clip(tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = real("open_clip", monkeypatch)
    vision: dict[str, Any] = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
    if tower == "timm":
        vision = {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": 224,
        }
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {
        "model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.48, 0.45, 0.4], "std": [0.26, 0.25, 0.27], "interpolation": "bicubic"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.create_model(f"local-dir:{tmp_path}").state_dict(), tmp_path / "open_clip_model.safetensors")
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    name, prompts = f"open_clip:{tmp_path}", ["a cat", "a red boat"]
    encoder: Any = load_image_text(name, device="cpu")
    images = pictures(encoder.record.input_size, encoder.record.input_size)
    pixels = normalised(images, encoder.record)
    with torch.no_grad():
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(prompts), normalize=True)
        whole = model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(encoder.encode_text(prompts), words, **TOLERANCE)
    torch.testing.assert_close(encoder.encode_images(images), whole, **TOLERANCE)
    if tower == "timm":
        with pytest.raises(PatchwordError, match="image tower of class TimmModel, which gives no patches"):
            load_patch_encoder(name, device="cpu")
        return
    with torch.no_grad():
        (expected,) = model.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=True, intermediates_only=True
        )["image_intermediates"]
    patches = load_patch_encoder(name, device="cpu")
    torch.testing.assert_close(patches(images), expected, **TOLERANCE)
    assert patches(pictures(48, 80)).shape == (2, 64, 3, 5)
    for both, alone in zip(
        encoder.encode_both(images), (encoder.encode_images(images), encoder.encode_patches(images)), strict=True
    ):
        torch.testing.assert_close(both, alone, **TOLERANCE)
