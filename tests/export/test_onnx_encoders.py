"""Every family of vision encoders as an ONNX file: other sizes, batches and class counts than it was traced with."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_world
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment.artifact import read_artifact
from patchword.alignment.module import AlignmentModule
from patchword.config.align import ModuleKind
from patchword.errors import PatchwordError
from patchword.export.onnx import graph
from patchword.export.onnx.facts import open_session
from patchword.export.onnx.graph import ImageSide, trace
from patchword.export.onnx.head import attach_head, parse_head
from patchword.export.onnx.run import export_onnx, largest_difference, save_model
from patchword.models.loading import load_patch_encoder
from patchword.models.protocols import ModelRecord

# Tracing takes seconds a layer: one layer and the smallest module where that is all a family needs, and by default only
# two families beside the one of test_onnx_export.py. `export_onnx` itself compares every file that it writes.
FAMILIES = ["tiny_dinov2_registers", "tiny_dinov3"]
SLOW = [
    "tiny_dinov3_convnext",
    "tiny_mae",
    "tiny_vit",
    "tiny_clip",
    "tiny_siglip",
    "tiny_timm",
    "tiny_open_clip",
    "tiny_sam",
    "tiny_sam2",
]
slow = pytest.mark.skipif(not os.environ.get("PATCHWORD_SLOW_TESTS"), reason="set PATCHWORD_SLOW_TESTS for minutes")


def shallow(folder: Path, *, out: Path) -> Path:
    """A copy of a checkpoint that uses its first layer alone."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    for part in (config, config.get("vision_config", {})):
        if "num_hidden_layers" in part:
            part["num_hidden_layers"] = 1
        for name in ("out_features", "out_indices", "stage_names"):  # they list layers that are gone
            part.pop(name, None)
    (out / "config.json").write_text(json.dumps(config))
    return out


