from pathlib import Path

import numpy as np
import pytest

from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.lists import Words, class_list, templates
from patchword.evaluation.benchmarks.record import BENCHMARKS, find_benchmark

_PLACES = [folder / "shared" / "photos" for folder in Path(__file__).resolve().parents]
PHOTOS = next((place for place in _PLACES if place.is_dir()), None)  # photographs that developers have beside the code
COUNTS = {
    "voc21": 21, "voc20": 20, "context60": 60, "context59": 59, "coco-object": 81, "coco-stuff": 171, "ade20k": 150,
    "cityscapes": 19,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_benchmark_has_its_count_of_classes(name: str, count: int):
    benchmark = BENCHMARKS[name]
    assert benchmark.class_count == count
    vocabulary = benchmark.vocabulary()
    assert len(vocabulary) == count - benchmark.scores_background
    assert bool(vocabulary.background) == benchmark.scores_background
    assert Vocabulary.parse(vocabulary.to_text()) == vocabulary, "a report holds the text"


def test_there_are_the_eight():
    assert set(BENCHMARKS) == set(COUNTS)


def test_background_words_are_the_protocols():
    voc, objects = class_list("voc"), class_list("coco_object")
    assert len(voc.background) == 26
    assert len(objects.background) == 17
    assert class_list("context").background == ("background",)
    assert "bed" in objects.background
    assert "bed" in objects.names
    assert objects.shared == ("bed",)


PERSONS = ("person", "person in shirt", "person in jeans", "person in dress", "person in sweater", "person in skirt",
           "person in jacket")  # fmt: skip
SCREENS = ("television monitor", "tv monitor", "monitor", "television", "screen")


@pytest.mark.parametrize("author", ["sclip", "naclip"])
def test_words_of_sclip_and_naclip(author: Words):
    """As their repositories' configs/cls_voc21.txt and cls_coco_object.txt have them."""
    voc, objects = class_list("voc", words=author), class_list("coco_object", words=author)
    assert voc.classes[14].words == PERSONS
    assert voc.classes[19].words == SCREENS
    assert objects.classes[0].words == (*PERSONS, "body")
    assert len(voc.background) == len(objects.background) == 26
    assert voc.background == objects.background == class_list("voc").background


def test_words_of_clearclip():
    for name in ("voc", "coco_object"):
        vocabulary = class_list(name, words="clearclip")
        assert vocabulary.background == ("background",)
        assert vocabulary.names == class_list(name).names


@pytest.mark.parametrize("author", ["sclip", "naclip", "clearclip"])
@pytest.mark.parametrize("name", ["voc", "coco_object", "context", "coco_stuff", "ade20k", "cityscapes"])
def test_every_authors_classes_have_one_order(name: str, author: Words):
    ours, theirs = class_list(name), class_list(name, words=author)
    assert len(ours) == len(theirs)
    differ = [mine.name for mine, its in zip(ours.classes, theirs.classes, strict=True) if mine.words != its.words]
    assert set(differ) <= {"person", "tvmonitor"}
    assert Vocabulary.parse(theirs.to_text()) == theirs


def test_things_are_the_same_in_both_coco_benchmarks():
    objects = [name.replace(" ", "") for name in class_list("coco_object").names]
    assert objects == list(class_list("coco_stuff").names[:80])


def test_context_is_alphabetical():
    names = class_list("context").names
    assert list(names) == sorted(names)


def test_background_can_do_without_words():
    assert BENCHMARKS["coco-object"].vocabulary(background=False).background == ()


def test_templates():
    assert templates(7) == DEFAULT_TEMPLATES
    eighty = templates(80)
    assert len(set(eighty)) == 80
    assert all(template.count("{}") == 1 for template in eighty)
    assert set(DEFAULT_TEMPLATES) <= set(eighty)


@pytest.mark.parametrize("name", ["COCO_Object", " coco-object"])
def test_names_are_read_as_people_write_them(name: str):
    assert find_benchmark(name) is BENCHMARKS["coco-object"]


def test_an_unknown_benchmark_names_the_known_ones():
    with pytest.raises(PatchwordError, match=r"unknown benchmark 'kitti' \(choose from voc21, context60"):
        find_benchmark("kitti")


@pytest.mark.skipif(PHOTOS is None, reason="needs the photographs that developers have beside the code")
@pytest.mark.parametrize(
    ("name", "folder", "images", "classes"),
    [
        ("voc21", "VOC2012", 48, 21),
        ("voc20", "VOC2012", 48, 20),
        ("coco-stuff", "coco_stuff164k", 36, 115),
        ("coco-object", "coco_stuff164k", 36, 50),
    ],
)
def test_real_photographs_are_read_as_they_lie(name: str, folder: str, images: int, classes: int):
    opened = BENCHMARKS[name].open(Path(str(PHOTOS)) / folder)
    assert len(opened.pairs) == images
    present = {int(value) for pair in opened.pairs for value in np.unique(opened.truth.read_truth(pair))}
    assert len(present - {-1}) == classes
