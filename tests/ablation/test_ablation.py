"""An ablation on the world of colours: every row is trained, judged and written down, and a stopped run goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "alignment"))

import colour_world

from patchword.ablation import run as ablation_run
from patchword.ablation.grid import ORACLE, AblationGrid, Row
from patchword.ablation.run import run_ablation, training_data, wrong_names
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.labeling.embeddings import CELLS, MaskEmbeddings
from small_world import state_of

SETTINGS = colour_world.SETTINGS.model_dump() | {"steps": 40}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exact masks, and labels of which every red region is called green."""
    data = colour_world.make_data(tmp_path)
    items = []
    for item in data.items:
        exact = LabelMap.load(item.label_map, names=data.vocabulary.names)
        wrong = tmp_path / "labels" / item.label_map.name
        LabelMap(np.where(exact.indices == 0, 1, exact.indices), exact.names).save(wrong)
        record = SimpleNamespace(name=item.image.name)
        items.append(SimpleNamespace(image=item.image, label_map=wrong, record=record, embeddings_file=None))
    labels = SimpleNamespace(
        items=tuple(items), vocabulary=data.vocabulary, folder=tmp_path / "labels", image_text=None
    )
    labels.reviewed = lambda: labels
    monkeypatch.setattr(ablation_run, "LabelledDataset", SimpleNamespace(open=lambda folder: labels))
    return tmp_path


def grid(world: Path, **changes: Any) -> AblationGrid:
    values = {
        "labels": "labels",
        "truth": "masks",
        "tests": [
            {"name": "all", "photos": "photos", "masks": "masks"},
            {"name": "blue alone", "photos": "photos", "masks": "masks", "score": ["blue"]},
        ],
        "seeds": [0, 1],
        "settings": SETTINGS,
        "rows": [{"name": "labels"}, {"name": "three photographs", "images": 3}],
    }
    path = world / "grid.json"
    path.write_text(json.dumps(values | changes))
    return AblationGrid.load(path)


def run(world: Path, **options: Any) -> Any:
    chosen = {
        "grid": grid(world),
        "out": world / "out",
        "encoder": colour_world.ColourPatches(),
        "quiet": True,
    } | options
    return run_ablation(chosen.pop("grid"), text_encoder=colour_world.ColourText(), device="cpu", **chosen)


def test_every_row_has_a_score_and_the_oracle_is_one_of_them(world: Path) -> None:
    table = run(world)
    assert table.columns == ("labels", "same photographs", "all", "blue alone")
    assert list(table.rows) == ["labels", "three photographs", ORACLE]
    labels, same, everything, _ = table.rows[ORACLE]
    assert labels.mean == 1.0
    assert everything.mean > 0.9
    assert same.deviation is not None
    assert table.rows["labels"][0].mean < 0.7  # red is never right, green holds what is red
    assert table.rows["labels"][2].mean < 0.75
    assert table.rows["labels"][3].mean > 0.9  # blue was labelled rightly
    text = (world / "out" / "table.md").read_text()
    assert text == table.markdown()
    assert f"| {ORACLE} | 100.0 ± 0.0 |" in text
    record = json.loads((world / "out" / "ablation.json").read_text())
    assert record["scores"]["labels"][0]["all"] == pytest.approx(
        2 * table.rows["labels"][2].mean - record["scores"]["labels"][1]["all"]
    )
    assert not (world / "out" / "work").exists()


