"""`patchword quality --model` asks the trained segmenter where it contradicts its labels, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interruptions import contents
from small_world import Models, align_command, label_command, make_photos, must, run


@pytest.fixture(scope="module")
def made(tiny_clip: Path, tiny_sam: Path, tiny_dinov2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = Models(clip=tiny_clip, sam=tiny_sam, dinov2=tiny_dinov2)
    folder = tmp_path_factory.mktemp("doubt")
    photos = make_photos(folder / "photos", count=3)
    must(run(*label_command(photos, out=folder / "labels", models=models)))
    must(run(*align_command(folder / "labels", out=folder / "model", models=models)))
    return folder


def test_doubts_are_printed_written_and_shown(made: Path) -> None:
    labels = made / "labels"
    before = (labels / "report.html").read_text()
    assert "Masks that the trained model contradicts" not in before
    printed = json.loads(must(run("quality", labels, "--model", made / "model", "--worst", 2, "--json")).out)
    lines = [json.loads(line) for line in (labels / "disagreement.jsonl").read_text().splitlines()]
    doubts = sorted((mask["doubt"] for line in lines for mask in line["masks"]), reverse=True)
    assert doubts
    assert [mask["doubt"] for mask in printed["doubted_masks"]] == doubts[:2]
    assert "Masks that the trained model contradicts" in (labels / "report.html").read_text()
    assert "most doubted masks" in must(run("quality", labels, "--model", made / "model")).out


def test_processes_find_the_same_doubts_and_the_same_features(
    made: Path, tiny_clip: Path, tiny_sam: Path, tiny_dinov2: Path
) -> None:
    models = Models(clip=tiny_clip, sam=tiny_sam, dinov2=tiny_dinov2)
    must(run(*align_command(made / "labels", out=made / "shared", models=models), "--executor", "processes:2"))
    assert contents(made / "shared") == contents(made / "model")
    doubts = made / "labels" / "disagreement.jsonl"
    must(run("quality", made / "labels", "--model", made / "model"))
    found = doubts.read_bytes()
    doubts.unlink()
    must(run("quality", made / "labels", "--model", made / "model", "--executor", "processes:2"))
    assert doubts.read_bytes() == found
    refused = must(run("quality", made / "labels", "--executor", "ray"), code=2).complaint
    assert "executor ray needs a model" in refused


def test_a_labelling_that_goes_on_forgets_them(made: Path, tiny_clip: Path, tiny_sam: Path, tiny_dinov2: Path) -> None:
    models = Models(clip=tiny_clip, sam=tiny_sam, dinov2=tiny_dinov2)
    must(run("quality", made / "labels", "--model", made / "model"))
    must(run(*label_command(made / "photos", out=made / "labels", models=models), "--resume"))
    assert not (made / "labels" / "disagreement.jsonl").exists()
    assert "Masks that the trained model contradicts" not in (made / "labels" / "report.html").read_text()


def test_a_folder_that_is_no_model_is_one_line(made: Path) -> None:
    assert "no model folder" in must(run("quality", made / "labels", "--model", made / "absent"), code=2).complaint
