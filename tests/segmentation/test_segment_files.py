"""What lies on disk of one photograph: each kind of file read back by another program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from colour_world import COLOURS, draw
from PIL import Image
from pycocotools import mask as coco_mask

from patchword.config.segment import FolderSettings
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.segmentation.result import SegmentationResult, Segmented, confidence_picture, files_of, write_result
from patchword.segmentation.segmenter import Segmenter


@pytest.fixture
def result(segmenter: Segmenter) -> SegmentationResult:
    return segmenter.segment(draw(1, height=20, width=30)[0], classes=list(COLOURS), settings={"threshold": 0.5})


def test_only_what_is_asked_for_is_written(result: SegmentationResult, tmp_path: Path) -> None:
    result.save(tmp_path, name="x/a.png", settings={"overlays": False})
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["masks/x/a.png.png"]
    path = result.save(tmp_path, name="x/a.png", settings={"confidence_bits": 16})
    assert path == tmp_path / "masks/x/a.png.png"
    assert (tmp_path / "overlays/x/a.png.jpg").is_file()
    assert (tmp_path / "confidence/x/a.png.png").is_file()


@pytest.mark.parametrize(("bits", "most"), [(8, 255), (16, 65535)])
def test_confidence_is_grey_by_the_documented_scale(
    result: SegmentationResult, tmp_path: Path, bits: int, most: int
) -> None:
    result.save(tmp_path, name="a.png", settings={"confidence_bits": bits})
    with Image.open(tmp_path / "confidence/a.png.png") as picture:
        assert picture.mode == ("L" if bits == 8 else "I;16")
        np.testing.assert_allclose(np.asarray(picture) / most, result.confidence, atol=0.5001 / most)


def test_confidence_goes_from_black_to_white() -> None:
    picture = confidence_picture(np.array([[0, 0.5, 1]], dtype=np.float32), bits=8)
    assert np.asarray(picture).tolist() == [[0, 128, 255]]


def test_run_lengths_are_read_back_by_pycocotools(result: SegmentationResult, tmp_path: Path) -> None:
    record = write_result(tmp_path, Segmented("a.png", result), settings=FolderSettings(rle=True))
    line = json.loads(json.dumps(record.line()))
    assert set(line["classes"]) == set(result.areas())
    for name, area in line["classes"].items():
        decoded = coco_mask.decode(area["rle"])
        np.testing.assert_array_equal(decoded.astype(bool), result.label_map.indices == COLOURS.index(name))
        assert int(coco_mask.area(area["rle"])) == area["pixels"]


def test_a_failure_removes_what_an_earlier_run_has_left(result: SegmentationResult, tmp_path: Path) -> None:
    settings = FolderSettings(confidence_bits=8)
    write_result(tmp_path, Segmented("a.png", result), settings=settings)
    record = write_result(tmp_path, Segmented("a.png", PatchwordError("gone")), settings=settings)
    assert (record.status, record.reason) == ("failed", "gone")
    assert not any(path.exists() for path in files_of(tmp_path, "a.png", settings=settings))


def test_a_name_that_is_too_long_is_the_photographs_own_mistake(result: SegmentationResult, tmp_path: Path) -> None:
    record = write_result(tmp_path, Segmented("n" * 253 + ".x", result), settings=FolderSettings(overlays=False))
    assert record.status == "failed"
    assert "its results cannot have its name" in (record.reason or "")


def test_areas_are_those_of_the_mask(result: SegmentationResult, tmp_path: Path) -> None:
    mask = LabelMap.load(result.save(tmp_path, name="a.png"), names=COLOURS)
    areas = result.areas()
    assert areas == {name: int((mask.indices == COLOURS.index(name)).sum()) for name in areas}
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
