"""An image that was encoded once: other words and settings without a forward pass, and the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourPatches, draw

import patchword as pw
from patchword.config.segment import SegmentSettings
from patchword.segmentation.encoded import EncodedImage
from patchword.segmentation.opening import load_method

PATCH = ColourPatches().record.patch_size
PICTURE = draw(7, height=21, width=30)[0]
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"image_size": 32},
    {"shorter_side": 23, "longest_side": 40, "resize": "uint8"},
    {"window": 2 * PATCH, "stride": PATCH},
    {"window": 2 * PATCH, "join": "logits", "shorter_side": 23},
    {"shorter_side": 23, "join": "logits", "partial_patches": "stretch"},
]
DECISIONS: list[dict[str, Any]] = [
    {},
    {"refine": "none", "temperature": 0.3, "threshold": 0.4},
    {"softmax_over": "words", "background_threshold": 0.5},
    {"refine": "pamr", "pamr": {"guide": "seen"}},
]


def same(one: pw.SegmentationResult, other: pw.SegmentationResult) -> None:
    assert one.label_map.indices.tobytes() == other.label_map.indices.tobytes()
    assert one.confidence.tobytes() == other.confidence.tobytes()
    assert one.label_map.names == other.label_map.names
    np.testing.assert_array_equal(one.image, other.image)


@pytest.fixture
def passes(segmenter: pw.Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward pass of the encoder so far."""
    seen: list[int] = []
    see = ColourPatches.__call__

    def watched(self: ColourPatches, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return see(self, images)

    monkeypatch.setattr(ColourPatches, "__call__", watched)
    return seen


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_any_words_without_a_pass_and_the_same_bytes(
    segmenter: pw.Segmenter, geometry: dict[str, Any], passes: list[int]
) -> None:
    encoded = segmenter.encode(PICTURE, settings=geometry)
    for decision in DECISIONS:
        for classes, background in (("red, green; lime", ["blue"]), (list(COLOURS), None)):
            asked: dict[str, Any] = {"classes": classes, "background": background}
            before = len(passes)
            found = segmenter.segment(encoded, settings=decision, **asked)
            assert len(passes) == before
            same(found, segmenter.segment(PICTURE, settings=geometry | decision, **asked))


def test_encoded_images_stand_beside_others(segmenter: pw.Segmenter, passes: list[int]) -> None:
    other = draw(8, height=16, width=40)[0]
    found = segmenter.segment_batch([segmenter.encode(PICTURE), other, segmenter.encode(other)], classes="red, blue")
    assert len(passes) == 3
    for one, picture in zip(found, (PICTURE, other, other), strict=True):
        assert isinstance(one, pw.SegmentationResult)
        same(one, segmenter.segment(picture, classes="red, blue"))


def test_several_of_one_size_share_a_pass(segmenter: pw.Segmenter, passes: list[int]) -> None:
    turned = PICTURE[::-1].copy()
    *encoded, failed = segmenter.encode_batch([PICTURE, turned, "absent.png"])
    assert passes == [2]
    assert isinstance(failed, pw.PatchwordError)
    for one, picture in zip(encoded, (PICTURE, turned), strict=True):
        assert isinstance(one, EncodedImage)
        found = segmenter.segment(one, classes="red, blue")
        expected = segmenter.segment(picture, classes="red, blue")
        assert np.array_equal(found.mask, expected.mask)
        assert np.abs(found.confidence - expected.confidence).max() < 1e-5  # a batch may round otherwise


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", 40), ("window", 2 * PATCH), ("resize", "plain"), ("join", "logits"), ("shorter_side", 24)],
)
def test_geometry_is_that_of_the_encoding(segmenter: pw.Segmenter, name: str, value: object) -> None:
    encoded = segmenter.encode(PICTURE)
    with pytest.raises(pw.PatchwordError, match=rf"^{name} is {value}, but the image was encoded with [^\n]*$"):
        segmenter.segment(encoded, classes="red, blue", settings={name: value})
    # said again, or as part of all settings, it is no contradiction
    settings = SegmentSettings.of({"image_size": 32, "threshold": 0.2})
    segmenter.segment(segmenter.encode(PICTURE, settings=settings), classes="red, blue", settings=settings)


def test_features_of_another_segmenter_are_refused(segmenter: pw.Segmenter) -> None:
    other = pw.Segmenter(
        encoder=segmenter.encoder, module=segmenter.module, text=segmenter.text, config=segmenter.config
    )
    with pytest.raises(pw.PatchwordError, match="encoded by another segmenter"):
        segmenter.segment(other.encode(PICTURE), classes="red, blue")


@pytest.mark.parametrize("geometry", GEOMETRIES[3:5], ids=["features", "logits"])
def test_memory(segmenter: pw.Segmenter, geometry: dict[str, Any]) -> None:
    encoded = segmenter.encode(PICTURE, settings=geometry)
    windows = len(encoded.plan) if "join" in geometry else 1
    high, wide = (side // PATCH for side in (encoded.plan.window if "join" in geometry else encoded.plan.size))
    assert encoded.nbytes == PICTURE.nbytes + windows * segmenter.text.record.dim * high * wide * 4
    assert repr(encoded).startswith("EncodedImage(21 x 30 pixels, seen at ")


@pytest.mark.parametrize("method", ["maskclip", "sclip"])
def test_training_free_methods(tiny_clip: Path, method: Any) -> None:
    segmenter = load_method(method, image_text=tiny_clip, device="cpu")
    encoded = segmenter.encode(PICTURE)
    for classes in ("cat, dog", "sofa; couch, tree, car"):
        same(segmenter.segment(encoded, classes=classes), segmenter.segment(PICTURE, classes=classes))
