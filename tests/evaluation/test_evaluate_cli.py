"""`patchword evaluate` and `patchword merge` on folders, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored_folder import CLASSES, files_of, make_folder, save
from typer.testing import CliRunner, Result

from patchword.cli.app import app


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with predictions beside it: the masks, with some pixels of every second image wrong."""
    make_folder(tmp_path, images=6)
    for mask in (tmp_path / "masks").rglob("*.png"):
        values = np.array(Image.open(mask))
        if int(mask.stem) % 2:
            values[:8] = 0
        save(tmp_path / "predicted" / mask.relative_to(tmp_path / "masks"), values)
    return tmp_path


def typed(data: Path, *arguments: object) -> Result:
    common = [data / "photos", "--masks", data / "masks", "--classes", ", ".join(CLASSES.names)]
    given = ["--predictions", data / "predicted", *arguments]
    return CliRunner().invoke(app, ["evaluate", *map(str, [*common, *given])])


def test_scores_are_printed_with_how_sure_they_are(data: Path) -> None:
    ran = typed(data, "--resamples", 20, "--quiet")
    assert ran.exit_code == 0, ran.stderr
    for said in ("mIoU", "Boundary IoU", "pixel accuracy", " to ", "95% of 20 resamples", "Chance: ", "mean"):
        assert said in ran.stdout
    assert "Boundary" not in typed(data, "--no-boundary", "--quiet").stdout


def test_json_is_the_report(data: Path) -> None:
    ran = typed(data, "--json", "--quiet", "-o", data / "out")
    printed = json.loads(ran.stdout)
    assert printed == json.loads((data / "out/evaluation.json").read_text(encoding="utf-8"))
    assert printed["command"].startswith("patchword")


def test_images_that_cannot_be_scored_are_named_and_the_code_is_1(data: Path) -> None:
    (data / "predicted/0/2.png").write_bytes(b"no picture")
    save(data / "predicted/1/5.png", np.zeros((3, 3), dtype=np.uint8))
    ran = typed(data, "-o", data / "out", "--quiet")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    lines = ran.stderr.splitlines()
    assert lines[0].startswith("patchword: 0/2.png: cannot read label map")
    assert lines[1].startswith("patchword: 1/5.png: mask ")
    assert "2 of 6 images could not be scored" in lines[2]
    assert "images.jsonl lists them" in lines[2]
    assert not (data / "out/evaluation.json").exists()
    make_folder(data, images=6)
    for name in ("0/2", "1/5"):
        save(data / f"predicted/{name}.png", np.zeros((24, 30), dtype=np.uint8))
    assert typed(data, "-o", data / "out", "--quiet", "--resume").exit_code == 0


def test_shards_and_merge(data: Path) -> None:
    assert typed(data, "-o", data / "whole", "--quiet").exit_code == 0
    for part in (1, 2):
        ran = typed(data, "-o", data / f"part{part}", "--shard", f"{part}/2", "--quiet")
        assert ran.exit_code == 0, ran.stderr
        assert f"3 images scored, part {part} of 2; `patchword merge` puts the parts together" in ran.stdout
    ran = CliRunner().invoke(app, ["merge", str(data / "part1"), str(data / "part2"), "-o", str(data / "merged")])
    assert ran.exit_code == 0, ran.stderr
    assert "mIoU" in ran.stdout
    assert files_of(data / "merged") == files_of(data / "whole")
    again = CliRunner().invoke(app, ["merge", str(data / "part1"), "-o", str(data / "other")])
    assert again.exit_code == 2
    assert "shards are missing: 2/2" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "resume is asked for without an output folder"),
        (["--shard", "3/2"], "shard is 3/2; it must be i/n"),
        (["--worst", "900"], "'worst' is 900"),
        (["--set", "image_size=4"], "settings of segmenting are given beside predictions"),
        (["--method", "maskclip"], "given: a method and predictions"),
        (["--predictions-are", "fine"], "--predictions-are is 'fine'; choose from auto, masks, positions"),
        (["--limit", "0"], "--limit is '0'; it must be at least 1"),
        (["--zero-is", "sky"], "--zero-is is 'sky'; choose from class, background, ignore"),
    ],
)
def test_wrong_requests_are_one_line_and_code_2(data: Path, arguments: list[str], said: str) -> None:
    ran = typed(data, *arguments)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def binary(folder: Path, *, building: int, grey: str = "L") -> tuple[str, ...]:
    """Two photographs with a building of 2,000 pixels each, and predictions that miss it altogether."""
    truth, guess = np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8)
    truth[10:50, 20:70], guess[:20, :20] = building, 1
    for name in ("a", "b"):
        save(folder / f"photos/{name}.jpg", np.zeros((64, 96, 3), np.uint8))
        save(folder / f"predicted/{name}.png", guess)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(truth).convert(grey).save(folder / f"masks/{name}.png")
    data = (str(folder / "photos"), "--masks", str(folder / "masks"), "--classes", "building", "-q", "--resamples", "0")
    return ("evaluate", *data, "--predictions", str(folder / "predicted"))


@pytest.mark.parametrize("grey", ["L", "LA", "1"])
def test_a_building_of_1_is_scored_however_the_mask_is_stored(grey: str, tmp_path: Path) -> None:
    command = binary(tmp_path, building=255 if grey == "1" else 1, grey=grey)  # Pillow makes 1 bit of 255
    ran = CliRunner().invoke(app, [*command, "--zero-is", "background", "--json"])
    assert ran.exit_code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["classes"][1]["truth_pixels"] == 4000
    assert report["pixels_ignored"] == 0
    assert round(report["miou"], 3) == 0.305


def test_masks_of_0_and_255_say_that_no_pixel_is_of_the_class(tmp_path: Path) -> None:
    command = binary(tmp_path, building=255)
    ran = CliRunner().invoke(app, [*command, "--zero-is", "background", "-o", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.stderr
    assert "No pixel of the masks is of building." in ran.stdout
    assert "4,000 of 12,288 pixels do not count: their value is 255" in ran.stdout
    assert "No pixel of the masks is of building." in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    right = CliRunner().invoke(app, [*binary(tmp_path / "right", building=1), "--zero-is", "background"])
    assert "No pixel of the masks" not in right.stdout


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_nothing_scored_is_exit_code_1(json_too: tuple[str, ...], tmp_path: Path) -> None:
    command = binary(tmp_path, building=255)
    ran = CliRunner().invoke(app, [*command, "--zero-is", "ignore", *json_too])
    assert ran.exit_code == 1
    assert ran.stderr == (
        "patchword: nothing is scored: no pixel of the masks has a class; 12,288 of 12,288 pixels do not count: "
        "their value is 0 or 255 (of 16-bit masks 65535)\n"
    )
