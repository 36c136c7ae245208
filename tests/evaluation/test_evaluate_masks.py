"""What mask values mean under each rule, and which mask belongs to which photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from patchword.config.evaluate import ZeroIs
from patchword.data.masks import LabelMap, read_indices
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.masks import MaskRule, Pair, find_pairs

THREE = Vocabulary.of(["cat", "dog", "sofa"], background=["sky", "wall"])


def write_mask(path: Path, values: list[list[int]], *, bits: int = 8, indexed: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=np.uint8 if bits == 8 else np.uint16))
    if bits == 8 and indexed:
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(path)
    return path


def pair_of(mask: Path) -> Pair:
    return Pair("a.jpg", mask, mask)


def write_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path)
    return path


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("zero_is", "stored", "expected", "names"),
    [
        ("class", [0, 1, 2, 255], [0, 1, 2, -1], ("cat", "dog", "sofa")),
        ("background", [0, 1, 3, 255], [0, 1, 3, -1], ("background", "cat", "dog", "sofa")),
        ("ignore", [0, 1, 3, 255], [-1, 0, 2, -1], ("cat", "dog", "sofa")),
    ],
)
def test_truth(
    tmp_path: Path, zero_is: ZeroIs, stored: list[int], expected: list[int], names: tuple[str, ...], indexed: bool
) -> None:
    rule = MaskRule(THREE, zero_is=zero_is)
    truth = rule.read_truth(pair_of(write_mask(tmp_path / "a.png", [stored], indexed=indexed)))
    assert truth.tolist() == [expected]
    assert rule.names == names


@pytest.mark.parametrize(
    ("zero_is", "expected"), [("class", [0, 2, -1]), ("background", [1, 3, 0]), ("ignore", [0, 2, -1])]
)
def test_prediction(zero_is: ZeroIs, expected: list[int]) -> None:
    predicted: NDArray[np.uint8] = np.array([[0, 2, 255]], dtype=np.uint8)
    rule = MaskRule(THREE, zero_is=zero_is)
    assert rule.prediction(LabelMap(predicted, THREE.names)).tolist() == [expected]


@pytest.mark.parametrize(("zero_is", "expected"), [("class", -1), ("background", 0), ("ignore", -1)])
def test_a_class_after_the_last_is_background(zero_is: ZeroIs, expected: int) -> None:
    predicted = LabelMap(np.array([[3]], dtype=np.uint8), (*THREE.names, "background"))
    assert MaskRule(THREE, zero_is=zero_is).prediction(predicted).tolist() == [[expected]]


def test_a_perfect_prediction_equals_the_truth_under_every_rule(tmp_path: Path) -> None:
    for zero_is, stored in (("class", [0, 1, 2]), ("background", [1, 2, 3]), ("ignore", [1, 2, 3])):
        rule = MaskRule(THREE, zero_is=zero_is)
        truth = rule.read_truth(pair_of(write_mask(tmp_path / "a.png", [stored])))
        predicted = rule.prediction(LabelMap(np.array([[0, 1, 2]]), THREE.names))
        np.testing.assert_array_equal(truth, predicted)


def test_sixteen_bit_masks_hold_many_classes_and_ignore_65535(tmp_path: Path) -> None:
    many = Vocabulary.of([f"thing {number}" for number in range(500)])
    truth = MaskRule(many).read_truth(pair_of(write_mask(tmp_path / "a.png", [[0, 255, 499, 65535]], bits=16)))
    assert truth.tolist() == [[0, 255, 499, -1]]


@pytest.mark.parametrize(("zero_is", "count"), [("class", 256), ("background", 255), ("ignore", 255)])
def test_a_value_that_is_a_class_and_ignore_as_well_is_refused(tmp_path: Path, zero_is: ZeroIs, count: int) -> None:
    mask = pair_of(write_mask(tmp_path / "a.png", [[1, 255]]))
    many = [f"thing {number}" for number in range(count)]
    with pytest.raises(PatchwordError, match=r"value 255, which is a class .* 16-bit masks"):
        MaskRule(Vocabulary.of(many), zero_is=zero_is).read_truth(mask)
    assert MaskRule(Vocabulary.of(many[1:]), zero_is=zero_is).read_truth(mask)[0, 1] == -1
    named = MaskRule(Vocabulary.of(many), zero_is=zero_is, ignore_index=300)
    assert named.read_truth(mask)[0, 1] == 255 - (zero_is == "ignore")


def test_another_ignore_index(tmp_path: Path) -> None:
    rule = MaskRule(THREE, ignore_index=9)
    assert rule.read_truth(pair_of(write_mask(tmp_path / "a.png", [[0, 9]]))).tolist() == [[0, -1]]
    with pytest.raises(PatchwordError, match="255"):
        rule.read_truth(pair_of(write_mask(tmp_path / "a.png", [[0, 255]])))


@pytest.mark.parametrize(("zero_is", "value"), [("class", 3), ("background", 4), ("ignore", 4)])
def test_a_value_outside_the_class_list_is_named_with_its_file(tmp_path: Path, zero_is: ZeroIs, value: int) -> None:
    path = write_mask(tmp_path / "a.png", [[0, value]])
    with pytest.raises(
        PatchwordError, match=rf"a\.png has the value {value} \(1 pixel\); 3 classes .* 0 to {value - 1},"
    ):
        MaskRule(THREE, zero_is=zero_is).read_truth(pair_of(path))


def test_masks_that_are_no_index_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("rgb.png", "text.png"):
        with pytest.raises(PatchwordError, match=name):
            MaskRule(THREE).read_truth(pair_of(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_index": 2}, "ignore index is 2; .* 3 to 65535"),
        ({"ignore_index": 3, "zero_is": "ignore"}, "4 to 65535"),
        ({"ignore_index": 70000}, "70000"),
    ],
)
def test_wrong_rules(options: dict[str, object], message: str) -> None:
    with pytest.raises(PatchwordError, match=message):
        MaskRule(THREE, **options)


def test_background_twice() -> None:
    with pytest.raises(PatchwordError, match="'background'"):
        MaskRule(Vocabulary.of(["background", "cat"]), zero_is="background")


def test_background_words_take_part_only_where_background_is_scored() -> None:
    assert MaskRule(THREE, zero_is="background").vocabulary.background == ("sky", "wall")
    assert MaskRule(THREE, zero_is="class").vocabulary.background == ()
    assert MaskRule(THREE, zero_is="ignore").vocabulary.background == ()


def test_pairs_by_either_name(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/a/one.jpg")
    write_photo(tmp_path / "photos/two.v2.jpg")
    first = write_mask(tmp_path / "masks/a/one.jpg.png", [[0]])
    second = write_mask(tmp_path / "masks/two.v2.png", [[0]])
    pairs = find_pairs(tmp_path / "photos", masks=tmp_path / "masks")
    assert [(pair.name, pair.mask) for pair in pairs] == [("a/one.jpg", first), ("two.v2.jpg", second)]


def test_masks_with_a_suffix(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/a/one.v2.jpg")
    mask = write_mask(tmp_path / "masks/a/one.v2_ids.png", [[0]])
    with pytest.raises(PatchwordError, match="another suffix"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks")
    assert [pair.mask for pair in find_pairs(tmp_path / "photos", masks=tmp_path / "masks", suffix="_ids")] == [mask]


def test_one_photograph(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photos/one.jpg")
    write_photo(tmp_path / "photos/two.jpg")
    mask = write_mask(tmp_path / "masks/one.png", [[0]])
    assert [pair.mask for pair in find_pairs(photo, masks=tmp_path / "masks")] == [mask]


def test_a_list_of_names_takes_only_some(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_photo(tmp_path / f"photos/{name}.jpg")
    for name in ("one", "two"):
        write_mask(tmp_path / f"masks/{name}.png", [[0]])
    with pytest.raises(PatchwordError, match=r"1 of 3 photographs have no mask in .*, such as three\.jpg"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks")
    names = tmp_path / "val.txt"
    names.write_text("two\n\none.jpg\n")
    pairs = find_pairs(tmp_path / "photos", masks=tmp_path / "masks", names=names)
    assert [pair.name for pair in pairs] == ["one.jpg", "two.jpg"]
    limited = find_pairs(tmp_path / "photos", masks=tmp_path / "masks", names=names, limit=1)
    assert [pair.name for pair in limited] == ["one.jpg"]


def test_a_mask_of_two_photographs_is_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/one.jpg")
    write_photo(tmp_path / "photos/one.png")
    write_mask(tmp_path / "masks/one.png", [[0]])
    with pytest.raises(
        PatchwordError, match=r"one\.png may be of one\.jpg or of one\.png; name it after one of them, their ending"
    ):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks")
    own = write_mask(tmp_path / "masks/one.png.png", [[0]])
    assert [pair.mask for pair in find_pairs(tmp_path / "photos", masks=tmp_path / "masks")] == [
        own.with_name("one.png"),
        own,
    ]


def test_wrong_names_and_folders(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/one.jpg")
    write_mask(tmp_path / "masks/one.png", [[0]])
    names = tmp_path / "val.txt"
    names.write_text("one\nseven\n")
    with pytest.raises(PatchwordError, match=r"val\.txt names a photograph that is not there, such as seven"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks", names=names)
    names.write_text("\n")
    with pytest.raises(PatchwordError, match=r"val\.txt is empty"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks", names=names)
    with pytest.raises(PatchwordError, match=r"absent\.txt"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "masks", names=tmp_path / "absent.txt")
    with pytest.raises(PatchwordError, match="no such folder of masks"):
        find_pairs(tmp_path / "photos", masks=tmp_path / "nowhere")
    with pytest.raises(PatchwordError, match="nowhere"):
        find_pairs(tmp_path / "nowhere", masks=tmp_path / "masks")


def test_grey_with_alpha_and_one_bit_are_read_where_values_are_plain(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [1, 1, 255]], dtype=np.uint8)
    grey = Image.fromarray(values)
    grey.convert("LA").save(tmp_path / "alpha.png")
    Image.fromarray(values == 1).save(tmp_path / "bit.png")
    assert read_indices(tmp_path / "alpha.png").tolist() == values.tolist()
    assert read_indices(tmp_path / "bit.png").tolist() == (values == 1).astype(int).tolist()
    hidden = Image.merge("LA", (grey, Image.fromarray(np.where(values == 2, 0, 255).astype(np.uint8))))
    hidden.save(tmp_path / "hidden.png")
    with pytest.raises(PatchwordError, match=r"hidden\.png has an alpha channel that hides 1 pixels"):
        read_indices(tmp_path / "hidden.png")


def test_masks_in_colour_are_refused_with_the_way_out(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=np.uint8)
    Image.fromarray(palette[[[0, 1, 1], [1, 2, 1]]]).save(tmp_path / "voc.png")
    with pytest.raises(PatchwordError, match=r"3 colours, most often \(128, 0, 0\); write each colour as the number"):
        read_indices(tmp_path / "voc.png")
    Image.fromarray(np.full((2, 3, 3), 7, dtype=np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(PatchwordError, match="all its channels are equal, so save it as greyscale"):
        read_indices(tmp_path / "grey.png")
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(PatchwordError, match="more colours than classes"):
        read_indices(tmp_path / "photo.png")


@pytest.mark.parametrize("name", ["ADE_train_00000001_seg.png", "renamed.png"])
def test_full_annotations_of_ade20k_are_recognised(name: str, tmp_path: Path) -> None:
    """Class 2978 and class 312 as ADE20K stores them: red class // 256 * 10, green class % 256, blue the object."""
    classes, objects = np.array([[2978, 312], [312, 312]]), np.array([[1, 2], [2, 3]])
    full = np.stack([classes // 256 * 10, classes % 256, objects], axis=-1).astype(np.uint8)
    Image.fromarray(full).save(tmp_path / name)
    with pytest.raises(PatchwordError, match=r"full annotation of ADE20K .* 150 classes .* --zero-is ignore"):
        read_indices(tmp_path / name)


def test_values_beyond_the_classes_are_said_with_their_counts(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "a.png", [[0, 7, 7, 7], [9, 1, 255, 9]])
    with pytest.raises(PatchwordError, match=r"has the values 7 \(3 pixels\), 9 \(2 pixels\); 3 classes with zero as"):
        MaskRule(THREE).read_truth(pair_of(mask))


def test_masks_that_count_from_one_are_told_how_to_be_read(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "a.png", [[0, 1, 2, 3]])
    with pytest.raises(PatchwordError, match=r"the value 3 \(1 pixel\); .*--zero-is"):
        MaskRule(THREE).read_truth(pair_of(mask))
