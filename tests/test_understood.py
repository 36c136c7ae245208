"""What a run says before it works and after it: what it understood, what it wrote, the next command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from patchword.models.catalog import whereabouts
from patchword.models.registry import ModelName
from small_world import UNDERSTOOD, Models, align_command, label_command, make_photos, make_world, must, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """A folder with photos/, labels/ and model/."""
    folder = tmp_path_factory.mktemp("made")
    make_world(folder, models=models)
    return folder


def understood(*command: object) -> list[str]:
    return [line for line in must(run(*command)).err.splitlines() if UNDERSTOOD.match(line)]


def described(path: Path) -> str:
    return f"{path} ({whereabouts(ModelName.parse(path))})"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs beside files of other kinds and a folder of results."""
    folder = make_photos(tmp_path / "photos")
    for name in ("a.CR2", "b.cr2", "c.svg", "clip.mp4", ".hidden"):
        (folder / name).touch()
    make_photos(folder / "earlier/overlays", 1)
    (folder / "earlier/.patchword").write_text("segmentation\n")
    return folder


def test_label_says_what_it_understood(photos: Path, models: Models, tmp_path: Path) -> None:
    assert understood(*label_command(photos, out=tmp_path / "labels", models=models), "--limit", "1") == [
        "3 classes: cat, dog, sofa",
        f"2 photographs in {photos}, the first 1 taken; skipped: 2 .cr2, 1 .mp4, 1 .svg, 1 in results of patchword",
        f"preset balanced: image-text {described(models.clip)}, mask generator {described(models.sam)}",
        f"output: {tmp_path / 'labels'} (new)",
        "device: cpu, in float32",
    ]


def test_align_says_what_it_understood(made: Path, models: Models, tmp_path: Path) -> None:
    assert understood(*align_command(made / "labels", out=tmp_path / "model", models=models)) == [
        "3 classes: cat, dog, sofa",
        f"2 photographs with labels in {made / 'labels'}",
        f"models: vision encoder {described(models.dinov2)}, text encoder {described(models.clip)}",
        f"output: {tmp_path / 'model'} (new)",
        "device: cpu, in float32",
    ]


def test_segment_says_what_it_understood(photos: Path, made: Path, models: Models, tmp_path: Path) -> None:
    command = ["segment", photos, "--model", made / "model", "-o", tmp_path / "masks"]
    rest = [
        f"2 photographs in {photos}; skipped: 2 .cr2, 1 .svg, 1 in results of patchword, 1 video (--video takes them)",
        f"model {made / 'model'}: vision encoder {described(models.dinov2)}, text encoder {described(models.clip)}",
        f"output: {tmp_path / 'masks'} (new)",
        "device: cpu, in float32",
    ]
    assert understood(*command, "--classes", "cat, lamp", "--background", "sky") == [
        "2 classes: cat, lamp (+1 background word)",
        *rest,
    ]
    rest[2] = f"output: {tmp_path / 'masks'} (emptied first)"
    told = understood(*command, "--overwrite")  # whose classes only the model knows
    assert told[:-1] == rest
    assert told[-1].startswith("3 classes: cat, dog, sofa; every pixel gets one of them")


def test_evaluate_says_what_it_understood(made: Path) -> None:
    command = ["evaluate", made / "photos", "--masks", made / "labels/masks", "--classes", "cat, dog, sofa"]
    judged = [
        "3 classes: cat, dog, sofa",
        "2 photographs with masks",
    ]
    nowhere = "output: none; --out FOLDER keeps a report"
    assert understood(*command, "--predictions", made / "labels") == [
        *judged,
        f"predictions {made / 'labels'}",
        nowhere,
    ]
    told = [*judged, f"model {made / 'model'}", "device: cpu, in float32", nowhere]
    assert understood(*command, "--model", made / "model") == told


def test_what_was_understood_is_said_on_standard_error(made: Path, models: Models, tmp_path: Path) -> None:
    segment = ["segment", made / "photos", "--model", made / "model", "--classes", "cat; kitten, lamp, tree"]
    said = must(run(*segment, "--background", "sky, wall", "-o", tmp_path / "1", "--json"))
    assert said.err.splitlines()[0] == "3 classes: cat (or kitten), lamp, tree (+2 background words)"
    assert json.loads(said.out)["segmented"] == 2
    assert must(run(*segment, "-o", tmp_path / "2", "--dry-run", "-q")).err == ""
    said = must(run(*segment, "-o", tmp_path / "3", "--dry-run"))
    assert said.err.startswith("3 classes: cat (or kitten), lamp, tree; every pixel gets one of them; ")


def test_photographs_are_named_one_by_one_or_by_patterns(made: Path, models: Models, tmp_path: Path) -> None:
    first, second = make_photos(tmp_path / "a", 3), make_photos(tmp_path / "b", 1)
    named = [first / "0.png", f"{first}/[12].png", second]
    _, _, *options = label_command(tmp_path, out=tmp_path / "labels", models=models)
    must(run("label", *named, *options))
    assert json.loads((tmp_path / "labels/dataset.json").read_text())["photographs"] == ".."
    lines = (tmp_path / "labels/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a/0.png", "a/1.png", "a/2.png", "b/0.png"]
    masks = must(run("segment", *named, "--model", made / "model", "-o", tmp_path / "masks", "--json"))
    assert json.loads(masks.out)["segmented"] == 4


@pytest.mark.parametrize(
    ("named", "told"),
    [("photos/*.jpg", "no file matches"), ("labels", "holds labels, not photographs"), ("model", "holds a model of")],
)
def test_what_holds_no_photographs_is_refused(
    named: str, told: str, made: Path, models: Models, tmp_path: Path
) -> None:
    command = label_command(made / named, out=tmp_path / "out", models=models)
    assert told in must(run(*command), code=2).complaint


def test_a_run_ends_with_the_next_command(
    made: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    segment = ["segment", made / "photos", "--model", made / "model", "--background", "sky"]
    first, second = tmp_path / "1", tmp_path / "2"
    after = must(run(*segment, "--classes", "cat, dog", "-o", first)).out.splitlines()[-1]
    told = f"patchword evaluate {made / 'photos'} --masks TRUTH --classes 'cat, dog' --predictions {first}"
    assert after == f"next: {told}"
    after = must(run(*segment, "--classes", "cat, dog", "-o", second, "--shard", "1/2")).out.splitlines()[-1]
    assert after == f"next: patchword merge {second} OTHER_PARTS... -o masks"
    json.loads(must(run(*segment, "-o", tmp_path / "3", "--json")).out)  # and nothing else
    align = ["align", made / "labels", "-o", "model", "--encoder", models.dinov2]
    align += ["--image-size", "28", "--epochs", "1", "--batch", "2", "--lr", "0.001", "--set", "majority=0.01"]
    told = must(run(*align)).out.splitlines()[-1].removeprefix("next: patchword ")
    must(run(*shlex.split(told)))  # a line to copy
    settings = json.loads((tmp_path / "model/config.json").read_text())["settings"]
    wanted = {"image_size": 28, "epochs": 1, "batch_size": 2, "learning_rate": 0.001}
    assert {name: settings[name] for name in wanted} == wanted
    assert (tmp_path / "masks/report.html").is_file()
