"""Going on with labels: what is refused by name, what is done again, and that a refusal changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from label_fakes import ColourClip, RegionSam, picture
from PIL import Image

from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import CHANGED, GONE, LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder
from small_world import files_in, state_of

NAMES = ("a.png", "b.png", "sub/c.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in zip(NAMES, ("red", "blue", "yellow"), strict=True):
        draw(tmp_path / "photos" / name, colour)
    return tmp_path / "photos"


def draw(path: Path, *colours: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture([colours], scale=16)).save(path)


def make_parts(classes: str = "red, blue, yellow", **changes: Any) -> LabelParts:
    vocabulary = Vocabulary.of(classes, background=["white"])
    return replace(LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=vocabulary), **changes)


def run(photos: Path, out: Path, **changes: Any) -> LabelledDataset:
    options: dict[str, Any] = {"parts": make_parts(), "quiet": True} | changes
    return label_folder(find_images(photos), root=photos, out=out, **options)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def in_type(dtype: torch.dtype) -> LabelParts:
    clip = ColourClip()
    clip.dtype = dtype  # type: ignore[attr-defined]
    return make_parts(image_text=clip)


def test_another_first_number_of_a_decisive_version_is_refused(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels", limit=1)
    recorded = json.loads((tmp_path / "labels" / "dataset.json").read_text())["numerics"]
    assert recorded["versions"]["torch"] == torch.__version__.split(".")[0]
    edit(tmp_path / "labels", numerics=recorded | {"versions": recorded["versions"] | {"torch": "1"}})
    with pytest.raises(PatchwordError, match=r"the version of torch was 1, now \d; go on with .*torch 1"):
        run(photos, tmp_path / "labels", resume=True)


def test_another_number_of_threads_is_said_and_not_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "labels", limit=1)
    recorded = json.loads((tmp_path / "labels" / "dataset.json").read_text())["numerics"]
    here = recorded.pop("threads")
    assert here == torch.get_num_threads()
    for threads, said in (
        ({}, ""),
        ({"threads": 97}, f"torch computed in {here} and 97 threads: last digits may differ"),
    ):
        edit(tmp_path / "labels", numerics=recorded | threads)
        run(photos, tmp_path / "labels", limit=1, resume=True, quiet=False)
        told = capsys.readouterr().err
        assert said in told
        assert ("threads" in told) == bool(said)


def test_a_folder_of_an_earlier_version_goes_on_with_a_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "labels", limit=1)
    data = json.loads((tmp_path / "labels" / "dataset.json").read_text())
    del data["numerics"]
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps(data))
    assert len(LabelledDataset.open(tmp_path / "labels")) == 1
    run(photos, tmp_path / "labels", resume=True, parts=in_type(torch.bfloat16), quiet=False)
    assert "was begun by an earlier version of patchword, which recorded neither dtype nor" in capsys.readouterr().err
    assert len(LabelledDataset.open(tmp_path / "labels")) == 3


def test_gone_photographs_are_refused_before_anything_is_changed(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    (photos / "b.png").unlink()
    before = state_of(tmp_path / "labels")
    with pytest.raises(PatchwordError, match=r"1 of 3 labelled photographs are gone from .*, such as b\.png"):
        run(photos, tmp_path / "labels", resume=True)
    assert state_of(tmp_path / "labels") == before


def test_a_changed_photograph_is_labelled_again_and_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "labels")
    draw(photos / "b.png", "yellow", "blue")
    assert LabelledDataset.open(tmp_path / "labels").unusable() == {"b.png": CHANGED}
    run(photos, tmp_path / "labels", resume=True, quiet=False)
    assert "1 photograph changed since it was labelled: b.png; labelled again" in capsys.readouterr().err
    assert LabelledDataset.open(tmp_path / "labels").unusable() == {}
    run(photos, tmp_path / "fresh")
    left, fresh = files_in(tmp_path / "labels"), files_in(tmp_path / "fresh")
    assert {name for name in left | fresh if left.get(name) != fresh.get(name)} == {"runs.jsonl"}


def test_the_same_photographs_may_be_in_another_folder(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "labels", limit=2)
    moved = photos.rename(tmp_path / "moved")
    before = (tmp_path / "labels" / "masks" / "a.png.png").stat().st_mtime_ns
    dataset = run(moved, tmp_path / "labels", resume=True, quiet=False)
    assert "the photographs were in ../photos and are now in ../moved, with the same content" in capsys.readouterr().err
    assert (tmp_path / "labels" / "masks" / "a.png.png").stat().st_mtime_ns == before  # not labelled again
    assert len(dataset) == 3
    assert len(LabelledDataset.open(tmp_path / "labels")) == 3


def test_a_wrong_folder_does_not_cost_the_labels(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    before = state_of(tmp_path / "labels")
    draw(tmp_path / "wrong" / "z.png", "red")
    with pytest.raises(PatchwordError, match=r"was \.\./photos, now \.\./wrong, where 3 of 3 are not the same"):
        run(tmp_path / "wrong", tmp_path / "labels", resume=True, forget_missing=True)
    assert state_of(tmp_path / "labels") == before
    with pytest.raises(PatchwordError, match=r"3 of 3"):
        run(tmp_path / "wrong", tmp_path / "labels", resume=True)


def test_photographs_that_are_gone_or_changed_are_told_apart(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    (photos / "a.png").unlink()
    draw(photos / "sub" / "c.png", "blue")
    with pytest.raises(PatchwordError, match=r"1 of 3 photographs of .* are gone from .*, such as a\.png"):
        LabelledDataset.open(tmp_path / "labels")
    dataset = LabelledDataset.open(tmp_path / "labels", allow_missing=True)
    assert dataset.unusable() == {"a.png": GONE, "sub/c.png": CHANGED}
    (photos / "b.png").unlink()
    (photos / "sub" / "c.png").unlink()
    with pytest.raises(PatchwordError, match="3 of 3 are gone"):
        LabelledDataset.open(tmp_path / "labels", allow_missing=True)
