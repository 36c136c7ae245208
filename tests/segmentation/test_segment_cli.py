"""`patchword segment` as it is typed: ways to name models, options, dry runs, merging."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from patchword.toytown import miniatures
from small_world import Ran, make_photos, must, run

CLASSES = ("--classes", "cat, dog, sofa")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", count=3)


def method(tiny_clip: Path) -> tuple[object, ...]:
    return ("--method", "maskclip", "--image-text", tiny_clip, "--device", "cpu", *CLASSES)


def segment(photos: Path, tiny_clip: Path, *options: object, out: str = "out", code: int = 0) -> Ran:
    return must(run("segment", photos, *method(tiny_clip), "-o", photos.parent / out, *options), code=code)


def record(photos: Path, out: str = "out") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((photos.parent / out / "segment.json").read_text())
    return loaded


def test_settings_and_their_shorthands_are_written_down(photos: Path, tiny_clip: Path) -> None:
    numbers = ("--image-size", 28, "--threshold", 0.2, "--window", 16, "--stride", 8, "--refine", "guided")
    segment(photos, tiny_clip, *numbers, "--set", "guided.radius=3", "--set", "batch_megapixels=2")
    made = record(photos)
    asked = {"image_size": 28, "threshold": 0.2, "window": 16, "stride": 8, "refine": "jbu"}
    assert {name: made["settings"][name] for name in asked} == asked
    assert made["settings"]["jbu"]["radius"] == 3
    assert made["folder_settings"]["batch_megapixels"] == 2
    assert made["segmenter"]["method"] == "maskclip"
    assert "both given" in segment(photos, tiny_clip, "--threshold", 0.2, "--set", "threshold=0.3", code=2).complaint


def test_the_session_says_what_was_typed(photos: Path, tiny_clip: Path) -> None:
    segment(photos, tiny_clip)
    (session,) = map(json.loads, (photos.parent / "out/runs.jsonl").read_text().splitlines())
    assert session["options"]["method"] == "maskclip"
    assert session["options"]["image_text"] == str(tiny_clip)
    assert session["options"]["device"] == "cpu"


def test_all_that_can_be_written(photos: Path, tiny_clip: Path) -> None:
    extras = ("--confidence-bits", 16, "--soft", "dog, cat", "--rle", "--no-overlays")
    segment(photos, tiny_clip, *extras)
    out = photos.parent / "out"
    assert not (out / "overlays").exists()
    with Image.open(out / "masks/0.png.png") as mask, Image.open(out / "confidence/0.png.png") as confidence:
        assert mask.mode == "P"
        assert confidence.mode == "I;16"
        sure, indices = np.asarray(confidence) / 65535, np.asarray(mask)
    soft = load_file(out / "soft/0.png.safetensors")["probabilities"]
    assert (soft.shape, soft.dtype) == ((2, *indices.shape), np.float16)
    for position, index in enumerate((1, 0)):
        here = indices == index
        np.testing.assert_allclose(soft[position][here], sure[here], atol=1e-3)
        assert (soft[position][~here] <= sure[~here] + 1e-3).all()
    line = json.loads((out / "results.jsonl").read_text().splitlines()[0])
    assert all("rle" in area for area in line["classes"].values())


def test_probabilities_of_all_classes_sum_to_one(photos: Path, tiny_clip: Path) -> None:
    segment(photos, tiny_clip, "--soft", "all", "--background", "wall")
    soft = load_file(photos.parent / "out/soft/0.png.safetensors")["probabilities"]
    assert len(soft) == 4
    np.testing.assert_allclose(soft.astype(np.float32).sum(axis=0), 1, atol=2e-3)


def test_one_photograph(photos: Path, tiny_clip: Path) -> None:
    out = photos.parent / "out"
    ran = must(run("segment", photos / "1.png", *method(tiny_clip), "-o", out))
    assert "1 image segmented, 0 failed" in ran.out
    assert [path.name for path in (out / "masks").iterdir()] == ["1.png.png"]


def test_shards_are_merged_by_the_command_for_labels(photos: Path, tiny_clip: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    for out, part in (("one", "1/2"), ("two", "2/2")):
        segment(photos, tiny_clip, "--set", "batch=1", "--shard", part, out=out, code=1 if out == "two" else 0)
    ran = must(run("merge", photos.parent / "two", photos.parent / "one", "-o", photos.parent / "all"), code=1)
    assert "3 images segmented, 1 failed" in ran.out
    assert "broken.png" in ran.err
    segment(photos, tiny_clip, "--set", "batch=1", out="whole", code=1)
    for name in ("results.jsonl", "segment.json", "masks/2.png.png"):
        assert (photos.parent / "all" / name).read_bytes() == (photos.parent / "whole" / name).read_bytes()


def test_a_dry_run_tells_and_writes_nothing(photos: Path, tiny_clip: Path) -> None:
    plan = json.loads(segment(photos, tiny_clip, "--dry-run", "--json", "--limit", 2, "--confidence").out)
    assert plan["counts"] == {"images": 2, "classes": 3, "background words": 0}
    assert plan["models"]["method"] == "maskclip"
    assert "local folder" in plan["models"]["image-text"]
    assert plan["settings"]["confidence_bits"] == 8
    assert plan["estimate"]["disk_bytes"] > 0
    assert plan["estimate"]["sample"] == ["0.png", "1.png"]
    assert "2 photographs segmented one at a time" in plan["remark"]
    assert not (photos.parent / "out").exists()
    segment(photos, tiny_clip, "--limit", 1)
    resumed = json.loads(segment(photos, tiny_clip, "--dry-run", "--json", "--resume").out)
    assert resumed["counts"]["segmented already"] == 1
    assert "gone on with" in resumed["output"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--confidence-bits", 7), "'confidence_bits' is 7"),
        (("--soft", "wolf"), "soft names the unknown class 'wolf' (choose from all, cat, dog, sofa"),
        (("--refine", "sam"), "refine=sam needs a mask generator"),
        (("--refine", "magic"), "'refine' is 'magic'"),
        (("--mask-generator", "x"), "a mask generator needs refine=sam"),
        (("--every", 0), "'every' is 0"),
        (("--set", "speed=1"), "setting 'speed' is unknown"),
        (("--stride", 5), "stride is 5"),
        (("--shard", "3/2"), "shard is 3/2"),
        (("--retry-failed",), "retry_failed requires resume"),
        (("--model", "x"), "a model and a method are both given"),
        (("--encoder", "x"), "uses no vision encoder"),
        (("--text-encoder", "x"), "text_encoder needs a model"),
        (("--resume", "--overwrite"), "either resume or overwrite"),
    ],
)
def test_mistakes_are_one_line(photos: Path, tiny_clip: Path, options: tuple[object, ...], said: str) -> None:
    (photos.parent / "out").mkdir()
    assert said in segment(photos, tiny_clip, *options, code=2).complaint
    assert not list((photos.parent / "out").iterdir()) or options[0] == "--resume"


def test_without_model_or_method_there_is_one_line(photos: Path) -> None:
    ran = must(run("segment", photos, "-o", photos.parent / "out"), code=2)
    assert "neither a model nor a method is given" in ran.complaint


@pytest.mark.parametrize(("part", "option"), [("encoder", "--encoder"), ("text_encoder", "--text-encoder")])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_model_whose_frozen_model_was_moved_says_how_to_tell_where(
    photos: Path, part: str, option: str, dry: tuple[str, ...]
) -> None:
    model = photos.parent / "model"
    shutil.copytree(miniatures.SEGMENTER, model)
    config = json.loads((model / "config.json").read_text())
    for tower, folder in (("encoder", miniatures.DINO), ("text_encoder", miniatures.CLIP)):
        config[tower]["name"] = str(photos.parent / "gone") if tower == part else str(folder)
    (model / "config.json").write_text(json.dumps(config))
    asked = must(run("segment", photos, "--model", model, "-o", photos.parent / "out", *CLASSES, *dry), code=2)
    assert f"{model} needs {photos.parent / 'gone'}" in asked.complaint
    assert f"if it is elsewhere now, pass {option}" in asked.complaint
    assert not (photos.parent / "out").exists()
