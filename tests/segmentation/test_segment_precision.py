"""Types and compilation: the same classes in any of them, what follows the models always in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourPatches, ColourText, draw, make_data
from torch import Tensor

from patchword.alignment.run import align_labels
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.segmenter import Segmenter


class TypedPatches(ColourPatches):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._mix = self._mix.to(dtype)

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images.to(self.dtype)).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_agrees(segmenter: Segmenter, dtype: torch.dtype, tolerance: float) -> None:
    picture, _ = draw(100, height=32, width=48)
    half = Segmenter(encoder=TypedPatches(dtype), module=segmenter.module, text=segmenter.text, config=segmenter.config)
    types = []
    half.module.projection.register_forward_hook(lambda module, given, result: types.append(result.dtype))
    whole, other = (one.segment(picture, classes=list(COLOURS)) for one in (segmenter, half))
    assert dtype in types
    assert other.scores is not None
    assert other.scores.rows(range(2), maps=range(3)).dtype == torch.float32
    np.testing.assert_allclose(other.soft(), whole.soft(), atol=tolerance)
    assert (other.label_map.indices == whole.label_map.indices).mean() > 0.97
    assert half.describe()["computed_in"] == str(dtype).removeprefix("torch.")
    assert segmenter.describe()["computed_in"] == "float32"


def test_weights_of_real_families_in_bfloat16(tiny_clip: Path, tiny_dinov2: Path, tmp_path: Path) -> None:
    from colour_world import SETTINGS

    encoders = {
        kind: load_patch_encoder(str(tiny_dinov2), device="cpu", dtype=kind) for kind in ("float32", "bfloat16")
    }
    text = load_image_text(str(tiny_clip), device="cpu")
    settings = SETTINGS.model_copy(update={"steps": 1, "image_size": 3 * encoders["float32"].record.patch_size})
    align_labels(
        make_data(tmp_path),
        encoder=encoders["float32"],
        text_encoder=text,
        out=tmp_path / "model",
        settings=settings,
        quiet=True,
    )
    picture, _ = draw(3, height=40, width=33)
    found = [
        Segmenter.from_pretrained(tmp_path / "model", encoder=encoder, text_encoder=text)
        .segment(picture, classes=["red", "lamp"], settings={"temperature": 1.0})
        .soft()
        for encoder in encoders.values()
    ]
    np.testing.assert_allclose(found[1], found[0], atol=0.03)
    assert not np.array_equal(found[1], found[0])


def test_autocast_around_it_changes_nothing() -> None:
    picture, _ = draw(7, height=20, width=31)
    segmenter = DenseSegmenter(ColourText())
    plain = segmenter.segment(picture, classes=list(COLOURS))
    with torch.autocast("cpu", torch.bfloat16):
        inside = segmenter.segment(picture, classes=list(COLOURS))
    np.testing.assert_array_equal(plain.confidence, inside.confidence)


class TestCompile:
    def segmented(self, segmenter: Segmenter) -> np.ndarray:
        return segmenter.segment(draw(5)[0], classes=list(COLOURS), settings={"compile": True}).soft()

    def test_compiled_function_is_used(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def compiling(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda images: calls.append(len(images)) or function(images)  # type: ignore[func-returns-value]

        monkeypatch.setattr(torch, "compile", compiling)
        expected = segmenter.segment(draw(5)[0], classes=list(COLOURS)).soft()
        assert calls == []
        np.testing.assert_array_equal(self.segmented(segmenter), expected)
        assert len(calls) >= 1

    def test_without_a_compiler_it_goes_on(
        self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def failing(function: Any) -> Callable[[Tensor], Tensor]:
            raise RuntimeError("no compiler here\nand more")

        monkeypatch.setattr(torch, "compile", failing)
        expected = segmenter.segment(draw(5)[0], classes=list(COLOURS)).soft()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(self.segmented(segmenter), expected)
            np.testing.assert_array_equal(self.segmented(segmenter), expected)
        notes = [record.message for record in caplog.records]
        assert notes == ["torch.compile does not work here, segmenting goes on without it: no compiler here"]

    def test_out_of_memory_is_no_failure_of_the_compiler(
        self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []

        def compiling(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def compiled(images: Tensor) -> Tensor:
                sizes.append(len(images))
                if len(images) > 2:
                    raise MemoryError
                return function(images)

            return compiled

        monkeypatch.setattr(torch, "compile", compiling)
        pictures = [draw(number)[0] for number in range(4)]
        found = segmenter.segment_batch(pictures, classes="red, green", settings={"compile": True})
        assert all(not isinstance(one, Exception) for one in found)
        assert sizes[0] == 4
        assert set(sizes[1:]) == {2}


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize(
    "settings", [{}, {"window": 32, "stride": 16, "join": "logits"}, {"window": 32, "join": "features"}]
)
def test_other_devices_agree(tiny_clip: Path, device: str, settings: dict[str, Any]) -> None:
    if not getattr(torch, device).is_available():
        pytest.skip(f"there is no {device} here")
    picture, _ = draw(9, height=40, width=70)
    found = [
        DenseSegmenter(load_image_text(str(tiny_clip), device=where, dtype="float32"))
        .segment(picture, classes="red; crimson, lamp, sky", settings={"shorter_side": 48, **settings})
        .soft()
        for where in ("cpu", device)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
