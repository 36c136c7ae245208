"""Every family of vision encoder, and every text space, through alignment and back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from colour_world import COLOURS, SETTINGS, make_data

from patchword.alignment.run import align_labels
from patchword.data.images import read_image
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.models.registry import FAMILIES
from patchword.segmentation.segmenter import Segmenter

ENCODERS = {
    "clip": "tiny_clip",
    "siglip": "tiny_siglip",
    "dinov2": "tiny_dinov2",
    "dinov2-with-registers": "tiny_dinov2_registers",
    "dinov3": "tiny_dinov3",
    "dinov3-convnext": "tiny_dinov3_convnext",
    "mae": "tiny_mae",
    "vit": "tiny_vit",
    "sam": "tiny_sam",
    "sam2": "tiny_sam2_video",
    "timm": "tiny_timm",
    "open_clip": "tiny_open_clip",
}
TEXT_SPACES = ("tiny_clip", "tiny_siglip", "tiny_open_clip")


def test_no_family_is_left_out() -> None:
    assert {family.name for family in FAMILIES if "patch" in family.kinds} <= set(ENCODERS)


def align_and_load(folder: Path, *, encoder: str, text: str) -> None:
    """Train a few steps, write, load by the names in the folder, and segment: the same as before writing."""
    data = make_data(folder, images=4)
    vision, words = load_patch_encoder(encoder, device="cpu"), load_image_text(text, device="cpu")
    patch = vision.record.patch_size
    settings = SETTINGS.model_copy(update={"image_size": patch * 4, "steps": 2, "majority": 0.5})
    result = align_labels(data, encoder=vision, text_encoder=words, out=folder / "model", settings=settings, quiet=True)
    assert result.skipped == {}
    assert result.artifact.config.encoder.dim == vision.record.dim
    photograph = read_image(data.items[0].image)
    segmented = []
    for towers in ({"encoder": vision, "text_encoder": words}, {}):
        segmenter = Segmenter.from_pretrained(folder / "model", device="cpu", **towers)
        segmented.append(segmenter.segment(photograph, classes=list(COLOURS)))
    assert segmented[0].label_map.indices.shape == photograph.shape[:2]
    assert (segmented[0].label_map.indices == segmented[1].label_map.indices).mean() > 0.99
    torch.testing.assert_close(
        torch.as_tensor(segmented[0].confidence), torch.as_tensor(segmented[1].confidence), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("family", ENCODERS)
def test_encoder(family: str, tmp_path: Path, tiny_clip: Path, request: pytest.FixtureRequest) -> None:
    align_and_load(tmp_path, encoder=str(request.getfixturevalue(ENCODERS[family])), text=str(tiny_clip))


@pytest.mark.parametrize("text", TEXT_SPACES)
def test_text_space(text: str, tmp_path: Path, tiny_dinov2: Path, request: pytest.FixtureRequest) -> None:
    align_and_load(tmp_path, encoder=str(tiny_dinov2), text=str(request.getfixturevalue(text)))
