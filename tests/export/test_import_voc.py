"""VOC folders as CVAT and others write them: which class a colour or a value is must be known."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import box, save_photo, truth
from PIL import Image

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.importers import import_labels
from patchword.labeling.dataset import LabelledDataset
from small_world import must, run

FIRST, SECOND = box(10, 10, 30, 30), box(40, 30, 60, 50)
YELLOW, PINK = (0, 215, 255), (255, 0, 204)
TWO = np.where(FIRST, 0, np.where(SECOND, 1, 255))


def coloured() -> Image.Image:
    colours = np.zeros((60, 80, 3), dtype=np.uint8)
    colours[FIRST], colours[SECOND] = YELLOW, PINK
    return Image.fromarray(colours)


def make(folder: Path, table: str | None, mask: Image.Image | None = None, *, names: tuple[str, ...] = ("a",)) -> Path:
    source = folder / "voc"
    (source / "SegmentationClass").mkdir(parents=True)
    for name in names:
        save_photo(folder / "photos" / f"{name}.jpg")
        (mask or coloured()).save(source / "SegmentationClass" / f"{name}.png")
    if table is not None:
        (source / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{table}", encoding="utf-8")
    return source


def bring(source: Path, *, classes: list[str], **settings: Any) -> LabelledDataset:
    photos, out = source.parent / "photos", source.parent / "out"
    return import_labels(
        source, format="voc", photos=photos, vocabulary=Vocabulary.of(classes), out=out, settings=settings, quiet=True
    )


@pytest.mark.parametrize(
    ("table", "classes"),
    [
        ("Background:0,215,255::\nBone:255,0,204::\nbackground:0,0,0::\n", ["Background", "Bone"]),
        ("background:0,0,0::\nBackground:0,215,255::\nBone:255,0,204::\n", ["Background", "Bone"]),
        ("cat:0,215,255::\ndog:255,0,204::\nbackground:0,0,0::\n", ["cat", "dog"]),
    ],
)
def test_the_background_that_cvat_adds_is_no_class(tmp_path: Path, table: str, classes: list[str]) -> None:
    np.testing.assert_array_equal(truth(bring(make(tmp_path, table), classes=classes))["a.jpg"], TWO)


def test_black_background_is_a_class_where_the_table_has_no_other_row_for_it(tmp_path: Path) -> None:
    table = "background:0,0,0::\ncat:0,215,255::\ndog:255,0,204::\n"
    found = truth(bring(make(tmp_path, table), classes=["cat", "dog", "background"]))["a.jpg"]
    np.testing.assert_array_equal(found, np.where(TWO == 255, 2, TWO))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("cat:0,215,255::\ndog:0,215,255::\n", "'cat' and 'dog' both have the colour 0,215,255"),
        ("cat:0,215,300::\n", "cat has the colour '0,215,300'; write red,green,blue, each 0 to 255"),
        ("cat\n", "cat has the colour ''"),
        ("cat:0,215,-1::\n", "cat has the colour '0,215,-1'"),
        ("cow:0,215,255::\n", "'cow'"),
        (None, "so nothing says which class a value is"),
    ],
)
def test_tables_that_leave_a_doubt_are_refused(tmp_path: Path, table: str | None, told: str) -> None:
    with pytest.raises(PatchwordError, match=told):
        bring(make(tmp_path, table), classes=["cat", "dog"])
    assert not (tmp_path / "out").exists()


def test_a_class_of_the_colour_that_often_means_ignore_is_kept(tmp_path: Path) -> None:
    mask = Image.new("RGB", (80, 60), (224, 224, 192))
    back = bring(make(tmp_path, "cat:224,224,192::\n", mask), classes=["cat"])
    assert (truth(back)["a.jpg"] == 0).all()


def test_a_grey_mask_that_may_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    mask = Image.fromarray(np.where(FIRST, 255, 0).astype(np.uint8))
    with pytest.raises(PatchwordError, match=r"is grey, and its values may be colours .* or numbers of its rows"):
        bring(make(tmp_path, "background:0,0,0::\ncat:255,255,255::\n", mask), classes=["cat"])
    rows = Image.fromarray(FIRST.astype(np.uint8))
    back = bring(make(tmp_path / "rows", "background:0,0,0::\ncat:128,0,0::\n", rows), classes=["cat"])
    np.testing.assert_array_equal(truth(back)["a.jpg"], np.where(FIRST, 0, 255))


def test_what_lists_and_masks_do_not_share_is_said(tmp_path: Path) -> None:
    source = make(tmp_path, "cat:0,215,255::\ndog:255,0,204::\nbackground:0,0,0::\n", names=("a", "b", "c"))
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("a\ngone\nb\n", encoding="utf-8")
    (source / "SegmentationClass" / "b.png").unlink()
    back = bring(source, classes=["cat", "dog"])
    assert list(truth(back)) == ["a.jpg"]
    told = {record.name: record.reason or "" for record in back.failed}
    assert list(told) == ["b", "gone"]
    assert "lists 'b' and has no mask SegmentationClass/b.png" in told["b"]
    assert "photograph 'gone' is not in" in told["gone"]
    assert back.counts.left_out == {"mask that no list in ImageSets/Segmentation names": 1}


def test_a_mask_of_the_stored_pixels_of_a_turned_photograph_fails_with_the_reason(tmp_path: Path) -> None:
    source = make(tmp_path, "cat:0,215,255::\ndog:255,0,204::\nbackground:0,0,0::\n")
    save_photo(tmp_path / "photos" / "a.jpg", orientation=8)
    with pytest.raises(
        PatchwordError, match="80 x 60 pixels, the photograph is 60 x 80; its pixels are stored as 80 x 60"
    ):
        bring(source, classes=["cat", "dog"])


@pytest.mark.parametrize("top", ["", "task_1/"])
def test_an_archive_is_read_where_it_is(tmp_path: Path, top: str) -> None:
    source = make(tmp_path, "cat:0,215,255::\ndog:255,0,204::\nbackground:0,0,0::\n")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in source.rglob("*.*"):
            archive.write(path, top + path.relative_to(source).as_posix())
        archive.writestr("../outside.txt", "nothing")
        archive.writestr("__MACOSX/SegmentationClass/._a.png", "nothing")
        archive.writestr(f"{top}SegmentationClass/../../b.png", "nothing")
    shutil.rmtree(source)
    back = bring(tmp_path / "x.zip", classes=["cat", "dog"])
    np.testing.assert_array_equal(truth(back)["a.jpg"], TWO)
    assert [record.name for record in back.failed] == ["../../b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos", "x.zip"]


def test_archives_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg")
    for name, members in {"two.zip": ("x/", "y/"), "none.zip": ()}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for top in members:
                archive.writestr(f"{top}SegmentationClass/a.png", "")
    with pytest.raises(PatchwordError, match="more than one folder SegmentationClass"):
        bring(tmp_path / "two.zip", classes=["cat"])
    with pytest.raises(PatchwordError, match=r"none\.zip is not a VOC folder"):
        bring(tmp_path / "none.zip", classes=["cat"])
    with pytest.raises(PatchwordError, match=r"none\.zip is an archive; unpack it and name the \.json file"):
        import_labels(
            tmp_path / "none.zip",
            format="coco",
            photos=tmp_path / "photos",
            vocabulary=Vocabulary.of(["cat"]),
            out=tmp_path / "out",
        )


def test_the_command_says_what_was_left_out_and_ends_with_1(tmp_path: Path) -> None:
    source = make(tmp_path, "cat:0,215,255::\ndog:255,0,204::\nbackground:0,0,0::\n", names=("a", "b"))
    command = ["import", source, "--format", "voc", "--photos", tmp_path / "photos", "--classes", "cat, dog", "-q"]
    whole = must(run(*command, "-o", tmp_path / "whole", "--json"))
    assert json.loads(whole.out)["left_out"] == {}
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("a\n", encoding="utf-8")
    trouble = "mask that no list in ImageSets/Segmentation names"
    said = must(run(*command, "-o", tmp_path / "part"), code=1)
    assert f"left out: 1 x {trouble}" in said.out.splitlines()
    assert said.complaint == "patchword: 1 of the labels could not be used and was left out"
    told = must(run(*command, "-o", tmp_path / "told", "--json"), code=1)
    assert json.loads(told.out)["left_out"] == {trouble: 1}
    assert json.loads((tmp_path / "told" / "dataset.json").read_bytes())["counts"]["left_out"] == {trouble: 1}


def test_the_command_takes_settings(tmp_path: Path) -> None:
    source = make(tmp_path, None, Image.fromarray(FIRST.astype(np.uint8)))
    command = ["import", source, "--format", "voc", "--photos", tmp_path / "photos", "--classes", "cat", "-q"]
    assert "--set values=positions" in must(run(*command, "-o", tmp_path / "out"), code=2).complaint
    must(run(*command, "-o", tmp_path / "out", "--set", "values=positions"))
    np.testing.assert_array_equal(truth(LabelledDataset.open(tmp_path / "out"))["a.jpg"], np.where(FIRST, 0, 255))
