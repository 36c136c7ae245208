"""An ONNX file with its text embeddings is served without torch, and finds what it finds with torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import SOURCE

import patchword as pw
from patchword.config.segment import SegmentSettings
from patchword.config.serve import ServeConfig
from patchword.export.onnx.run import export_onnx
from patchword.export.text_embeddings import export_text_embeddings
from patchword.models.pixels import model_size
from patchword.segmentation.onnx_segmenter import load_onnx_segmenter
from patchword.serving.models import open_models
from patchword.serving.onnx_model import OnnxModel, seen_size

pytest.importorskip("onnxruntime")
sys.path.insert(0, str(Path(__file__).parents[1] / "export"))  # its models serve here, too

PICTURE = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8).repeat(9, 0).repeat(9, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path, tiny_dinov2: Path) -> tuple[Path, Path]:
    from onnx_world import make_segmenter

    folder = tmp_path_factory.mktemp("onnx")
    model = make_segmenter(folder / "model", encoder=tiny_dinov2, text=tiny_clip)
    export_onnx(model, out=folder / "model.onnx")
    export_text_embeddings(model, out=folder / "words.npz")
    return folder / "model.onnx", folder / "words.npz"


@pytest.mark.parametrize(
    "settings",
    [{}, {"image_size": 56}, {"threshold": 0.4}, {"background_threshold": 0.4, "temperature": 0.02}],
    ids=str,
)
@pytest.mark.parametrize(
    ("classes", "background"),
    [(None, None), (["cat", "couch"], []), (["puppy; dog"], ["sky"])],
    ids=["all", "two", "one"],
)
def test_it_finds_what_torch_finds(files: tuple[Path, Path], classes: Any, background: Any, settings: Any) -> None:
    served, segmenter = OnnxModel(files[0], text=files[1]), load_onnx_segmenter(files[0], text_encoder=str(files[1]))
    chosen = SegmentSettings.of({"refine": "none", **settings})
    vocabulary = served.vocabulary(classes, background)
    (seen,) = served.encode([PICTURE], chosen)
    label_map, confidence = served.decide(seen, vocabulary, chosen)
    expected = segmenter.segment(PICTURE, classes=vocabulary, settings=chosen)
    assert label_map.names == expected.label_map.names
    assert (label_map.indices == expected.mask).mean() > 0.99  # resized by Pillow, not by torch
    assert np.abs(confidence - expected.confidence).mean() < 0.01
    assert np.array_equal(label_map.class_colours(), expected.label_map.class_colours())


def test_images_are_seen_at_the_size_of_torch() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        height, width, size = map(int, generator.integers(1, 3000, 3))
        expected = model_size((height, width), image_size=size, patch_size=14)
        assert seen_size((height, width), image_size=size, patch_size=14) == expected


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model: model.vocabulary(["cow"], None), "no vector for 'cow'; it has those of cat, dog, sofa"),
        (lambda model: model.check((9, 9), SegmentSettings.of({"refine": "jbu"})), "takes 'none'"),
        (lambda model: model.check((9, 9), SegmentSettings.of({"refine": "none", "window": 8})), "takes None alone"),
    ],
)
def test_what_needs_torch_is_refused(files: tuple[Path, Path], call: Any, told: str) -> None:
    with pytest.raises(pw.PatchwordError, match=told):
        call(OnnxModel(files[0], text=files[1]))


def test_a_server_of_it_imports_no_torch(files: tuple[Path, Path]) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
import asyncio, io, httpx
from PIL import Image
from patchword.config.serve import ServeConfig
from patchword.serving.app import create_app

app = create_app(ServeConfig(model={str(files[0])!r}, text_encoder={str(files[1])!r}))
picture = io.BytesIO()
Image.new("RGB", (40, 30), "teal").save(picture, format="PNG")

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        form = {{"files": {{"file": ("a.png", picture.getvalue())}}}}
        answer = await client.post("/v1/segment", data={{"classes": ["cat", "sofa"]}}, **form)
        print(answer.status_code, [each["name"] for each in answer.json()["classes"]])

asyncio.run(main())
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["200 ['cat', 'sofa']", "[]"]


def test_text_embeddings_of_another_model_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "words.npz").write_bytes(b"no arrays")
    with pytest.raises(pw.PatchwordError, match="is not a file of text embeddings"):
        open_models(ServeConfig(model=(str(files[0]),), text_encoder=str(tmp_path / "words.npz")))
