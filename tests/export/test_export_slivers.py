"""What is too small for an object: left out of the formats of objects, kept in the masks, counted and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from export_data import VOCABULARY, make_labels
from PIL import Image

from patchword.config.exchange import ExportSettings
from patchword.export.run import FORMATS, export_labels
from patchword.labeling.dataset import LabelledDataset
from small_world import must, run

IGNORE = 255
SLIVER, BOX = 2, 0  # classes


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    """An object of 100 pixels and a speck of 4 in a picture of 400."""
    indices = np.full((20, 20), IGNORE, dtype=np.uint8)
    indices[:10, :10] = BOX
    indices[15:17, 15:17] = SLIVER
    return make_labels(tmp_path_factory.mktemp("slivers"), {"x.png": (indices, [])})


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_objects_count_what_they_leave_out(labels: LabelledDataset, tmp_path: Path, name: str) -> None:
    out = tmp_path / ("x.json" if name == "coco" else "x")
    summary = export_labels(labels, format=name, out=out, quiet=True)
    if name in ("fiftyone", "cityscapes", "webdataset", "hf"):  # of masks alone
        assert (summary.segments, summary.slivers) == (None, None)
        return
    assert summary.segments == 1
    assert summary.slivers is not None
    assert (summary.slivers.pieces, summary.slivers.pixels) == (1, 4)
    assert summary.slivers.share == pytest.approx(4 / 104, abs=1e-6)
    every = ExportSettings(least_pixels=4)
    again = export_labels(labels, format=name, out=out, settings=every, overwrite=True, quiet=True)
    assert (again.segments, again.slivers) == (2, None)


def test_masks_of_classes_keep_slivers_and_masks_of_objects_do_not(labels: LabelledDataset, tmp_path: Path) -> None:
    export_labels(labels, format="voc", out=tmp_path / "voc", quiet=True)
    classes = np.array(Image.open(tmp_path / "voc/SegmentationClass/x.png"))
    objects = np.array(Image.open(tmp_path / "voc/SegmentationObject/x.png"))
    assert (classes[15:17, 15:17] == SLIVER + 1).all()
    assert (objects[15:17, 15:17] == 0).all()
    assert set(np.unique(objects)) == {0, 1, 255}
    export_labels(labels, format="cvat", out=tmp_path / "cvat", quiet=True)
    classes = np.array(Image.open(tmp_path / "cvat/SegmentationClass/x.png"))
    objects = np.array(Image.open(tmp_path / "cvat/SegmentationObject/x.png"))
    assert classes[15:17, 15:17].any()
    assert not objects[15:17, 15:17].any()
    export_labels(labels, format="coco-panoptic", out=tmp_path / "panoptic", quiet=True)
    numbers = np.array(Image.open(tmp_path / "panoptic/panoptic/x.png.png"))
    assert numbers[0, 0].tolist() == [1, 0, 0]
    assert not numbers[15:17, 15:17].any()


def test_the_command_says_what_is_left_out(labels: LabelledDataset, tmp_path: Path) -> None:
    out = must(run("export", labels.folder, "--format", "coco", "-o", tmp_path / "x.json")).out
    assert "1 piece too small for an object, 3.85% of the labels" in " ".join(out.split())
    assert len(json.loads((tmp_path / "x.json").read_text())["annotations"]) == 1
    assert VOCABULARY.names[SLIVER] in (tmp_path / "x.json").read_text()  # the class stays in the table
