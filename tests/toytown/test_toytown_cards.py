"""The cards: what made the weights, how good they are, and the curve over trainings that went on from each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.miniatures import cards
from tools.miniatures.measure_clip import NamingMeasurement
from tools.miniatures.measure_dino import ProbeMeasurement
from tools.miniatures.measure_sam import SamMeasurement


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    naming = NamingMeasurement(accuracy=0.9, crops=10, per_class={"cow": 0.8, "car": 1.0})
    sam = SamMeasurement(things=0.7, stuff=0.8, all=0.75, best=0.8, iou_error=0.1, count=9)
    monkeypatch.setattr(cards, "measure_clip", lambda *_, **__: naming)
    monkeypatch.setattr(cards, "measure_dino", lambda *_, **__: ProbeMeasurement(0.66, 0.2, {"cow": 0.5, "sky": 0.9}))
    monkeypatch.setattr(cards, "measure_sam", lambda *_, **__: sam)
    first = {"recipe": {"steps": 20, "scenes": 7, "seed": 0, "rate": 1e-3}, "step": 20, "seconds": 100, "measured": 0.5}
    second = {**first, "recipe": {**first["recipe"], "steps": 30, "rate": 5e-4, "before": first}, "step": 10}
    for name, record in (("clip", first), ("sam", first), ("dino", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(json.dumps(record))
    return tmp_path


def test_a_card_has_every_command_and_the_curve(folder: Path) -> None:
    cards.write_cards(folder, scenes=3)
    text = (folder / "dino" / "README.md").read_text()
    train = "`python -m tools.miniatures.train dino --out FOLDER --steps"
    assert f"{train} 20 --scenes 7 --seed 0`, then {train} 30 --scenes 7 --seed 0 --rate 0.0005 --start" in text
    assert "stopped after 10 steps" in text
    assert "took 200 seconds" in text
    assert "0.500 after 20 steps, 0.660 after 30 steps" in text


def test_one_training_is_no_curve_but_is_kept_for_the_next(folder: Path) -> None:
    cards.write_cards(folder, scenes=3)
    assert "over the trainings" not in (folder / "sam" / "README.md").read_text()
    assert json.loads((folder / "sam" / "train.json").read_text())["measured"] == 0.75
