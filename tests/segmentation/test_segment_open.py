"""Which of the two kinds of segmenters is meant, and what is said where that is not clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from patchword.errors import PatchwordError
from patchword.segmentation.opening import open_segmenter


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "neither a model nor a method is given"),
        ({"model": "a", "method": "sclip"}, "a model and a method are both given"),
        ({"model": "a", "image_text": "b"}, "image_text needs a method"),
        ({"model": "nowhere"}, "nowhere"),
        ({"method": "sclip"}, "method sclip needs an image-text model"),
        ({"method": "sclip", "image_text": "a", "text_encoder": "b"}, "text_encoder needs a model"),
        ({"method": "nearest", "image_text": "a"}, r"unknown method 'nearest' \(choose from maskclip, sclip"),
    ],
)
def test_what_is_unclear_is_one_line(asked: dict[str, str], said: str) -> None:
    with pytest.raises(PatchwordError, match=said) as error:
        open_segmenter(**asked)
    assert "\n" not in str(error.value)


def test_a_method_is_loaded_by_name(tiny_clip: Path) -> None:
    segmenter = open_segmenter(method="sclip", image_text=tiny_clip, device="cpu")
    assert segmenter.describe()["method"] == "sclip"


def test_a_loaded_segmenter_is_taken_as_it_is_and_takes_no_other_part() -> None:
    loaded = cast(Any, object())
    assert open_segmenter(loaded) is loaded
    for part in ("encoder", "text_encoder", "mask_generator"):
        with pytest.raises(PatchwordError, match="a loaded segmenter has its own encoders"):
            open_segmenter(loaded, **{part: "somewhere"})