def test_a_stopped_run_goes_on_and_trains_nothing_twice(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = grid(world, settings=SETTINGS | {"steps": 4})
    whole = run(world, grid=short, out=world / "whole")
    trained: list[str] = []
    real = ablation_run._Runs.train_and_judge

    def counted(self: Any, row: Row, *, seed: int) -> Any:
        if len(trained) == 2 and not (world / "again").exists():
            (world / "again").touch()
            raise KeyboardInterrupt
        trained.append(f"{row.name} {seed}")
        return real(self, row, seed=seed)

    monkeypatch.setattr(ablation_run._Runs, "train_and_judge", counted)
    with pytest.raises(KeyboardInterrupt):
        run(world, grid=short)
    before = state_of(world / "out")
    half: Any = colour_world.ColourPatches()
    half.dtype = torch.bfloat16
    with pytest.raises(PatchwordError, match="the dtype of the vision encoder was float32, now bfloat16"):
        run(world, grid=short, encoder=half, resume=True)
    assert state_of(world / "out") == before
    assert run(world, grid=short, resume=True) == whole
    assert len(trained) == len(set(trained)) == 6


@pytest.mark.parametrize("changed", ["settings", "tests", "version"])
def test_rows_of_other_settings_or_tests_are_trained_again(
    world: Path, changed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"settings": SETTINGS | {"steps": 4}, "rows": [{"name": "labels"}], "seeds": [0]}
    run(world, grid=grid(world, **short))
    results = world / "out" / "results.jsonl"
    if changed == "settings":
        short["settings"] |= {"label_smoothing": 0.5}
    if changed == "tests":
        short["tests"] = [{"name": "red alone", "photos": "photos", "masks": "masks", "score": ["red"]}]
    if changed == "version":  # what an earlier one did not record
        told = [json.loads(line) for line in results.read_text().splitlines()]
        for one in told:
            del one["settings"]
        results.write_text("".join(json.dumps(one) + "\n" for one in told))
    trained: list[str] = []
    real = ablation_run._Runs.train_and_judge

    def counted(self: Any, row: Row, *, seed: int) -> Any:
        trained.append(row.name)
        return real(self, row, seed=seed)

    monkeypatch.setattr(ablation_run._Runs, "train_and_judge", counted)
    again = run(world, grid=grid(world, **short), resume=True, quiet=False)
    assert trained == ["labels", ORACLE]
    assert (
        "row 'labels', seed 0, had other settings or tests, or another encoder; it is trained again\n"
        in capsys.readouterr().err
    )
    assert again == run(world, grid=grid(world, **short), out=world / "fresh")


def test_fewer_photographs_are_drawn_by_the_seed(world: Path) -> None:
    labels: Any = ablation_run.LabelledDataset.open("any")
    row = Row(name="few", images=3)
    options: dict[str, Any] = {"truth": world / "masks", "noisy": world / "noisy"}
    drawn = [training_data(labels, row=row, seed=seed, **options).items for seed in (0, 0, 1)]
    assert [len(items) for items in drawn] == [3, 3, 3]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(PatchwordError, match="a row wants 9 photographs; the labels have 8"):
        training_data(labels, row=Row(name="many", images=9), seed=0, **options)


def test_all_rows_but_the_oracle_learn_from_the_mask_embeddings_of_the_labels(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: Any = ablation_run.LabelledDataset.open("any")
    labels.image_text = colour_world.ColourText().record
    for item in labels.items:
        item.embeddings_file = world / "embeddings" / f"{item.image.name}.safetensors"
        item.embeddings_file.parent.mkdir(exist_ok=True)
        whole = torch.ones(1, CELLS, CELLS)
        MaskEmbeddings.of(torch.eye(labels.image_text.dim)[:1], shares=whole).save(item.embeddings_file)
    learned: dict[str, float] = {}
    real = ablation_run.patchword.align

    def align(data: Any, **options: Any) -> Any:
        segmenter = real(data, **options)
        history = json.loads((options["out"] / "training.json").read_bytes())["history"]
        learned[str(len(learned))] = max(record["patch_mask"] for record in history)
        return segmenter

    monkeypatch.setattr(ablation_run.patchword, "align", align)
    run(world, grid=grid(world, seeds=[0], settings=SETTINGS | {"steps": 2}))
    assert [value > 0 for value in learned.values()] == [True, True, False]


def test_noise_renames_whole_regions_and_leaves_the_rest() -> None:
    indices = np.random.default_rng(0).choice([0, 1, 2, 255], size=(20, 30)).astype(np.uint8)
    names = ("a", "b", "c")
    changed = 0
    for seed in range(200):
        made = wrong_names(LabelMap(indices, names), share=0.3, seed=seed).indices
        np.testing.assert_array_equal(made == 255, indices == 255)
        for index in range(3):
            found = set(made[indices == index].tolist())
            assert len(found) == 1
            changed += found != {index}
    assert changed / 600 == pytest.approx(0.3, abs=0.06)
    np.testing.assert_array_equal(wrong_names(LabelMap(indices, names), share=0, seed=1).indices, indices)
    whole = wrong_names(LabelMap(indices, names), share=1, seed=1).indices
    assert not (whole[indices != 255] == indices[indices != 255]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "rows"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "two rows have the same name"),
        ({"seeds": [1, 1]}, "a seed is listed twice"),
        ({"colour": 1}, "field 'colour' is unknown"),
        ({"rows": [{"name": "a", "label_noise": 2}]}, "label_noise' is 2"),
    ],
)
def test_grids_that_make_no_sense_are_refused(world: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PatchwordError, match=message) as error:
        grid(world, **changes)
    assert "grid.json" in str(error.value)


def test_missing_files_are_told_before_any_training(world: Path) -> None:
    with pytest.raises(PatchwordError, match=r"cannot read grid .*absent.json: No such file"):
        AblationGrid.load(world / "absent.json")
    (world / "broken.json").write_text("{")
    with pytest.raises(PatchwordError, match=r"broken.json is not JSON"):
        AblationGrid.load(world / "broken.json")
    with pytest.raises(PatchwordError, match=r"0.png has no exact mask in .*nowhere"):
        run(world, grid=grid(world, truth="nowhere"))
    assert not (world / "out").exists()
