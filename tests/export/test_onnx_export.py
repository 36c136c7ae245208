"""A segmenter as an ONNX file: whatever size and class list, it says what torch says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_world
import pytest
from onnx_world import CLASSES

from patchword.export.onnx.run import OnnxSummary, export_onnx
from patchword.export.text_vectors import export_text_vectors
from patchword.segment.opening import load, open_segmenter
from patchword.segment.result import SegmentationResult
from small_world import pixels

PHOTOGRAPHS = [pixels(seed=1, height=50, width=37), pixels(seed=2, height=31, width=64)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_dinov2: Path, tiny_clip: Path) -> Path:
    return onnx_world.make_segmenter(tmp_path_factory.mktemp("m") / "model", encoder=tiny_dinov2, text=tiny_clip)


@pytest.fixture(scope="module")
def exported(model: Path) -> OnnxSummary:
    return export_onnx(model, out=model.parent / "model.onnx", settings={"values_at_once": 2000})


@pytest.fixture(scope="module")
def words(model: Path) -> Path:
    return export_text_vectors(model, out=model.parent / "classes.npz").path


def same(found: SegmentationResult, expected: SegmentationResult) -> None:
    """Equal label maps but for ties, equal confidence."""
    assert found.label_map.names == expected.label_map.names
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    differ = found.label_map.indices != expected.label_map.indices
    assert differ.mean() < 1e-3
    assert len(np.unique(expected.label_map.indices)) > 2  # a map of one class would say little


@pytest.mark.parametrize("classes", [None, "cat, dog", "cat\nlamp; light\ntable\n@background: wall"])
def test_segments_as_torch_does(model: Path, exported: OnnxSummary, classes: str | None) -> None:
    by_torch, by_onnx = load(model, device="cpu"), open_segmenter(exported.path)
    assert by_onnx.describe()["kind"] == "onnx"
    asked = CLASSES if classes is None else classes
    results = by_onnx.segment_batch(PHOTOGRAPHS, classes=asked)
    for photograph, result in zip(PHOTOGRAPHS, results, strict=True):
        assert isinstance(result, SegmentationResult)
        expected = by_torch.segment(photograph, classes=asked)
        np.testing.assert_allclose(result.confidence, expected.confidence, atol=1e-4)
        assert (result.label_map.indices != expected.label_map.indices).mean() < 1e-3
