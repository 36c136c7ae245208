"""Whatever is wrong with what a user passes: one clear line, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny as tiny_checkpoints
from PIL import Image

from patchword.data.masks import read_indices
from small_world import (
    UNDERSTOOD,
    Models,
    align_command,
    files_in,
    label_command,
    make_photos,
    make_world,
    must,
    pixels,
    run,
)

ORIENTATION = 0x0112
ROTATED = 6  # stored lying on its side


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """A folder with photos/, labels/ and model/."""
    folder = tmp_path_factory.mktemp("made")
    make_world(folder, models=models)
    return folder


def odd_photos(folder: Path) -> dict[str, tuple[int, int]]:
    """Photographs of every odd kind; their names and upright (height, width)."""
    folder.mkdir()
    rgb = Image.fromarray(pixels())
    rgb.convert("L").save(folder / "grey.png")
    Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257).save(folder / "sixteen-bit.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("LA").save(folder / "grey-alpha.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("P").save(folder / "palette.gif")
    rgb.convert("1").save(folder / "one-bit.png")
    rgb.save(folder / "UPPER.JPG", format="JPEG")
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    rgb.save(folder / "rotated.jpg", exif=exif)
    rgb.save(folder / "naïve 写真.png")
    Image.fromarray(pixels(height=1, width=1)).save(folder / "one.png")
    Image.fromarray(pixels(height=200, width=8000)).save(folder / "long.png")
    other = {"rotated.jpg": (32, 24), "one.png": (1, 1), "long.png": (200, 8000)}
    return {path.name: other.get(path.name, (24, 32)) for path in folder.iterdir()}


def broken_photos(folder: Path) -> list[str]:
    """Files that look like photographs and are none; their names."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels(height=96, width=96)).save(folder / "truncated.jpg", quality=95)
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no photograph")
    (folder / "nowhere.png").symlink_to(folder / "absent.png")
    return sorted(path.name for path in folder.iterdir())


def test_odd_photographs_are_labelled_and_segmented_at_their_upright_size(
    made: Path, models: Models, tmp_path: Path
) -> None:
    sizes = odd_photos(tmp_path / "photos")
    must(run(*label_command(tmp_path / "photos", out=tmp_path / "labels", models=models)))
    must(run("segment", tmp_path / "photos", "--model", made / "model", "-o", tmp_path / "out"))
    for folder in ("labels", "out"):
        found = {name: read_indices(tmp_path / folder / "masks" / f"{name}.png").shape for name in sizes}
        assert found == sizes


@pytest.mark.parametrize("command", ["label", "segment"])
def test_broken_photographs_are_listed_and_the_others_done(
    command: str, made: Path, models: Models, tmp_path: Path
) -> None:
    broken = broken_photos(tmp_path / "photos")
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    options = {
        "label": label_command(tmp_path / "photos", out=out, models=models),
        "segment": ["segment", tmp_path / "photos", "--model", made / "model", "-o", out],
    }
    ran = must(run(*options[command]), code=1)
    lines = [line for line in ran.err.splitlines() if not UNDERSTOOD.match(line)]
    assert "3 classes: cat, dog, sofa" in ran.err
    assert [line.split(": ")[1] for line in lines[:-1]] == broken
    assert lines[-1].startswith("patchword: 4 photographs could not be")
    assert {path.name for path in (out / "masks").iterdir()} == {"0.png.png", "1.png.png"}
    listed = (out / {"label": "manifest.jsonl", "segment": "results.jsonl"}[command]).read_text().splitlines()
    failed = {record["name"] for record in map(json.loads, listed) if record["status"] == "failed"}
    assert failed == set(broken)


