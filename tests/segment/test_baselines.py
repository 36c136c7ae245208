"""The training-free methods by name: which parts each takes, what it refuses, what it says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchword.errors import PatchwordError
from patchword.models import load_image_text, load_patch_encoder
from patchword.segment.baselines import METHODS, load_method

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


def test_unknown_method_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match=r"^method is 'clip'; allowed are maskclip, sclip, clearclip, naclip, pro"):
        load_method("clip", image_text=tiny_clip)


def test_proxyclip_needs_an_encoder(tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match=r"^method proxyclip needs a vision encoder beside CLIP"):
        load_method("proxyclip", image_text=tiny_clip)


def test_an_encoder_that_has_no_use_is_refused(tiny_clip: Path, tiny_dinov2: Path) -> None:
    with pytest.raises(PatchwordError, match=r"^method sclip has no use for a vision encoder; allowed is one for"):
        load_method("sclip", image_text=tiny_clip, encoder=tiny_dinov2)


@pytest.mark.parametrize("name", METHODS)
def test_siglip_is_refused_by_name(name: str, tiny_siglip: Path, tiny_dinov2: Path) -> None:
    with pytest.raises(
        PatchwordError, match=rf"^method {name} changes CLIP's last layer; .* is siglip, allowed is clip"
    ):
        load_method(name, image_text=tiny_siglip, device="cpu", **parts(name, tiny_dinov2))