def upsampled(scores: Tensor, *, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
    """What the file should say of scores (b, n, h, w): classes and confidences (b, height, width), all at once."""
    full = functional.interpolate(scores, size, mode="bilinear")
    return full.argmax(dim=1), (full / temperature).softmax(dim=1).amax(dim=1)


@pytest.mark.parametrize("fixture", [*FAMILIES, *(pytest.param(family, marks=slow) for family in SLOW)])
def test_equals_torch(fixture: str, tiny_clip: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(fixture)
    if isinstance(encoder, Path) and fixture not in ("tiny_sam", "tiny_sam2"):
        encoder = shallow(encoder, out=tmp_path / "encoder")
    folder = onnx_world.make_segmenter(tmp_path / "model", encoder=encoder, text=tiny_clip, kind="linear")
    summary = export_onnx(folder, out=tmp_path / "model.onnx")
    vision = load_patch_encoder(str(encoder), device="cpu", dtype="float32")
    module, patch = read_artifact(folder).module, vision.record.patch_size
    session = open_session(summary.path, threads=1)
    for batch, rows, columns, class_of in ((1, 3, 5, [0, 1]), (2, 6, 4, [0, 0, 1, 2, 2, 3, 4]), (2, 4, 4, [0])):
        images = torch.rand(batch, 3, rows * patch, columns * patch)
        vectors = functional.normalize(torch.randn(len(class_of), 24), dim=1)
        size = (rows * patch + 5, columns * patch - 3)
        with torch.no_grad():
            patches = module(vision(images))
        words = torch.einsum("nd,bdyx->bnyx", vectors, patches)
        members = [torch.tensor([row for row, each in enumerate(class_of) if each == c]) for c in sorted(set(class_of))]
        scores = torch.stack([words[:, rows_of].amax(dim=1) for rows_of in members], dim=1)
        classes, confidence = upsampled(scores, size=size, temperature=0.07)
        given = {"images": images, "vectors": vectors, "class_of": torch.tensor(class_of), "size": torch.tensor(size)}
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        said: dict[str, Any] = dict(zip([output.name for output in session.get_outputs()], found, strict=True))
        np.testing.assert_allclose(said["patches"], patches, atol=1e-4)
        np.testing.assert_allclose(said["scores"], scores, atol=1e-4)
        np.testing.assert_allclose(said["confidence"], confidence, atol=1e-4)
        assert said["classes"].shape == (batch, *size)
        assert (said["classes"] != classes.numpy()).mean() < 1e-3  # ties, decided by rounding


class Colours:
    """A patch encoder of one convolution: patches of 2 x 2 pixels, 6 channels."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        facts = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "input_size": 8, "licence": ""}
        self.record = ModelRecord("colours", "colours", None, "", patch_size=2, dim=6, **facts)
        self.model = torch.nn.Conv2d(3, 6, 2, 2)

    def __call__(self, images: Tensor) -> Tensor:
        features: Tensor = self.model(images)
        return features


@pytest.mark.parametrize("kind", ["two-blocks", pytest.param("mlp", marks=slow)])
def test_every_kind_of_module(kind: ModuleKind, tmp_path: Path) -> None:
    side = ImageSide(Colours(), AlignmentModule(dim=6, text_dim=5, kind=kind, head_size=4)).eval().requires_grad_(False)
    model = trace(side, opset=20)
    attach_head(model, head=parse_head(opset=20, temperature=0.07, values_at_once=100))
    save_model(model, tmp_path / "model.onnx")
    assert largest_difference(open_session(tmp_path / "model.onnx", threads=1), side) < 1e-5


def test_an_encoder_that_cannot_be_traced_is_refused_by_name(
    tiny_clip: Path, tiny_dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = onnx_world.make_segmenter(tmp_path / "model", encoder=tiny_dinov2, text=tiny_clip, kind="linear")
    encoder = load_patch_encoder(str(tiny_dinov2), device="cpu", dtype="float32")
    monkeypatch.setattr(encoder, "_tokens", lambda model, pixels: pixels[pixels > 0.5].reshape(len(pixels), -1, 32))
    with pytest.raises(PatchwordError, match=r"dinov2.* \(dinov2\) cannot be exported to ONNX: ") as refused:
        export_onnx(folder, out=tmp_path / "model.onnx", encoder=encoder)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("before", "after"), [((4, 4), (7, 3)), ((16, 16), (5, 16)), ((5, 5), (1, 2)), ((6, 6), (6, 6))]
)
def test_cubic_weights_are_those_of_torch(before: tuple[int, int], after: tuple[int, int]) -> None:
    table = torch.randn(2, 3, *before)
    expected = functional.interpolate(table, after, mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(graph.resample_antialiased(table, grid=after), expected, atol=1e-5, rtol=0)


def test_what_replaces_parts_of_sam_is_the_same(tiny_sam: Path) -> None:
    encoder: Any = load_patch_encoder(str(tiny_sam), device="cpu", dtype="float32")
    layer = encoder.model.layers[0]
    for size in (3, 5, 12):
        expected = layer.attn.get_rel_pos(size, size, layer.attn.rel_pos_h)
        torch.testing.assert_close(graph.relative_positions(size, size, layer.attn.rel_pos_h), expected)
    for height, width in ((5, 10), (7, 3), (1, 1)):
        tokens = torch.randn(2, height, width, 4)
        windows, padded = layer.window_partition(tokens, 5)
        mine, mine_padded = graph.split_windows(tokens, 5)
        assert padded == mine_padded
        assert torch.equal(mine, windows)
        assert torch.equal(graph.join_windows(mine, 5, padded, (height, width)), tokens)


def test_an_encoder_is_as_it_was_after_a_trace(tiny_sam: Path) -> None:
    encoder: Any = load_patch_encoder(str(tiny_sam), device="cpu", dtype="float32")
    image = torch.rand(1, 3, 9, 7)

    def resized() -> Tensor:
        return functional.interpolate(image, size=(4, 4), mode="bicubic", antialias=True)

    expected = resized()
    with graph.traceable(encoder), ThreadPoolExecutor() as pool:
        assert "get_rel_pos" in vars(encoder.model.layers[0].attn)
        replaced = resized()
        assert torch.equal(pool.submit(resized).result(), expected)  # another thread sees nothing of it
    assert not torch.equal(replaced, expected)
    torch.testing.assert_close(replaced, expected)
    assert torch.equal(resized(), expected)
    assert "get_rel_pos" not in vars(encoder.model.layers[0].attn)
