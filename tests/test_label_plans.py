"""Before the night: what a labelling would take, and how it would look."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from patchword.config.inputs import choose_images
from patchword.config.label import LABEL_PRESETS, LabelConfig
from patchword.errors import PatchwordError
from patchword.labeling.api import load_parts, models_of, page_for, portion_of
from patchword.labeling.preview import estimate_labelling
from patchword.runs import plan as plans
from patchword.runs.estimate import Estimate, spread
from small_world import LABEL_SETTINGS, Models, files_in, label_command, make_photos, must, run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_photos(tmp_path_factory.mktemp("plans") / "photos", count=9)
    (folder / "broken.jpg").write_text("no photograph")
    return folder


def test_samples_are_spread() -> None:
    assert spread(range(9), 3) == [1, 4, 7]
    assert spread(range(2), 3) == [0, 1]
    assert spread(range(100_000), 3) == [16_666, 50_000, 83_333]
    assert spread([], 3) == []


def test_a_dry_run_labels_three_photographs_and_keeps_nothing(photos: Path, models: Models, tmp_path: Path) -> None:
    command = [*label_command(photos, out=tmp_path / "labels", models=models), "--dry-run"]
    before = files_in(photos)
    plan = json.loads(must(run(*command, "--json")).out)
    cost = plan["estimate"]
    assert cost["sample"] == ["1.png", "5.png", "8.png"]
    assert cost["seconds"] == pytest.approx(10 / cost["images_a_second"], rel=0.02, abs=0.1)
    assert cost["disk_bytes"] >= 10 * 2 * 4096  # ten photographs of two files each
    assert cost["free_bytes"] > 0
    assert datetime.fromisoformat(cost["done"]) > datetime(2026, 1, 1, tzinfo=UTC)
    assert "nothing was written" in plan["remark"]
    shown = must(run(*command)).out
    assert re.search(r"^speed +[\d.]+ images a second$", shown, re.MULTILINE)
    assert re.search(r"^time +\d+ s, done at .* if begun now$", shown, re.MULTILINE)
    assert re.search(r"^disk +[\d.]+ kB, of [\d.]+ .B free$", shown, re.MULTILINE)
    assert not (tmp_path / "labels").exists()
    assert files_in(photos) == before


def test_settings_come_from_the_preset_then_from_what_is_said(photos: Path, tmp_path: Path) -> None:
    def settings(*options: object) -> dict[str, object]:
        command = ("label", photos, "--classes", "cat", "-o", tmp_path / "labels", "--dry-run", "--json", *options)
        found: dict[str, object] = json.loads(must(run(*command)).out)["settings"]
        return found

    assert settings() == LABEL_PRESETS["balanced"].model_dump(mode="json")
    assert settings("--preset", "fast") == LABEL_PRESETS["fast"].model_dump(mode="json")
    chosen = settings("--preset", "thorough", "--generator", "sam-then-clip", "--set", "margin=0.5")
    changed = {"generator": "sam-then-clip", "margin": 0.5}
    assert chosen == LABEL_PRESETS["thorough"].model_dump(mode="json") | changed
    complaint = must(run("label", photos, "--classes", "cat", "-o", tmp_path / "x", "--generator", "sam"), code=2)
    assert "--generator is 'sam'" in complaint.complaint


def test_a_dry_run_counts_what_is_left(photos: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(photos, out=tmp_path / "labels", models=models)
    must(run(*command, "--limit", 4))
    plan = json.loads(must(run(*command, "--resume", "--dry-run", "--json")).out)
    assert plan["counts"]["labelled already"] == 4
    assert plan["estimate"]["seconds"] == pytest.approx(6 / plan["estimate"]["images_a_second"], rel=0.02, abs=0.1)
    plan = json.loads(must(run(*command, "--limit", 4, "--resume", "--dry-run", "--json")).out)
    assert plan["estimate"] is None
    assert "nothing is left to label" in plan["remark"]
    plan = json.loads(must(run(*command[:-1], "--shard", "2/4", "--dry-run", "--json")).out)
    assert plan["counts"]["photographs"] == 3


def test_without_the_models_there_are_counts_and_the_reason(photos: Path, tmp_path: Path) -> None:
    command = ("label", photos, "--classes", "cat", "-o", tmp_path / "labels", "--dry-run", "--json")
    plan = json.loads(must(run(*command)).out)
    assert plan["counts"]["photographs"] == 10
    assert plan["estimate"] is None
    assert plan["remark"].startswith("none, for it needs openai/clip-vit-base-patch16, facebook/sam2.1-hiera-base-plus")


def test_a_folder_that_cannot_be_read_has_no_estimate(models: Models, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_text("no photograph")
    command = label_command(tmp_path / "photos", out=tmp_path / "labels", models=models)
    plan = json.loads(must(run(*command, "--dry-run", "--json")).out)
    assert plan["estimate"] is None
    assert "no photograph of the sample can be labelled: cannot read" in plan["remark"]


def test_the_slowest_of_three_stages_sets_the_pace(photos: Path, models: Models, tmp_path: Path) -> None:
    config = LabelConfig(
        classes="cat, dog",
        out=tmp_path,
        image_text=models.clip,
        mask_generator=models.sam,
        settings=LABEL_SETTINGS,
        device="cpu",
    )
    # started, read, asked, written for each of three: models take 8, 2 and 3 seconds, writing 1, decoding 0.5
    moments = iter([0, 0.5, 8.5, 9.5, 10, 10.5, 12.5, 13.5, 20, 20.5, 23.5, 24.5])
    found = estimate_labelling(
        portion_of(choose_images(photos, out=config.out), config),
        parts=load_parts(models_of(config), config),
        settings=config.numbers,
        clock=lambda: next(moments),
    )
    assert found.seconds_a_photograph == 3
    assert found.model_share == 1
    assert found.seconds == 30
    assert Estimate(("a",), 10, 2.0, 1.0, 5000).disk == 50_000


def test_too_little_disk_is_said() -> None:
    cost = plans.Cost(("a",), 1.0, 10.0, "2026-01-01 00:00", 1.0, disk_bytes=3_000_000_000, free_bytes=2_000_000)
    assert ("disk", "3 GB, but there are only 2 MB free") in cost.rows()


def test_a_preview_is_one_page_beside_the_output(photos: Path, models: Models, tmp_path: Path) -> None:
    command = [*label_command(photos, out=tmp_path / "labels", models=models), "--preview", 4]
    ran = must(run(*command))
    page = tmp_path / "labels-preview.html"
    assert ran.out.splitlines()[0].startswith("4 of 10 photographs in ")
    assert ran.out.splitlines()[1] == str(page)
    assert [path.name for path in tmp_path.iterdir()] == ["labels-preview.html"]
    text = page.read_text()
    assert "Preview: 4 of 10 photographs" in text
    for name in ("1.png", "3.png", "6.png", "8.png"):
        assert f"photograph {name}" in text
    assert text.count("data:image/jpeg;base64,") == text.count("data:image/png;base64,") == 4
    assert all(f">{setting}</th>" in text for setting in LABEL_SETTINGS)
    assert not re.search(r"(src|href)=['\"](?!data:|#)", text)  # needs nothing else
    shown = json.loads(must(run(*command, "--json")).out)  # replaces its own page
    assert (shown["images"], shown["of"]) == (4, 10)


def test_a_page_may_be_named_and_nothing_else_is_replaced(photos: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(photos, out=tmp_path / "look.html", models=models)
    must(run(*command, "--preview", 1))
    assert [path.name for path in tmp_path.iterdir()] == ["look.html"]
    (tmp_path / "look.html").write_text("mine")
    assert "not replaced" in must(run(*command, "--preview", 1), code=2).complaint
    assert (tmp_path / "look.html").read_text() == "mine"
    for count in (0, 1001):
        complaint = must(run(*command, "--preview", count), code=2).complaint
        assert f"a preview of {count} photographs; choose 1 to 1000" in complaint


def test_options_that_do_not_go_together(photos: Path, models: Models, tmp_path: Path) -> None:
    command = label_command(photos, out=tmp_path / "labels", models=models)
    assert "either --dry-run or --preview" in must(run(*command, "--dry-run", "--preview", 2), code=2).complaint
    for option in ("retry_failed", "forget_missing"):
        complaint = must(run(*command, f"--{option.replace('_', '-')}"), code=2).complaint
        assert f"{option} requires resume" in complaint
    assert not (tmp_path / "labels").exists()


def test_where_a_page_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert page_for("labels/") == Path("labels-preview.html")
    assert page_for("a/b") == Path("a/b-preview.html")
    assert page_for("a/B.HTML") == Path("a/B.HTML")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(PatchwordError, match="not replaced"):
        page_for("folder.html")
