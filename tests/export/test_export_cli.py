"""`patchword export` and `patchword import`: what they write, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from export_data import VOCABULARY, make_labels, truth

from patchword.labeling.dataset import LabelledDataset
from small_world import must, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported")
    make_labels(place, failed=("kaputt.jpg",))
    return place


def test_there_and_back_by_the_commands(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(VOCABULARY.to_text(), encoding="utf-8")
    out = must(run("export", folder / "labels", "--format", "voc", "-o", tmp_path / "voc")).out
    assert "photographs" in out
    assert str(tmp_path / "voc") in out
    must(
        run(
            *("import", tmp_path / "voc", "--format", "voc", "--photos", folder / "photos"),
            *("--classes", tmp_path / "classes.txt", "-o", tmp_path / "back"),
        )
    )
    before, after = truth(LabelledDataset.open(folder / "labels")), truth(LabelledDataset.open(tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, indices in before.items():
        np.testing.assert_array_equal(after[name], indices)


def test_json_says_what_polygons_lose(folder: Path, tmp_path: Path) -> None:
    done = must(
        run(
            *("export", folder / "labels", "--format", "yolo-seg", "-o", tmp_path / "yolo", "--json"),
            *("--set", "tolerance=2"),
        )
    )
    summary = json.loads(done.out)
    assert summary["format"] == "yolo-seg"
    assert summary["left_out"] == 1
    assert summary["polygon_loss"]["mean_iou_loss"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "pascal", "-o", "x"], "--format is 'pascal'; choose from coco,"),
        (["--format", "coco", "-o", "x"], "must be a file that ends in .json"),
        (["--format", "voc", "-o", "x", "--set", "shapes=boxes"], "setting 'shapes' is 'boxes'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2_and_make_no_folder(
    folder: Path, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", folder / "labels", *arguments)
    assert done.code == 2
    assert said in done.complaint
    assert not list(tmp_path.iterdir())
