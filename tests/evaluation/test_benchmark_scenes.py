"""ADE20K and Cityscapes."""

from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import every_value, make_split, save_mask, save_photo
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.layout import BenchmarkTruth
from patchword.evaluation.benchmarks.record import BENCHMARKS
from patchword.evaluation.masks import Pair

# The ids of Cityscapes' labels that are scored, by name, and some that are not.
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "trafficlight": 19,
    "trafficsign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
NOT_SCORED = {
    "unlabeled": 0, "ego vehicle": 1, "rectification border": 2, "out of roi": 3, "static": 4, "dynamic": 5,
    "ground": 6, "parking": 9, "rail track": 10, "guard rail": 14, "bridge": 15, "tunnel": 16, "polegroup": 18,
    "caravan": 29, "trailer": 30,
}  # fmt: skip


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016", "ade/ADEChallengeData2016"])
def test_ade20k_counts_from_one_and_zero_does_not_count(tmp_path: Path, below: str):
    root = tmp_path / below
    name = "ADE_val_00000001"
    make_split(root / "images/validation", root / "annotations/validation", {name: every_value(0, 150, more=())})
    opened = BENCHMARKS["ade20k"].open(tmp_path)
    assert [pair.name for pair in opened.pairs] == ["ADE_val_00000001.jpg"]
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [-1, *range(150)]
    assert opened.truth.names[:3] == ("wall", "building", "sky")
    assert opened.truth.names[-1] == "flag"


def test_what_a_mac_leaves_in_archives_is_no_photograph(tmp_path: Path):
    make_split(tmp_path / "images/validation", tmp_path / "annotations/validation", {"ADE_val_00000001": [[1]]})
    (tmp_path / "images/validation/._ADE_val_00000001.jpg").write_bytes(b"resource fork")
    assert len(BENCHMARKS["ade20k"].open(tmp_path).pairs) == 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_values_of_any_integer_type_are_read(kind: type[np.integer]):
    values: list[NDArray[np.integer]] = [np.array([[0, 1, 4]], dtype=kind), np.array([[0, 5]], dtype=kind)]
    truth = BenchmarkTruth(
        BENCHMARKS["voc20"].vocabulary(), values=lambda pair: values.pop(0), meaning={0: -2, 1: 7, 4: -1}
    )
    pair = Pair("a.jpg", Path("a.jpg"), Path("a.png"))
    assert truth.read_truth(pair).tolist() == [[-1, 7, -1]]
    with pytest.raises(PatchwordError, match=r"a.png of a.jpg has the value 5 \(1 pixel\); values must be 0 to 1, 4"):
        truth.read_truth(pair)


@pytest.mark.parametrize("value", [-1, 70000])
def test_values_that_no_mask_has_are_refused(value: int):
    values = np.array([[value]], dtype=np.int64)
    truth = BenchmarkTruth(BENCHMARKS["voc20"].vocabulary(), values=lambda pair: values, meaning={0: -2})
    with pytest.raises(PatchwordError, match=f"has the value {value}"):
        truth.read_truth(Pair("a.jpg", Path("a.jpg"), Path("a.png")))


def test_ade20k_converted_to_count_from_zero(tmp_path: Path):
    masks = tmp_path / "annotations_detectron2/validation"
    make_split(tmp_path / "images/validation", masks, {"ADE_val_00000001": every_value(0, 149)})
    opened = BENCHMARKS["ade20k"].open(tmp_path)
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [*range(150), -1]


def test_ade20k_with_a_mask_missing(tmp_path: Path):
    make_split(tmp_path / "images/validation", tmp_path / "annotations/validation", {"ADE_val_00000001": [[1]]})
    save_photo(tmp_path / "images/validation/ADE_val_00000002.jpg", (1, 1))
    with pytest.raises(PatchwordError, match=r"1 of 2 photographs .* no mask; ADE_val_00000002.jpg needs"):
        BENCHMARKS["ade20k"].open(tmp_path)


def make_cityscapes(root: Path, suffix: str, values: object) -> Path:
    for city, name in (("frankfurt", "frankfurt_000000_000294"), ("munster", "munster_000000_000019")):
        make_split(
            root / "leftImg8bit/val" / city,
            root / "gtFine/val" / city,
            {name: values},
            photo_suffix="_leftImg8bit.png",
            suffix=f"_gtFine_{suffix}.png",
        )
    return root


def test_cityscapes_label_ids(tmp_path: Path):
    ids = {**CITYSCAPES, **NOT_SCORED}
    opened = BENCHMARKS["cityscapes"].open(make_cityscapes(tmp_path, "labelIds", [[*ids.values(), 255]]))
    assert sorted(ids.values()) == list(range(34))
    assert [pair.name for pair in opened.pairs] == [
        "frankfurt/frankfurt_000000_000294_leftImg8bit.png",
        "munster/munster_000000_000019_leftImg8bit.png",
    ]
    for pair in opened.pairs:
        truth = opened.truth.read_truth(pair)[0].tolist()
        assert [None if value < 0 else opened.truth.names[value] for value in truth] == [
            *CITYSCAPES,
            *[None] * (len(NOT_SCORED) + 1),
        ]


def test_cityscapes_train_ids(tmp_path: Path):
    opened = BENCHMARKS["cityscapes"].open(
        make_cityscapes(tmp_path / "cityscapes", "labelTrainIds", every_value(0, 18))
    )
    assert opened.truth.read_truth(opened.pairs[0])[0].tolist() == [*range(19), -1]
    assert opened.truth.names == tuple(CITYSCAPES)


def test_cityscapes_takes_train_ids_where_both_are_there(tmp_path: Path):
    make_cityscapes(tmp_path, "labelIds", [[7, 7]])
    make_cityscapes(tmp_path, "labelTrainIds", [[18, 18]])
    opened = BENCHMARKS["cityscapes"].open(tmp_path)
    assert opened.truth.read_truth(opened.pairs[0]).tolist() == [[18, 18]]


def test_cityscapes_without_its_masks(tmp_path: Path):
    save_photo(tmp_path / "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png", (2, 2))
    with pytest.raises(PatchwordError, match=r"it lacks one of: gtFine/val or .*_gtFine_labelIds.png"):
        BENCHMARKS["cityscapes"].open(tmp_path)


def test_instance_ids_are_no_labels(tmp_path: Path):
    make_cityscapes(tmp_path, "labelIds", [[7, 7]])
    mask = tmp_path / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png"
    save_mask(mask, [[7, 34]])
    opened = BENCHMARKS["cityscapes"].open(tmp_path)
    with pytest.raises(PatchwordError, match=r"has the value 34 \([0-9]+ pixels?\); values must be 0 to 33, 255"):
        opened.truth.read_truth(opened.pairs[0])
