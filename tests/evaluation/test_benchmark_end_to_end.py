"""Benchmarks by their protocols with a model that sees colours: red is a person, blue is sky, green is a cat."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_folders import make_split, write_list
from PIL import Image
from torch import Tensor

from patchword.config.evaluate import EvaluatedModel
from patchword.errors import PatchwordError
from patchword.evaluation.benchmark_api import ProtocolRun, evaluate_benchmark, evaluate_suite
from patchword.evaluation.benchmarks.lists import class_list, templates
from patchword.evaluation.benchmarks.record import BENCHMARKS
from patchword.evaluation.protocols import PROTOCOLS
from patchword.evaluation.suite import read_suite
from patchword.models.protocols import ModelRecord
from patchword.segmentation.dense import DenseSegmenter

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PERSON, CAT, BACKGROUND, IGNORED = 15, 8, 0, 255
PATCH = 16
WORDS = sorted({word for name in ("voc", "ade20k") for word in (*class_list(name).names, *class_list(name).background)})
PROMPTS = {template.replace("{}", word): word for template in templates(80) for word in WORDS}
DIM = len(WORDS)


class Words:
    """A text tower: every word has an axis of its own, whatever the template."""

    record = ModelRecord("clip", "words", None, "0" * 8, PATCH, DIM, (0.5,) * 3, (0.5,) * 3, 32, "")
    device = torch.device("cpu")

    def encode_text(self, prompts: list[str]) -> Tensor:
        axes = torch.tensor([WORDS.index(PROMPTS[prompt]) for prompt in prompts])
        return torch.nn.functional.one_hot(axes, DIM).float()

    def encode_images(self, images: Tensor) -> Tensor:
        raise AssertionError("no class token is asked for")

    encode_both = encode_images

    def encode_patches(self, images: Tensor) -> Tensor:
        """Red along person, green along cat, blue along sky, and the rest of the length along nothing that is asked."""
        cells = torch.nn.functional.avg_pool2d(images, PATCH)  # (b, 3, h, w)
        patches = torch.full((len(images), DIM, *cells.shape[-2:]), 1e-3)
        for channel, word in enumerate(("person", "cat", "sky")):
            patches[:, WORDS.index(word)] = cells[:, channel]
        return torch.nn.functional.normalize(patches, dim=1)


def segmenter() -> DenseSegmenter:
    return DenseSegmenter(Words(), temperature=1 / 40)  # type: ignore[arg-type]


def paint(path: Path, *columns: tuple[int, int, int]) -> None:
    """A photograph of columns of 64 x 64 pixels."""
    pixels = np.concatenate([np.full((64, 64, 3), colour, dtype=np.uint8) for colour in columns], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def truth_of(*values: int) -> np.ndarray:
    return np.concatenate([np.full((64, 64), value, dtype=np.uint8) for value in values], axis=1)


def make_voc(root: Path) -> Path:
    """A person before the sky, and a cat beside what is ignored."""
    devkit = root / "VOCdevkit" / "VOC2012"
    values = {"2007_000033": truth_of(PERSON, BACKGROUND), "2007_000042": truth_of(CAT, IGNORED)}
    make_split(devkit / "JPEGImages", devkit / "SegmentationClass", values)
    paint(devkit / "JPEGImages" / "2007_000033.jpg", RED, BLUE)
    paint(devkit / "JPEGImages" / "2007_000042.jpg", GREEN, RED)
    write_list(devkit / "ImageSets" / "Segmentation" / "val.txt", list(values))
    return root


def scores(report: Any) -> dict[str, float]:
    return {entry.name: entry.iou for entry in report.classes if entry.iou is not None}


@pytest.mark.parametrize("protocol", ["sclip336", "native"])
def test_background_by_words_is_class_zero(tmp_path: Path, protocol: str):
    report = evaluate_benchmark(
        "voc21", data=make_voc(tmp_path), judged=EvaluatedModel(model=segmenter()), protocol=protocol, quiet=True
    )
    assert report.classes[0].name == "background"
    found = scores(report)
    assert set(found) == {"background", "person", "cat"}
    assert min(found.values()) > 0.9
    assert report.miou is not None
    assert report.miou > 0.9


def test_background_by_threshold_is_class_zero(tmp_path: Path):
    """Where background has no words, the sky is like all classes alike, and no class is sure of it."""
    report = evaluate_benchmark(
        "voc21", data=make_voc(tmp_path), judged=EvaluatedModel(model=segmenter()), protocol="tcl448", quiet=True
    )
    assert "@background" not in report.vocabulary
    found = scores(report)
    assert set(found) == {"background", "person", "cat"}
    assert min(found.values()) > 0.9


def test_with_a_low_threshold_the_same_pixels_become_classes(tmp_path: Path):
    report = evaluate_benchmark(
        "voc21",
        data=make_voc(tmp_path),
        judged=EvaluatedModel(model=segmenter(), settings={"background_threshold": 0.001}),
        protocol="tcl448",
        quiet=True,
    )
    assert scores(report)["background"] == 0
    assert report.data.reading["changed"] == {"background_threshold": 0.001}
    assert report.data.remarks[1] == "Not as the protocol tcl448 has it: background_threshold=0.001."


def test_without_background_its_pixels_do_not_count(tmp_path: Path):
    report = evaluate_benchmark(
        "voc20", data=make_voc(tmp_path), judged=EvaluatedModel(model=segmenter()), protocol="sclip336", quiet=True
    )
    assert report.pixels == 2 * 64 * 64
    assert set(scores(report)) == {"person", "cat"}


def test_the_report_says_by_which_row_of_which_protocol(tmp_path: Path):
    evaluate_benchmark(
        "voc21",
        data=make_voc(tmp_path / "data"),
        judged=EvaluatedModel(model=segmenter()),
        protocol="sclip336",
        out=tmp_path / "out",
        quiet=True,
    )
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    data = record["data"]
    assert (data["benchmark"], data["protocol"]) == ("voc21", "sclip336")
    assert data["reading"]["layout"] == "VOC 2012 devkit"
    assert data["reading"]["split"] == "ImageSets/Segmentation/val.txt"
    assert data["reading"]["protocol_row"]["threshold"] == 0.2
    assert data["reading"]["changed"] == {}
    assert data["selection"]["of"] == 1449
    assert len(data["remarks"]) == 1
    assert "voc21 over 2 photographs; its official split has 1,449" in data["remarks"][0]
    assert data["remarks"][0] in (tmp_path / "out" / "report.html").read_text()
    assert record["predicted_by"]["settings"]["shorter_side"] == 336
    assert record["vocabulary"].count("@template") == 80


def test_a_protocol_changes_what_the_model_sees(tmp_path: Path):
    sizes: list[tuple[int, ...]] = []

    class Watching(Words):
        def encode_patches(self, images: Tensor) -> Tensor:
            sizes.append(tuple(images.shape[-2:]))
            return super().encode_patches(images)

    model = DenseSegmenter(Watching())  # type: ignore[arg-type]
    evaluate_benchmark(
        "voc20", data=make_voc(tmp_path), judged=EvaluatedModel(model=model), protocol="sclip336", quiet=True
    )
    assert set(sizes) == {(336, 336)}, "64 x 128 is seen as 336 x 672, in windows"


def test_a_run_is_resumed(tmp_path: Path):
    options: dict[str, Any] = {
        "data": make_voc(tmp_path / "data"),
        "judged": EvaluatedModel(model=segmenter()),
        "protocol": "native",
        "out": tmp_path / "out",
        "quiet": True,
    }
    first = evaluate_benchmark("voc21", **options)
    again = evaluate_benchmark("voc21", **options, resume=True)
    assert again == first
    with pytest.raises(PatchwordError, match="cannot resume"):
        evaluate_benchmark("voc21", **{**options, "protocol": "sclip336"}, resume=True)


def make_predictions(folder: Path, *, background: int = 20) -> Path:
    """Perfect predictions as any program may leave them: positions in the class list, the next is background."""
    for name, mask in {"2007_000033": truth_of(14, background), "2007_000042": truth_of(7, 7)}.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return folder


def test_predictions_of_any_program(tmp_path: Path):
    predictions = make_predictions(tmp_path / "predictions")
    report = evaluate_benchmark(
        "voc21",
        data=make_voc(tmp_path / "data"),
        judged=EvaluatedModel(predictions=predictions, predictions_are="positions"),
        quiet=True,
    )
    assert report.miou == 1
    assert report.data.protocol is None


def test_a_protocol_beside_predictions_is_refused(tmp_path: Path):
    with pytest.raises(PatchwordError, match="beside predictions, which they cannot change"):
        evaluate_benchmark(
            "voc21", data=tmp_path, judged=EvaluatedModel(predictions=tmp_path), protocol="sclip336", quiet=True
        )


def test_what_is_missing_is_said_before_a_model_is_loaded(tmp_path: Path):
    judged = EvaluatedModel(model="nobody/absent")
    with pytest.raises(PatchwordError, match=r"voc21 is not in .* lacks JPEGImages"):
        evaluate_benchmark("voc21", data=tmp_path, judged=judged, quiet=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": "sclip"}, "unknown protocol 'sclip'"),
        ({"templates": 3}, r"templates is 3 \(choose from 7, 80"),
        ({"limit": 0}, "'limit' is 0; it must be at least 1"),
    ],
)
def test_options_are_refused_before_the_data_are_looked_at(tmp_path: Path, options: dict[str, Any], said: str):
    with pytest.raises(PatchwordError, match=said):
        evaluate_benchmark("voc21", data=tmp_path, judged=EvaluatedModel(model=segmenter()), **options)


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(PatchwordError, match="setting 'widow' is unknown"):
        EvaluatedModel(model=segmenter(), settings={"widow": 3})


def make_ade(root: Path) -> Path:
    ade = root / "ADEChallengeData2016"
    names = BENCHMARKS["ade20k"].vocabulary().names
    values = truth_of(names.index("person") + 1, names.index("sky") + 1)
    make_split(ade / "images/validation", ade / "annotations/validation", {"ADE_val_00000001": values})
    paint(ade / "images/validation/ADE_val_00000001.jpg", RED, BLUE)
    return root


def test_a_suite_measures_what_is_there(tmp_path: Path):
    data = make_ade(make_voc(tmp_path / "data"))
    out = tmp_path / "out"
    options: dict[str, Any] = {"data": data, "protocol": "sclip336", "out": out, "quiet": True}
    record = evaluate_suite("standard8", judged=EvaluatedModel(model=segmenter()), **options)
    status = {entry.benchmark: entry.status for entry in record.entries}
    assert [name for name, what in status.items() if what == "partial"] == ["voc21", "voc20", "ade20k"]
    assert min(entry.miou for entry in record.entries if entry.miou is not None) > 0.9
    assert record.average is None
    assert (out / "ade20k" / "evaluation.json").is_file()
    assert read_suite(out) == record
    assert evaluate_suite("standard8", judged=EvaluatedModel(model=segmenter()), **options, resume=True) == record


def test_a_suite_of_predictions(tmp_path: Path):
    data = make_voc(tmp_path / "data")
    make_predictions(tmp_path / "predictions" / "voc21")
    make_predictions(tmp_path / "predictions" / "voc20", background=3)
    judged = EvaluatedModel(predictions=tmp_path / "predictions", predictions_are="positions")
    record = evaluate_suite("standard8", data=data, judged=judged, out=tmp_path / "out", quiet=True)
    assert {entry.miou for entry in record.entries if entry.status == "partial"} == {1.0}
    assert record.protocol is None
    assert "unknown protocol" in (tmp_path / "out" / "suite.md").read_text()


@pytest.mark.parametrize(("rule", "counted"), [(None, 128), ("background", 128), ("ignored", 64)])
def test_pixels_of_coco_object_that_nobody_labelled(tmp_path: Path, rule: Any, counted: int):
    maps = tmp_path / "data" / "stuffthingmaps_trainval2017" / "val2017"
    make_split(tmp_path / "data" / "val2017", maps, {"000000000139": truth_of(0, 255)[:1]})
    make_split(tmp_path / "photos", tmp_path / "predictions", {"000000000139": truth_of(0, 80)[:1]})
    report = evaluate_benchmark(
        "coco-object",
        data=tmp_path / "data",
        judged=EvaluatedModel(predictions=tmp_path / "predictions", predictions_are="positions"),
        unlabelled=rule,
        quiet=True,
    )
    assert report.pixels == counted
    assert report.miou == 1
    assert ("are background" in report.data.reading["rule"]) == (rule != "ignored")


def test_a_run_that_ignores_unlabelled_pixels_is_not_the_protocols():
    row = PROTOCOLS["sclip336"]["coco-object"]
    assert ProtocolRun(row, unlabelled="ignored").changed == {"unlabelled": "ignored"}
    assert ProtocolRun(row, unlabelled="background").changed == {}
