"""`patchword evaluate` with benchmarks, as a person types it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import make_voc
from PIL import Image
from typer.testing import CliRunner

from patchword.cli.app import app


def run(*arguments: object, code: int = 0) -> Any:
    ran = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert ran.exit_code == code, ran.output
    return ran


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "VOCdevkit" / "VOC2012")


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Of both photographs, all aeroplane."""
    folder = tmp_path / "predictions"
    for name, shape in (("2007_000033", (1, 22)), ("2007_000042", (2, 2))):
        for benchmark in ("", "voc21", "voc20"):
            path = folder / benchmark / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(path)
    return folder


def test_a_benchmark_is_measured(voc: Path, predictions: Path, tmp_path: Path):
    options = ("--data", voc, "--predictions", predictions, "--out", tmp_path / "out", "--quiet")
    ran = run("--benchmark", "voc20", *options)
    assert "This is voc20 over 2 photographs; its official split has 1,449" in ran.stdout
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["data"]["benchmark"] == "voc20"
    assert record["data"]["reading"]["layout"] == "VOC 2012 devkit"
    assert record["pixels"] == 21


def test_a_training_free_method_is_measured_by_a_protocol(voc: Path, tiny_clip: Path):
    ran = run(
        *("--benchmark", "voc21", "--data", voc, "--method", "maskclip", "--image-text", tiny_clip, "--limit", "1"),
        *("--protocol", "native", "--set", "image_size=32", "--templates", "80", "--json", "--quiet"),
    )
    record = json.loads(ran.stdout)
    assert record["data"]["protocol"] == "native"
    assert record["data"]["reading"]["changed"] == {"image_size": 32, "templates": 80}
    assert record["data"]["selection"] == {"of": 1449, "limit": 1}
    assert record["images"] == 1


def test_parts_of_a_benchmark_are_put_together(voc: Path, predictions: Path, tmp_path: Path):
    options = ("--benchmark", "voc20", "--data", voc, "--predictions", predictions, "--quiet")
    run(*options, "--out", tmp_path / "whole")
    for part in ("1", "2"):
        run(*options, "--shard", f"{part}/2", "--out", tmp_path / part)
    merged = CliRunner().invoke(app, ["merge", *(str(tmp_path / part) for part in "12"), "-o", str(tmp_path / "both")])
    assert merged.exit_code == 0, merged.output
    whole, both = (json.loads((tmp_path / each / "evaluation.json").read_text()) for each in ("whole", "both"))
    for field in ("miou", "pixels", "images", "data", "vocabulary_hash", "classes"):
        assert both[field] == whole[field]


def test_a_suite_is_one_table(voc: Path, predictions: Path, tmp_path: Path):
    options = ("--data", tmp_path, "--predictions", predictions, "--out", tmp_path / "out", "--quiet")
    ran = run("--suite", "standard8", *options)
    assert "voc21 is over 2 photographs, its split has 1,449" in ran.stdout
    assert "cityscapes is missing" in ran.stdout
    assert (tmp_path / "out" / "voc20" / "evaluation.json").is_file()
    again = run("--suite", "standard8", *options, "--resume", "--json")
    assert json.loads(again.stdout)["average"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to evaluate on: PHOTOS, --masks, --classes missing"),
        (("photos", "--masks", "masks"), "nothing to evaluate on: --classes missing"),
        (("--benchmark", "voc21"), "--benchmark needs --data"),
        (("--suite", "standard8"), "--suite needs --data"),
        (("--suite", "standard8", "--data", "."), "--suite needs --out"),
        (("--suite", "standard8", "--data", ".", "--shard", "1/2", "-o", "o"), "--shard cannot be used with --suite"),
        (("--benchmark", "voc21", "--suite", "standard8"), "either --benchmark or --suite"),
        (("photos", "--benchmark", "voc21", "--data", "."), "PHOTOS cannot be used with --benchmark"),
        (("--benchmark", "voc21", "--data", ".", "--zero-is", "ignore"), "--zero-is cannot be used with --benchmark"),
        (("--benchmark", "voc21", "--data", ".", "--names", "val.txt"), "--names cannot be used with --benchmark"),
        (("--data", "."), "--data requires --benchmark or --suite"),
        (("photos", "--protocol", "native"), "--protocol requires --benchmark or --suite"),
        (("--benchmark", "kitti", "--data", "."), "unknown benchmark 'kitti'"),
        (("--benchmark", "voc21", "--data", "nowhere"), "no such folder of voc21: nowhere"),
        (("--suite", "standard8", "--data", "nowhere", "--out", "out"), "no such folder of benchmarks, or file"),
        (("--suite", "standard9", "--data", ".", "--out", "out"), "unknown suite 'standard9'"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments, "--predictions", tmp_path, code=2)
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_what_is_missing_is_said_at_once(voc: Path, tmp_path: Path):
    ran = run("--benchmark", "ade20k", "--data", voc, "--model", "nobody/absent", code=2)
    assert "ade20k is not in" in ran.stderr
    assert "annotations/validation" in ran.stderr
    assert ran.stderr.count("\n") == 1
