"""Commands that go on where photographs, folders or models are no longer what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from small_world import (
    Models,
    align_command,
    files_in,
    label_command,
    make_world,
    must,
    pixels,
    run,
    state_of,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """A folder with photos/, labels/ and model/, made by the commands."""
    folder = tmp_path_factory.mktemp("made")
    make_world(folder, models=models, count=3)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """The same, of which one photograph was changed and one deleted."""
    shutil.copytree(made, tmp_path / "world")
    Image.fromarray(pixels(seed=9)).save(tmp_path / "world" / "photos" / "1.png")
    (tmp_path / "world" / "photos" / "0.png").unlink()
    return tmp_path / "world"


def test_align_leaves_out_what_is_gone_or_changed_and_names_it(world: Path, models: Models) -> None:
    ran = must(run(*align_command(world / "labels", out=world / "other", models=models)), code=1)
    gone, changed, last = ran.err.splitlines()[-3:]
    assert gone.startswith("patchword: 0.png: cannot read ")
    assert changed.startswith("patchword: 1.png: ")
    assert changed.endswith("1.png has changed since it was labelled; label it again")
    assert last.startswith("patchword: 2 photographs could not be trained on; see ")
    assert "on 1 photograph," in ran.out


def test_quality_counts_what_is_gone_or_changed(world: Path) -> None:
    ran = must(run("quality", world / "labels"), code=1)
    assert "1 photograph is gone: 0.png; 1 photograph changed since it was labelled: 1.png; " in ran.complaint
    ran = must(run("quality", world / "labels", "--model", world / "model", "--json"), code=1)
    assert set(json.loads(ran.out)["unusable_photographs"]) == {"0.png", "1.png"}
    lines = [json.loads(line) for line in (world / "labels" / "disagreement.jsonl").read_text().splitlines()]
    assert {line["name"]: line["reason"] for line in lines} == {
        "0.png": "the photograph is gone",
        "1.png": "the photograph has changed since it was labelled",
        "2.png": None,
    }


@pytest.mark.parametrize("file", ["quality.jsonl", "report.html"])
def test_quality_tells_though_nothing_can_be_written(file: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "world")
    labels = tmp_path / "world/labels"
    expected = must(run("quality", labels)).out.partition(f"\n{labels}")[0]
    (labels / file).unlink()
    (labels / file).mkdir()
    ran = must(run("quality", labels), code=1)
    assert (
        ran.complaint
        == f"patchword: cannot write {labels / file}: Is a directory; there is no report, only what is printed"
    )
    assert ran.out == expected


def test_export_refuses_what_is_gone_or_changed(world: Path) -> None:
    ran = must(run("export", world / "labels", "--format", "voc", "-o", world / "voc"), code=2)
    assert "1 photograph is gone: 0.png; 1 photograph changed since it was labelled: 1.png" in ran.complaint
    assert not (world / "voc").exists()


def test_photographs_in_a_renamed_folder(made: Path, tmp_path: Path, models: Models) -> None:
    shutil.copytree(made / "labels", tmp_path / "labels")
    shutil.copytree(made / "photos", tmp_path / "moved")
    ran = must(run("export", tmp_path / "labels", "--format", "voc", "-o", tmp_path / "voc"), code=2)
    assert "pass --photos (photos=) their folder" in ran.complaint
    export = ("export", tmp_path / "labels", "--format", "voc", "-o", tmp_path / "voc")
    told = must(run(*export, "--photos", tmp_path / "moved")).err
    assert f"{tmp_path / 'moved'}: all 3 photographs have the content that was labelled" in told
    ran = must(run(*label_command(tmp_path / "moved", out=tmp_path / "labels", models=models), "--resume"))
    assert "the photographs were in ../photos and are now in ../moved, with the same content" in ran.err
    must(run("quality", tmp_path / "labels"))


def test_a_cut_manifest_is_refused_by_every_command(made: Path, tmp_path: Path, models: Models) -> None:
    shutil.copytree(made, tmp_path / "cut")
    labels = tmp_path / "cut" / "labels"
    manifest = labels / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().splitlines(keepends=True)[0])
    evaluate: list[object] = ["evaluate", made / "photos", "--masks", labels / "masks"]
    commands: list[list[object]] = [
        align_command(labels, out=tmp_path / "model", models=models),
        ["export", labels, "--format", "voc", "-o", tmp_path / "voc"],
        ["quality", labels],
        ["push", labels, "somebody/labels"],
        [*evaluate, "--classes", "cat, dog, sofa", "--predictions", labels],
    ]
    for command in commands:
        complaint = must(run(*command), code=2).complaint
        assert "manifest.jsonl lists 1 image, but dataset.json counts 3" in complaint, command


def test_labelling_in_another_type_is_refused(made: Path, tmp_path: Path, models: Models) -> None:
    command = label_command(made / "photos", out=tmp_path / "labels", models=models)
    must(run(*command, "--dtype", "float32", "--limit", 1))
    before = state_of(tmp_path / "labels")
    complaint = must(run(*command, "--dtype", "bfloat16", "--resume"), code=2).complaint
    assert "the dtype of the image-text model was float32, now bfloat16" in complaint
    assert "go on with --device cpu --dtype float32" in complaint
    assert state_of(tmp_path / "labels") == before


def test_corrections_are_kept(made: Path, tmp_path: Path, models: Models) -> None:
    classes = ("--classes", "cat, dog, sofa")
    must(run("export", made / "labels", "--format", "voc", "-o", tmp_path / "voc"))
    back = ("import", tmp_path / "voc", "--format", "voc", "--photos", made / "photos", *classes)
    must(run(*back, "-o", tmp_path / "corrected"))
    before = files_in(tmp_path / "corrected")
    command = label_command(made / "photos", out=tmp_path / "corrected", models=models)
    complaint = must(run(*command, "--overwrite"), code=2).complaint
    assert "labels of 3 photographs that were corrected by hand and imported from voc" in complaint
    assert "--overwrite-corrections" in complaint
    segment = ("segment", made / "photos", "--model", made / "model", "-o", tmp_path / "corrected")
    assert "holds 'labels'" in must(run(*segment, "--overwrite"), code=2).complaint
    assert files_in(tmp_path / "corrected") == before
    must(run(*command, "--overwrite-corrections"))
    assert json.loads((tmp_path / "corrected" / "dataset.json").read_text())["source"] == "models"


def test_a_start_that_fails_leaves_nothing(made: Path, tmp_path: Path, models: Models) -> None:
    absent = Models(clip=tmp_path / "absent", sam=models.sam, dinov2=tmp_path / "absent")
    must(run(*label_command(made / "photos", out=tmp_path / "labels", models=absent)), code=2)
    must(run(*align_command(made / "labels", out=tmp_path / "model", models=absent)), code=2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / ".patchword").write_text("labels\n")  # an earlier version left that
    ran = must(run(*label_command(made / "photos", out=tmp_path / "labels", models=models), "--dry-run"))
    assert f"{tmp_path / 'labels'} (new)" in ran.out


def test_a_link_to_itself_is_a_photograph_that_cannot_be_read(made: Path, tmp_path: Path, models: Models) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "round").symlink_to(photos)
    (photos / "one.png").symlink_to(photos / "other.png")
    (photos / "other.png").symlink_to(photos / "one.png")
    commands: list[list[object]] = [
        label_command(photos, out=tmp_path / "labels", models=models),
        ["segment", photos, "--model", made / "model", "-o", tmp_path / "segmented"],
        ["suggest", photos, "--image-text", models.clip, "-o", tmp_path / "classes.txt"],
    ]
    for command in commands:
        ran = must(run(*command), code=1)
        assert "patchword: loop.jpg: cannot read " in ran.err
        assert "loop.jpg: Too many levels of symbolic links" in ran.err
        assert "3 photographs could not be" in ran.err
    assert len(list((tmp_path / "segmented" / "masks").glob("*.png"))) == 3
    (tmp_path / "nowhere").symlink_to(tmp_path / "nowhere")
    command = label_command(photos, out=tmp_path / "nowhere", models=models)
    assert "nowhere is a link that leads nowhere" in must(run(*command), code=2).complaint
