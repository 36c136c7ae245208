"""The training-free methods by name: which parts each takes, what it refuses, what it says of itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from patchword.cli.app import app
from patchword.errors import PatchwordError
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.segmentation.methods import BENCHMARKS, METHODS
from patchword.segmentation.opening import load_method

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def parts(name: str, dinov2: Path) -> dict[str, Path]:
    return {"encoder": dinov2} if METHODS[name].needs_encoder else {}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_segments_and_tells_its_name(name: str, tiny_clip: Path, tiny_dinov2: Path) -> None:
    segmenter = load_method(name, image_text=tiny_clip, device="cpu", **parts(name, tiny_dinov2))
    result = segmenter.segment(IMAGE, classes="cat, dog, sofa")
    assert result.label_map.indices.shape == (24, 40)
    said = segmenter.describe()
    assert said["method"] == name
    assert ("encoder" in said) == METHODS[name].needs_encoder


def test_methods_differ_on_the_same_weights(tiny_clip: Path, tiny_dinov2: Path) -> None:
    clip, encoder = load_image_text(str(tiny_clip), device="cpu"), load_patch_encoder(str(tiny_dinov2), device="cpu")
    confidences = []
    for name, method in METHODS.items():
        segmenter = load_method(name, image_text=clip, encoder=encoder if method.needs_encoder else None)
        confidences.append(segmenter.segment(IMAGE, classes="cat, dog, sofa").confidence)
    for first in range(len(confidences)):
        for second in range(first):
            assert np.abs(confidences[first] - confidences[second]).max() > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_windows_are_seen_as_images_are(name: str, tiny_clip: Path, tiny_dinov2: Path) -> None:
    segmenter = load_method(name, image_text=tiny_clip, device="cpu", **parts(name, tiny_dinov2))
    settings = {"shorter_side": 24, "window": 24, "stride": 16, "join": "logits", "refine": "none"}
    windows = segmenter.segment(IMAGE, classes="cat, dog, sofa", settings=settings)
    alone = segmenter.segment(IMAGE[:, :24], classes="cat, dog, sofa", settings={"shorter_side": 24, "refine": "none"})
    assert np.array_equal(windows.label_map.indices[:, :15], alone.label_map.indices[:, :15])  # the other begins at 16
    assert windows.confidence[:, :15] == pytest.approx(alone.confidence[:, :15], abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_is_near(name: str, tiny_clip: Path, tiny_dinov2: Path) -> None:
    patches = [
        load_method(name, image_text=tiny_clip, device="cpu", dtype=dtype, **parts(name, tiny_dinov2)).encode_patches(
            torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(0))
        )
        for dtype in ("float32", "bfloat16")
    ]
    assert patches[1].dtype == torch.float32
    assert torch.cosine_similarity(*patches, dim=1).mean() > 0.99


def test_unknown_method_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(
        PatchwordError, match=r"^unknown method 'clip' \(choose from maskclip, sclip, clearclip, naclip, pro"
    ):
        load_method("clip", image_text=tiny_clip)


def test_proxyclip_needs_an_encoder(tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match=r"^method proxyclip needs a vision encoder beside CLIP"):
        load_method("proxyclip", image_text=tiny_clip)


def test_an_encoder_that_has_no_use_is_refused(tiny_clip: Path, tiny_dinov2: Path) -> None:
    with pytest.raises(PatchwordError, match=r"^method sclip uses no vision encoder; only"):
        load_method("sclip", image_text=tiny_clip, encoder=tiny_dinov2)


@pytest.mark.parametrize("name", METHODS)
def test_siglip_is_refused_by_name(name: str, tiny_siglip: Path, tiny_dinov2: Path) -> None:
    with pytest.raises(PatchwordError, match=rf"^method {name} changes CLIP's last layer, and .* of the family siglip"):
        load_method(name, image_text=tiny_siglip, device="cpu", **parts(name, tiny_dinov2))


@pytest.mark.parametrize(
    ("model", "family"),
    [("google/siglip-base-patch16-224", "siglip"), ("open_clip:laion/nowhere", "open_clip"), ("timm:vit", "timm")],
)
def test_what_a_name_tells_is_refused_before_anything_is_fetched(model: str, family: str) -> None:
    with pytest.raises(PatchwordError, match=rf"and {model} is of the family {family}; it needs a CLIP in"):
        load_method("naclip", image_text=model, device="cpu")


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.published])
def test_published_settings_are_there_for_every_benchmark(name: str) -> None:
    published = METHODS[name].published
    assert set(published) == set(BENCHMARKS)
    assert {settings.join for settings in published.values()} == {"logits"}
    with_background = {benchmark for benchmark, settings in published.items() if settings.background_threshold > 0}
    assert with_background == {"voc21", "context60", "coco-object"}


def test_published_settings_keep_what_a_benchmark_does_not_change() -> None:
    of_proxyclip = METHODS["proxyclip"].published
    assert (of_proxyclip["cityscapes"].window, of_proxyclip["cityscapes"].stride) == (224, 112)
    assert (of_proxyclip["voc20"].window, of_proxyclip["voc20"].stride) == (336, 112)
    assert METHODS["sclip"].published["voc21"].temperature == pytest.approx(1 / 65)
    assert METHODS["sclip"].published["ade20k"].temperature == pytest.approx(1 / 40)


def test_command_lists_the_methods() -> None:
    ran = CliRunner().invoke(app, ["methods"])
    assert ran.exit_code == 0
    heading, *rows = ran.stdout.splitlines()
    assert heading.split()[0] == "name"
    assert [row.split()[0] for row in rows] == list(METHODS)


def test_command_lists_all_of_a_method_as_json() -> None:
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    assert [method["name"] for method in listed] == list(METHODS)
    (sclip,) = (method for method in listed if method["name"] == "sclip")
    assert sclip["published"]["voc21"]["window"] == 224
    assert "softmax(q q^T" in sclip["equation"]


@pytest.mark.parametrize("grid", [(4, 4), (3, 6)])
@torch.no_grad()
def test_dino_can_be_seen_as_its_authors_code_does(tiny_clip: Path, tiny_vit: Path, grid: tuple[int, int]) -> None:
    """Positions resampled by a scale that 0.1 patches are added to, and 1e-6 in every layer norm."""
    vision: Any = load_patch_encoder(str(tiny_vit), device="cpu")
    usual = load_method("proxyclip", image_text=tiny_clip, encoder=vision)
    theirs = load_method("proxyclip", image_text=tiny_clip, encoder=vision, as_published=True)
    assert theirs.describe()["as_published"] is True
    assert "as_published" not in usual.describe()
    images = torch.rand(1, 3, 8 * grid[0], 8 * grid[1], generator=torch.Generator().manual_seed(0))
    before = vision(images)
    found = theirs.encode_patches.encoder(images)  # type: ignore[attr-defined]
    torch.testing.assert_close(vision(images), before, rtol=0, atol=0)  # the encoder that was given stays as it is

    model = copy.deepcopy(vision.model)
    for part in model.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-6
    if grid != (4, 4):
        table = model.embeddings.position_embeddings
        square = table[0, 1:].T.reshape(1, -1, 4, 4)
        scale = ((grid[0] + 0.1) / 4, (grid[1] + 0.1) / 4)
        resampled = torch.nn.functional.interpolate(square, scale_factor=scale, mode="bicubic")
        assert resampled.shape[-2:] == grid
        positions = torch.cat([table[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
        model.embeddings.interpolate_pos_encoding = lambda tokens, height, width: positions
    expected = model((images - 0.5) / 0.5, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)