def test_only_broken_photographs(models: Models, tmp_path: Path) -> None:
    broken_photos(tmp_path / "photos")
    must(run(*label_command(tmp_path / "photos", out=tmp_path / "labels", models=models)), code=1)
    ran = must(run(*align_command(tmp_path / "labels", out=tmp_path / "model", models=models)), code=2)
    assert "no image" in ran.complaint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_photograph_without_permission(models: Models, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    (tmp_path / "photos/0.png").chmod(0)
    ran = must(run(*label_command(tmp_path / "photos", out=tmp_path / "labels", models=models)), code=1)
    assert "0.png: cannot read" in ran.err


def test_photographs_that_are_not_there(made: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("no photograph")
    (tmp_path / "notes/folder.jpg").mkdir()
    out = tmp_path / "out"
    cases = {"absent": "no such file or folder", "empty": "no photographs in", "notes": "no photographs in"}
    for folder, message in cases.items():
        photos = tmp_path / folder
        commands = [
            label_command(photos, out=out, models=models),
            [*label_command(photos, out=out, models=models), "--dry-run"],
            ["segment", photos, "--model", made / "model", "-o", out],
            ["evaluate", photos, "--masks", made / "labels/masks", "--classes", "cat", "--model", made / "model"],
        ]
        for command in commands:
            complaint = must(run(*command), code=2).complaint
            assert message in complaint
            assert str(photos) in complaint
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ("# only a comment\n\n", "no classes"),
        ("cat\ndog\nCat\n", "classes.txt:3: 'Cat' is already named at"),
        ("cat; cat\n", "classes.txt:1: 'cat' stands twice"),
        ("cat\n@backround: sky\n", "classes.txt:2: '@backround: sky' is not understood"),
        ("cat\n;\n", "classes.txt:2: empty name"),
        (b"caf\xe9\n", "classes.txt:1: not UTF-8"),
        (None, "no such class list"),
    ],
)
def test_class_lists_that_are_refused(
    text: str | bytes | None, message: str, made: Path, models: Models, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.txt"
    if text is not None:
        classes.write_bytes(text if isinstance(text, bytes) else text.encode())
    commands = (
        label_command(made / "photos", out=tmp_path / "out", models=models, classes=classes),
        ["segment", made / "photos", "--model", made / "model", "-o", tmp_path / "out", "--classes", classes],
    )
    for command in commands:
        complaint = must(run(*command), code=2).complaint
        assert message in complaint
        assert str(tmp_path) in complaint


@pytest.mark.parametrize("classes", [" ", " , ", "cat, cat", "cat; dog, dog", "cat, 0: dog", "classes.tx", '["cat"]'])
def test_names_that_are_refused(classes: str, made: Path, models: Models, tmp_path: Path) -> None:
    ran = must(run(*label_command(made / "photos", out=tmp_path / "out", models=models, classes=classes)), code=2)
    assert "class list" in ran.complaint
    assert not (tmp_path / "out").exists()


EMPTY = [
    (["label", "", "--classes", "cat", "-o", "x"], "PHOTOS"),
    (["label", "p", "--classes", "", "-o", "x"], "--classes"),
    (["label", "p", "--classes", "cat", "-o", ""], "--out"),
    (["label", "p", "--classes", "cat", "--out="], "--out"),
    (["label", "p", "--classes", "cat", "-o", "x", "--image-text", ""], "--image-text"),
    (["suggest", "", "-o", "x"], "PHOTOS"),
    (["align", "", "-o", "x"], "LABELS"),
    (["align", "x", "-o", "y", "--cache", ""], "--cache"),
    (["quality", ""], "LABELS"),
    (["segment", "p", "-o", "x", "--model", ""], "--model"),
    (["segment", "p", "-o", "x", "--model", "m", "--soft", ""], "--soft"),
    (["evaluate", "p", "--masks", "", "--classes", "cat"], "--masks"),
    (["evaluate", "p", "--masks", "m", "--classes", "cat", "--predictions", ""], "--predictions"),
    (["export", "", "--format", "coco", "-o", "x"], "FOLDER"),
    (["import", "", "--format", "coco", "--photos", "p", "--classes", "cat", "-o", "x"], "SOURCE"),
    (["import", "s", "--format", "coco", "--photos", "", "--classes", "cat", "-o", "x"], "--photos"),
    (["merge", "a", "", "-o", "x"], "SHARD"),
    (["push", "", "user/name"], "FOLDER"),
    (["models", "fetch", ""], "NAME"),
]


@pytest.mark.parametrize(
    ("command", "name"), EMPTY, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_an_empty_argument_is_refused(
    command: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path)
    before = files_in(tmp_path)
    assert must(run(*command), code=2).complaint.startswith(f"patchword: {name} is empty")
    assert files_in(tmp_path) == before


def test_empty_background_words_mean_none(made: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(made / "photos", out=tmp_path / "out", models=models)
    assert "(+" not in must(run(*command, "--background", "", "--dry-run")).err


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_single_class_without_a_background_is_said(quiet: tuple[str, ...], made: Path, tmp_path: Path) -> None:
    command = ["segment", made / "photos", "--model", made / "model", "--classes", "cat", *quiet]
    said = must(run(*command, "-o", tmp_path / "1")).complaint
    assert "every pixel becomes 'cat'" in said
    assert "--background" in said
    assert "background_threshold=0.3" in said
    for number, background in enumerate((["--background", "sky"], ["--threshold", "0.5"])):
        assert "every pixel" not in must(run(*command, *background, "-o", tmp_path / f"with-{number}")).err


def test_background_that_is_scored_and_cannot_be_predicted_is_refused_with_the_way_out(made: Path) -> None:
    command = ["evaluate", made / "photos", "--masks", made / "labels/masks", "--classes", "cat, dog, sofa"]
    said = must(run(*command, "--model", made / "model", "--zero-is", "background"), code=2).complaint
    assert '--background "' in said
    assert "--set background_threshold=0.3" in said


def test_names_in_any_script(made: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("猫; кот\nchâteau\nÅngström\n", encoding="utf-8")
    command = label_command(made / "photos", out=tmp_path / "labels", models=models, classes=tmp_path / "classes.txt")
    must(run(*command))
    record = json.loads((tmp_path / "labels/dataset.json").read_text(encoding="utf-8"))
    assert record["vocabulary"]["names"] == ["猫", "château", "Ångström"]
    must(run(*align_command(tmp_path / "labels", out=tmp_path / "model", models=models)))
    must(run("segment", made / "photos", "--model", tmp_path / "model", "-o", tmp_path / "out"))
    assert (tmp_path / "out/overlays/0.png.jpg").is_file()


def test_five_hundred_names(made: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("".join(f"thing {number}\n" for number in range(500)))
    command = label_command(made / "photos", out=tmp_path / "labels", models=models, classes=tmp_path / "classes.txt")
    must(run(*command))
    assert read_indices(tmp_path / "labels/masks/0.png.png").dtype == np.uint16
    must(run(*align_command(tmp_path / "labels", out=tmp_path / "model", models=models)))
    must(run("segment", made / "photos", "--model", tmp_path / "model", "-o", tmp_path / "out"))
    masks = tmp_path / "labels/masks"
    common = ("evaluate", made / "photos", "--masks", masks, "--classes", tmp_path / "classes.txt")
    assert json.loads(must(run(*common, "--predictions", masks, "--json")).out)["miou"] == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", "the weights of nobody/nothing"),
        ("openai/clip-vit-base-patch61", "did you mean openai/clip-vit-base-patch16?"),
        ("not a name", "neither a hub name"),
        ("./absent", "no model folder ./absent"),
    ],
)
def test_models_that_are_not_there(name: str, message: str, made: Path, models: Models, tmp_path: Path) -> None:
    label_options = label_command(made / "photos", out=tmp_path / "labels", models=models)
    label_options[label_options.index(models.clip)] = name
    align_options = align_command(made / "labels", out=tmp_path / "model", models=models)
    align_options[align_options.index(models.dinov2)] = name
    for command in (label_options, align_options):
        assert message in must(run(*command), code=2).complaint


def test_model_folders_that_are_not_whole(made: Path, models: Models, tmp_path: Path) -> None:
    for lacking, message in (("config.json", "has no config.json"), ("model.safetensors", "has no model.safetensors")):
        folder = tmp_path / lacking
        shutil.copytree(models.clip, folder)
        (folder / lacking).unlink()
        command = label_command(made / "photos", out=tmp_path / "labels", models=models)
        command[command.index(models.clip)] = folder
        complaint = must(run(*command), code=2).complaint
        assert message in complaint
        assert str(folder) in complaint


def test_a_model_of_another_kind(made: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(made / "photos", out=tmp_path / "labels", models=models)
    command[command.index(models.sam)] = models.dinov2
    assert "cannot be used as mask generator" in must(run(*command), code=2).complaint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "quick"], "--preset is 'quick'; choose from fast, balanced, thorough, paper"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--dtype", "float8"], "--dtype is 'float8'; choose from auto, float32, bfloat16, float16"),
        (["--limit", "0"], "--limit is '0'; it must be at least 1"),
        (["--set", "overlap=2"], "setting 'overlap' is 2"),
        (
            ["--set", "overlapp=0.5"],
            "setting 'overlapp' is unknown; did you mean 'overlap'? (choose from generator, grids, overlap",
        ),
        (["--set", "overlap"], "must be NAME=VALUE"),
        (["--resume", "--overwrite"], "either resume or overwrite"),
    ],
)
def test_options_out_of_range(options: list[str], message: str, made: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(made / "photos", out=tmp_path / "labels", models=models)
    ran = must(run(*command, *options), code=2)
    assert message in ran.complaint


def test_folders_in_use_are_refused_and_keep_their_files(made: Path, models: Models, tmp_path: Path) -> None:
    before = files_in(made)
    commands = (
        label_command(made / "photos", out=made / "labels", models=models),
        align_command(made / "labels", out=made / "model", models=models),
    )
    for command in commands:
        assert "--resume or --overwrite" in must(run(*command), code=2).complaint
    foreign = make_photos(tmp_path / "foreign")
    kept = files_in(foreign)
    for flag in ("--resume", "--overwrite"):
        ran = must(run(*label_command(made / "photos", out=foreign, models=models), flag), code=2)
        assert "it has no .patchword file" in ran.complaint
        ran = must(run(*label_command(made / "photos", out=made / "model", models=models), flag), code=2)
        assert "'model'" in ran.complaint
        assert "'labels'" in ran.complaint
    assert files_in(foreign) == kept
    assert files_in(made) == before


def test_a_mistake_beside_overwrite_loses_nothing(made: Path, models: Models) -> None:
    before = files_in(made)
    command = [*label_command(made / "photos", out=made / "labels", models=models), "--overwrite"]
    command[command.index(models.clip)] = "./absent"
    must(run(*command), code=2)
    command = [*align_command(made / "labels", out=made / "model", models=models), "--overwrite"]
    must(run(*command, "--text-encoder", "./absent"), code=2)
    assert files_in(made) == before


def test_resuming_another_run_is_refused(made: Path, models: Models) -> None:
    before = files_in(made)
    other = label_command(made / "photos", out=made / "labels", models=models, classes="cat, dog, lamp")
    assert "cannot resume" in must(run(*other, "--resume"), code=2).complaint
    other = align_command(made / "labels", out=made / "model", models=models)
    assert "'seed' was 0 and is 9" in must(run(*other, "--resume", "--seed", 9), code=2).complaint
    assert files_in(made) == before


def test_a_model_trained_with_another_text_encoder(made: Path, models: Models, tmp_path: Path) -> None:
    other = tiny_checkpoints.make_clip(tmp_path / "other", seed=1)
    command = ["segment", made / "photos", "--model", made / "model", "-o", tmp_path / "out"]
    complaint = must(run(*command, "--text-encoder", other), code=2).complaint
    assert f"was trained with text encoder {models.clip}" in complaint
    assert str(other) in complaint
    assert not (tmp_path / "out").exists()


def test_models_that_are_none(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "model", tmp_path / "damaged")
    weights = (tmp_path / "damaged/model.safetensors").read_bytes()
    (tmp_path / "damaged/model.safetensors").write_bytes(weights[:-10])
    cases = {tmp_path / "absent": "no model folder", made / "photos": "no config.json", tmp_path / "damaged": "damaged"}
    for folder, message in cases.items():
        ran = must(run("segment", made / "photos", "--model", folder, "-o", tmp_path / "out"), code=2)
        assert message in ran.complaint
        assert str(folder) in ran.complaint


def test_label_folders_that_are_none(made: Path, models: Models, tmp_path: Path) -> None:
    cases = {tmp_path / "absent": "no such folder", made / "photos": "not a label folder"}
    for folder, message in cases.items():
        ran = must(run(*align_command(folder, out=tmp_path / "model", models=models)), code=2)
        assert message in ran.complaint


def test_labels_whose_photographs_have_moved(made: Path, models: Models, tmp_path: Path) -> None:
    shutil.copytree(made / "labels", tmp_path / "labels")
    command = align_command(tmp_path / "labels", out=tmp_path / "model", models=models)
    assert "pass" in must(run(*command), code=2).complaint
    must(run(*command, "--photos", made / "photos"))


def test_evaluations_that_cannot_be(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "labels/masks", tmp_path / "masks")
    (tmp_path / "masks/1.png.png").unlink()
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    photos, masks = made / "photos", made / "labels/masks"
    options = ("--classes", "cat, dog, sofa", "--predictions", made / "labels")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--masks", tmp_path / "absent", *options), "no such folder of masks"),
        (("--masks", tmp_path / "masks", *options), "1 of 2 photographs have no mask"),
        (("--masks", masks, "--classes", "cat", "--predictions", made / "labels"), "made for the classes"),
        (("--masks", masks, *options, "--model", made / "model"), "one of them; given: a model and predictions"),
        (("--masks", masks, "--classes", "cat"), "one of them; given: none"),
        (("--masks", masks, *options, "--zero-is", "sky"), "; choose from class, background, ignore"),
        (("--masks", masks, *options, "--ignore-index", "1"), "ignore index is 1"),
        (("--masks", masks, *options, "--names", tmp_path / "absent.txt"), "cannot read the list of names"),
    ]
    for arguments, message in cases:
        assert message in must(run("evaluate", photos, *arguments), code=2).complaint
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / "masks/1.png.png")
    said = must(run("evaluate", photos, "--masks", tmp_path / "masks", *options), code=1).err
    assert "3 x 2 pixels and the prediction for 1.png 32 x 24" in said
