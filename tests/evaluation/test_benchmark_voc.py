from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import make_split, make_voc, save_photo, write_list
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS

# Values 1 to 20 of the official masks, from the devkit's documentation.
OFFICIAL = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
PROMPTED = {"boat": "ship", "diningtable": "table"}  # words that the protocol asks for instead


def test_every_mask_value_is_the_official_class(tmp_path: Path):
    opened = BENCHMARKS["voc21"].open(make_voc(tmp_path / "VOC2012"))
    truth = opened.truth.read_truth(opened.pairs[0])[0]
    assert opened.truth.names == ("background", *(PROMPTED.get(name, name) for name in OFFICIAL))
    assert truth.tolist() == [*range(21), -1]
    assert truth.dtype == np.int64


def test_without_background_its_pixels_do_not_count(tmp_path: Path):
    opened = BENCHMARKS["voc20"].open(make_voc(tmp_path / "VOC2012"))
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [-1, *range(20), -1]
    assert opened.truth.read_truth(opened.pairs[1]).tolist() == [[-1, -1], [14, -1]]
    assert opened.truth.vocabulary.background == ()
    assert opened.truth.names[14] == "person"


def test_the_list_says_which_photographs(tmp_path: Path):
    opened = BENCHMARKS["voc21"].open(make_voc(tmp_path / "VOC2012"))
    assert [pair.name for pair in opened.pairs] == ["2007_000033.jpg", "2007_000042.jpg"]
    assert opened.split == "ImageSets/Segmentation/val.txt"


def test_without_a_list_the_masks_do_and_the_report_can_say_so(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012", listed=False)
    save_photo(root / "JPEGImages" / "2009_000001.jpg", (3, 4))
    opened = BENCHMARKS["voc21"].open(root)
    assert [pair.photo.stem for pair in opened.pairs] == ["2007_000032", "2007_000033", "2007_000042"]
    assert "no ImageSets/Segmentation/val.txt" in opened.split


@pytest.mark.parametrize("below", ["", "VOC2012", "VOCdevkit/VOC2012", "data/VOCdevkit/VOC2012"])
@pytest.mark.parametrize("name", ["voc20", "voc21"])
def test_the_devkit_is_found_from_above(tmp_path: Path, below: str, name: str):
    root = make_voc(tmp_path / "downloads" / below)
    opened = BENCHMARKS[name].open(tmp_path / "downloads")
    assert opened.root.resolve() == root.resolve()
    assert len(opened.pairs) == 2


@pytest.mark.parametrize("inner", ["JPEGImages", "SegmentationClass", "ImageSets"])
def test_the_devkit_is_found_from_a_folder_inside_it(tmp_path: Path, inner: str):
    root = make_voc(tmp_path / "VOC2012")
    assert BENCHMARKS["voc21"].open(root / inner).root == root


def test_two_devkits_beside_each_other_are_ambiguous(tmp_path: Path):
    for name in ("first", "second"):
        make_voc(tmp_path / name)
    with pytest.raises(PatchwordError, match=r"more than once: .*first, .*second; name one"):
        BENCHMARKS["voc21"].open(tmp_path)


def test_a_devkit_beside_the_folder_named_is_not_taken_for_it(tmp_path: Path):
    make_voc(tmp_path / "VOC2012")
    (tmp_path / "coco_stuff164k").mkdir()
    with pytest.raises(PatchwordError, match=r"voc21 is not in .*coco_stuff164k"):
        BENCHMARKS["voc21"].open(tmp_path / "coco_stuff164k")


def test_augmented_masks_serve_where_the_official_ones_are_not_there(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012", masks="SegmentationClassAug")
    assert len(BENCHMARKS["voc21"].open(root).pairs) == 2


def test_missing_masks_are_named_with_every_place_looked_at(tmp_path: Path):
    root = tmp_path / "VOC2012"
    save_photo(root / "JPEGImages" / "2007_000033.jpg", (2, 2))
    with pytest.raises(PatchwordError) as caught:
        BENCHMARKS["voc21"].open(root)
    message = str(caught.value)
    assert "lacks SegmentationClass or SegmentationClassAug (masks)" in message
    assert str(root / "JPEGImages") in message
    assert "VOCdevkit/VOC2012" in message
    assert "\n" not in message


def test_a_listed_photograph_that_is_missing_is_named(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012")
    write_list(root / "ImageSets" / "Segmentation" / "val.txt", ["2007_000033", "2011_003276"])
    with pytest.raises(PatchwordError, match=r"names 2 photographs, 1 of them are not in .*such as 2011_003276"):
        BENCHMARKS["voc21"].open(root)


def test_a_listed_mask_that_is_missing_is_named(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012")
    (root / "SegmentationClass" / "2007_000042.png").unlink()
    with pytest.raises(PatchwordError, match=r"1 of 2 photographs .* no mask; 2007_000042.jpg needs .*2007_000042.png"):
        BENCHMARKS["voc21"].open(root)


def test_an_empty_list_is_refused(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012")
    write_list(root / "ImageSets" / "Segmentation" / "val.txt", [])
    with pytest.raises(PatchwordError, match="is empty"):
        BENCHMARKS["voc21"].open(root)


def test_a_mask_in_colour_is_refused(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012")
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(root / "SegmentationClass" / "2007_000033.png")
    opened = BENCHMARKS["voc21"].open(root)
    with pytest.raises(PatchwordError, match=r"2007_000033.png is a picture of mode RGB"):
        opened.truth.read_truth(opened.pairs[0])


def test_a_broken_mask_is_refused(tmp_path: Path):
    root = make_voc(tmp_path / "VOC2012")
    path = root / "SegmentationClass" / "2007_000033.png"
    path.write_bytes(path.read_bytes()[:40])
    opened = BENCHMARKS["voc21"].open(root)
    with pytest.raises(PatchwordError, match=r"2007_000033.png"):
        opened.truth.read_truth(opened.pairs[0])


def test_a_value_that_is_no_class_is_refused(tmp_path: Path):
    root = tmp_path / "VOC2012"
    make_split(root / "JPEGImages", root / "SegmentationClass", {"2007_000033": [[0, 21]]})
    opened = BENCHMARKS["voc21"].open(root)
    with pytest.raises(PatchwordError, match=r"has the value 21 \([0-9]+ pixels?\); values must be 0 to 20, 255"):
        opened.truth.read_truth(opened.pairs[0])


def test_background_of_a_prediction_is_class_zero(tmp_path: Path):
    truth = BENCHMARKS["voc21"].open(make_voc(tmp_path / "VOC2012")).truth
    names = (*truth.vocabulary.names, "background")  # as segmenters give it: background words make one more class
    label_map = LabelMap(np.array([[0, 14], [20, 255]], dtype=np.uint8), names)
    assert truth.prediction(label_map).tolist() == [[1, 15], [0, 0]]


def test_without_background_in_the_score_no_prediction_is_none(tmp_path: Path):
    truth = BENCHMARKS["voc20"].open(make_voc(tmp_path / "VOC2012")).truth
    label_map = LabelMap(np.array([[0, 19, 255]], dtype=np.uint8), truth.vocabulary.names)
    assert truth.prediction(label_map).tolist() == [[0, 19, -1]]


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(PatchwordError, match="no such folder of voc21"):
        BENCHMARKS["voc21"].open(tmp_path / "nowhere")
