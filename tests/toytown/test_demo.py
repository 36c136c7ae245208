"""The demo runs the whole way, twice alike, and its report says what it must."""

from __future__ import annotations

import json
import re
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import warm
from patchword.config.label import LabelSettings
from patchword.errors import PatchwordError
from patchword.toytown import demo, demo_work


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:  # every stage, as short as it can be
        patch.setattr(demo_work, "get_context", lambda method: get_context(warm.START))
        patch.setattr(demo, "LABEL_SETTINGS", LabelSettings(grids=(1, 2), points_per_side=12))
        patch.setattr(demo, "ALIGN_SETTINGS", demo.ALIGN_SETTINGS.model_copy(update={"steps": 8}))
        first, second = (
            demo.run_demo(folder / name, scenes=3, evaluated=2, quiet=True).parent for name in ("first", "second")
        )
    return first, second


def _report(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return record


def test_the_report_holds_every_score(twice: tuple[Path, Path]) -> None:
    record = _report(twice[0])
    assert {"miou", "coverage", "pixel_accuracy"} <= record["pseudo_labels"].keys()
    assert {"miou_seen", "miou_unseen_classes", "miou_other_style"} <= record["aligned"].keys()
    assert "miou_seen" in record["oracle"]
    assert "miou_seen" in record["baseline_dense_clip"]
    assert {"draw", "label", "align, and the oracle beside it", "evaluate", "total"} <= record["seconds"].keys()
    assert record["ratio_to_oracle"] == pytest.approx(record["aligned"]["miou_seen"] / record["oracle"]["miou_seen"])
    assert not set(record["settings"]["unseen_classes"]) & set(record["settings"]["seen_classes"])
    methods = ["maskclip", "sclip", "clearclip", "naclip", "proxyclip", "aligned", "oracle: exact masks"]
    assert record["methods"].keys() == set(methods)
    assert record["refinement"].keys() == record["seconds_a_scene"].keys() == {"none", "jbu", "pamr", "sam"}
    assert record["methods"]["aligned"]["day_seen"]["miou"] == pytest.approx(record["aligned"]["miou_seen"])
    assert record["refinement"]["jbu"]["dusk_seen"]["miou"] == pytest.approx(record["aligned"]["miou_other_style"])
    unseen = record["methods"]["oracle: exact masks"]["day_unseen_classes"]["miou"]
    assert unseen == record["oracle"]["miou_unseen_classes"]
    for scores in (row[column] for row in record["methods"].values() for column in row):
        assert scores["miou"] is None or 0 <= scores["low"] <= scores["high"] <= 1
    assert record["quality_score"] == {"day": None, "dusk": None}  # too few scenes for fifths
    parts = []
    for style in ("pseudo_labels", "pseudo_labels_other_style"):
        alone = record[style].pop("by_generator")
        assert alone.keys() == {"clip-prompts-sam", "sam-then-clip"}
        assert record[style]["coverage"] >= max(scores["coverage"] for scores in alone.values()) - 0.1
        parts += [record[style], *alone.values()]
    for scores in (*parts, *(record[name] for name in ("aligned", "oracle", "baseline_dense_clip"))):
        assert all(value is None or 0 <= value <= 1 for value in scores.values()), scores


def test_the_same_seed_gives_the_same_masks_and_scores(twice: tuple[Path, Path]) -> None:
    first, second = (_report(folder) for folder in twice)
    for volatile in ("seconds", "seconds_a_scene", "versions"):
        first.pop(volatile)
        second.pop(volatile)
    assert first == second
    masks = sorted(path.relative_to(twice[0]) for path in (twice[0] / "labels" / "masks").iterdir())
    assert len(masks) == 3
    for mask in masks:
        assert (twice[0] / mask).read_bytes() == (twice[1] / mask).read_bytes()
    weights = Path("model") / "model.safetensors"
    assert (twice[0] / weights).read_bytes() == (twice[1] / weights).read_bytes()


def test_the_page_stands_alone(twice: tuple[Path, Path]) -> None:
    page = (twice[0] / "report.html").read_text()
    assert page.count("<img ") >= 4 * 4
    links = re.findall(r'href="([^#?"]+)\?up=../report.html"', page)
    assert links == [f"{name}/report.html" for name in ("labels", "labels-dusk", "masks", "evaluation")]
    assert all((twice[0] / link).is_file() for link in links)
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert str(twice[0]) not in page


def test_unseen_classes_reach_neither_labels_nor_training(twice: tuple[Path, Path]) -> None:
    unseen = _report(twice[0])["settings"]["unseen_classes"]
    for name in ("labels/dataset.json", "model/config.json"):
        text = (twice[0] / name).read_text()
        assert not [word for word in unseen if f'"{word}"' in text or f"\\n{word}\\n" in text], name


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 100}, {"scenes": 1}, {"evaluated": 0}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(PatchwordError, match=r"choose \d+ to"):
        demo.run_demo(tmp_path / "demo", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "demo").exists()
