"""`patchword suggest` as a user types it: drawn photographs and the miniature model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from patchword.data.vocabulary import Vocabulary
from patchword.toytown import miniatures
from patchword.toytown.classes import CLASSES
from patchword.toytown.world import draw_scene, scene_seed
from small_world import run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes without a boat; a file that is none."""
    folder = tmp_path_factory.mktemp("scenes")
    index = 0
    while len(list(folder.iterdir())) < 12:
        scene = draw_scene(scene_seed("test", index=index), size=96)
        index += 1
        if all(thing.name != "boat" for thing in scene.things):
            Image.fromarray(scene.image).save(folder / f"{index:03d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def _without(data: bytes, *parts: bytes) -> bytes:
    for part in parts:
        data = data.replace(part, b"")
    return data


def test_a_list_is_proposed_that_names_what_is_there(scenes: Path, tmp_path: Path) -> None:
    nouns, out, page = tmp_path / "nouns.txt", tmp_path / "classes.txt", tmp_path / "page.html"
    nouns.write_text("\n".join(CLASSES), encoding="utf-8")
    arguments = ("suggest", scenes, "-o", out, "--nouns", nouns, "--image-text", miniatures.CLIP, "--device", "cpu")
    ran = run(*arguments, "--page", page, "--minimum-share", 0.1, "--quiet")
    assert ran.code == 1  # one photograph is broken
    assert "broken.png: " in ran.err
    proposed = Vocabulary.of(out)
    assert "sky" in proposed.names[:3]
    assert len(set(proposed.names) & {"grass", "sand", "snow", "water", "field", "road"}) >= 3
    assert "boat" not in proposed.names
    assert ran.out.splitlines()[0].split() == ["class", "photographs", "share", "crops"]
    assert f"{out}: {len(proposed)} classes proposed from 12 of 13 photographs" in ran.out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")

    texts = [out.read_bytes(), page.read_bytes()]
    run(*arguments, "--page", page, "--minimum-share", 0.1, "--quiet", "--overwrite", "--executor", "processes:2")
    told = [b" --executor processes:2", b" --overwrite"]
    assert [out.read_bytes(), _without(page.read_bytes(), *told)] == texts

    again = run(*arguments, "--quiet")
    assert (again.code, again.complaint) == (2, f"patchword: {out} exists; choose another name, or --overwrite it")
    ran = run(*arguments, "--overwrite", "--sample", 3, "--limit-classes", 2, "--json", "--quiet")
    record = json.loads(ran.out)
    assert [entry["name"] for entry in record["classes"]] == list(Vocabulary.of(out).names)
    assert len(record["classes"]) == 2
    assert record["settings"]["sample"] == 3
    assert record["vocabulary"] == Vocabulary.of(out).to_text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--preset", "medium"), "--preset is 'medium'; choose from fast, balanced, thorough, paper"),
        (("--sample", "0"), "setting 'sample' is 0"),
        (("--minimum-share", "2"), "setting 'minimum_share' is 2"),
        (("--set", 'crops={"grids":[0]}'), "grids"),
        (("--set", "sampel=3"), "setting 'sampel' is unknown"),
        (("--nouns", "missing.txt"), "no such class list: missing.txt"),
        (("--nouns", "{folder}/nouns.txt"), "nouns.txt:2: 'cat' is already named at"),
        (("--page", "{folder}/classes.txt"), "name two different files"),
        (("--page", "{folder}"), "is a folder; the output is a file"),
        (("--nouns", "{folder}/classes.txt"), "holds the nouns"),
        (("--page", "{folder}/nouns.txt/page.html"), "nouns.txt is not a folder that may be written to"),
    ],
)
def test_mistakes_are_one_line_and_come_before_any_model(
    options: tuple[str, ...], complaint: str, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "nouns.txt").write_text("cat\ncat\n")
    typed = [option.replace("{folder}", str(tmp_path)) for option in options]
    ran = run("suggest", scenes, "-o", tmp_path / "classes.txt", "--image-text", "missing/model", *typed)
    assert ran.code == 2
    assert complaint in ran.complaint
    assert not (tmp_path / "classes.txt").exists()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("suggest", tmp_path / "empty", "-o", tmp_path / "classes.txt")
    assert ran.code == 2
    assert "no photographs" in ran.complaint


def test_a_photograph_is_never_overwritten(scenes: Path) -> None:
    photo = min(scenes.iterdir())
    before = photo.read_bytes()
    ran = run("suggest", scenes, "-o", photo, "--overwrite", "--image-text", "missing/model")
    assert (ran.code, photo.read_bytes()) == (2, before)
    assert "is one of the photographs" in ran.complaint
