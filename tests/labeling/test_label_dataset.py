"""Opening a folder of labels, and every way in which it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_fakes import ColourClip, RegionSam, picture
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder

VOCABULARY = Vocabulary.of(["red; crimson", "blue"], background=["white"])


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(picture([["red", "blue", "blue"]], scale=16)).save(photos / name)
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=VOCABULARY)
    settings = LabelSettings(peaks=2)
    out = tmp_path / "labels"
    label_folder(find_images(photos), root=photos, out=out, parts=parts, settings=settings, quiet=True)
    return out


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_open_gives_back_what_went_in(labels: Path) -> None:
    dataset = LabelledDataset.open(labels)
    assert dataset.vocabulary == VOCABULARY
    assert dataset.settings == LabelSettings(peaks=2)
    assert dataset.image_text == ColourClip().record
    assert dataset.mask_generator == RegionSam().record
    assert [item.image.read_bytes()[:4] for item in dataset.items] == [b"\x89PNG"] * 2
    assert all(item.label_map.is_file() for item in dataset.items)
    assert len(dataset) == 2


def test_data_set_and_photographs_may_move_together(labels: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("labels", "photos"):
        (tmp_path / name).rename(elsewhere / name)
    assert all(item.image.is_file() for item in LabelledDataset.open(elsewhere / "labels").items)


def test_photographs_that_moved_alone_are_named(labels: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(PatchwordError, match=r"photographs.*2 of 2.*a\.png.*photos="):
        LabelledDataset.open(labels)
    dataset = LabelledDataset.open(labels, photos=tmp_path / "moved")
    assert dataset.items[0].image == tmp_path / "moved" / "a.png"
    (tmp_path / "moved" / "b.png").unlink()
    with pytest.raises(PatchwordError, match=r"1 of 2.*b\.png"):
        LabelledDataset.open(labels, photos=tmp_path / "moved")


def test_missing_and_foreign_folders(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="no such folder"):
        LabelledDataset.open(tmp_path / "nowhere")
    with pytest.raises(PatchwordError, match=r"not a label folder.*dataset\.json"):
        LabelledDataset.open(tmp_path / "photos")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the record of a label folder"),
        ({"format_version": 1}, "format 1, which this patchword no longer reads .it reads 2.: label again"),
        ({"format_version": 3}, "made by a newer patchword .format 3, this one reads 2.: upgrade"),
        ({"complete": False}, "did not finish"),
        ({"counts": 3}, "damaged at `counts`"),
        ({"settings": {"overlap": 7}}, "overlap"),
        ({"surprise": 1}, "damaged at `surprise`"),
    ],
)
def test_a_changed_record_is_refused(labels: Path, changes: dict[str, Any], message: str) -> None:
    change(labels / "dataset.json", **changes)
    with pytest.raises(PatchwordError, match=message) as caught:
        LabelledDataset.open(labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_damaged_record_is_refused(labels: Path, text: str) -> None:
    (labels / "dataset.json").write_text(text)
    with pytest.raises(PatchwordError, match="damaged"):
        LabelledDataset.open(labels)


def test_damaged_parts_are_named(labels: Path) -> None:
    dataset = LabelledDataset.open(labels)
    for text in ("{", "{}", '{"segments": [{}]}', "[]"):
        dataset.items[0].segments_file.write_text(text)
        with pytest.raises(PatchwordError, match=r"a\.png\.json is damaged"):
            dataset.items[0].segments()
    dataset.items[1].label_map.unlink()
    with pytest.raises(PatchwordError, match=r"has lost 1 of its label maps.*b\.png"):
        LabelledDataset.open(labels)
    (labels / "manifest.jsonl").write_text('{"name": "a.png", "status": "odd"}\n')
    with pytest.raises(PatchwordError, match=r"a\.png.*damaged"):
        LabelledDataset.open(labels)
