"""What a notebook shows of results."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.config.suggest import SuggestSettings
from patchword.suggestion.result import Proposed


def cells(html: str) -> list[list[str]]:
    """The text of a table's cells, row by row."""
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in rows]


@pytest.fixture
def result() -> pw.SegmentationResult:
    """A quarter cat at confidence 0.5, half dog at 0.75, a quarter of no class at 0.25."""
    mask = np.full((600, 1000), 1)
    mask[:300, :500], mask[300:, :500] = 0, 255
    confidence = np.choose(np.minimum(mask, 2), [0.5, 0.75, 0.25]).astype(np.float32)
    return pw.SegmentationResult(pw.LabelMap(mask, ("cat", "<dog>")), confidence, np.zeros((600, 1000, 3), np.uint8))


def test_a_segmentation_is_told_by_class(result: pw.SegmentationResult) -> None:
    assert repr(result) == "SegmentationResult(1000 x 600 pixels: <dog> 50 %, cat 25 %)"
    html = result._repr_html_()
    assert cells(html) == [
        ["class", "share", "confidence"],
        ["&lt;dog&gt;", "50.0 %", "0.750"],
        ["cat", "25.0 %", "0.500"],
        ["no class", "25.0 %", "0.250"],
    ]
    assert "mean confidence: 0.562" in html
    assert html.count("<img") == 1


def test_a_segmentation_is_indexed_by_class(result: pw.SegmentationResult) -> None:
    assert result.mask is result.label_map.indices
    np.testing.assert_array_equal(result["cat"], result.mask == 0)
    with pytest.raises(pw.PatchwordError, match=r"^unknown class 'cta' \(choose from cat, <dog>\)$"):
        result["cta"]


def test_a_segmentation_is_a_picture_of_moderate_size(result: pw.SegmentationResult) -> None:
    picture = Image.open(io.BytesIO(result._repr_png_()))
    assert picture.format == "PNG"
    assert picture.width == 720
    assert picture.height > 432, "a legend stands below"
    cat, dog = (picture.convert("RGB").getpixel((x, 100)) for x in (100, 600))
    assert cat != dog


def test_a_proposal_is_a_table_and_long_ones_are_cut() -> None:
    names = [f"noun {number}" for number in range(40)]
    suggestion = pw.Suggestion(
        vocabulary=pw.Vocabulary.of(names),
        classes=tuple(Proposed(name, photographs=4, crops=1234, near=("a", "b")) for name in names),
        background=(),
        missed=(),
        photographs=8,
        found=8,
        crops=80,
        failed={},
        model="clip",
        settings=SuggestSettings(),
    )
    assert repr(suggestion).startswith("Suggestion(8 photographs: 40 classes: noun 0, noun 1")
    assert len(repr(suggestion)) < 300
    html = suggestion._repr_html_()
    assert cells(html)[1] == ["noun 0", "4", "50%", "1,234", "a, b"]
    assert len(cells(html)) == 1 + 30
    assert "and 10 more" in html
