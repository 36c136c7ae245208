"""The command line: the whole way on tiny models, its options, its exit codes and what it prints where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import patchword
from patchword.cli.terminal import parse_settings
from patchword.config.shared import split_words
from patchword.errors import PatchwordError
from small_world import (
    Models,
    align_command,
    files_in,
    label_command,
    make_photos,
    make_world,
    must,
    run,
)

COMMANDS = (
    "demo",
    "label",
    "merge",
    "align",
    "segment",
    "evaluate",
    "export",
    "import",
    "encoders",
    "models",
    "models list",
    "models check",
    "models fetch",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """A folder with photos/, labels/, model/ and segmented/, made by the commands."""
    folder = tmp_path_factory.mktemp("made")
    photos = make_world(folder, models=models)
    classes = ("--classes", "cat, lamp", "--background", "sky, wall")
    must(run("segment", photos, "--model", folder / "model", *classes, "-o", folder / "segmented"))
    return folder


def test_the_whole_way_leaves_what_it_should(made: Path) -> None:
    files = set(files_in(made))
    assert {
        "labels/dataset.json",
        "labels/manifest.jsonl",
        "labels/masks/0.png.png",
        "labels/segments/1.png.json",
    } < files
    assert {"model/model.safetensors", "model/config.json", "model/README.md"} < files
    assert {"segmented/masks/0.png.png", "segmented/overlays/1.png.jpg", "segmented/results.jsonl"} < files
    record = json.loads((made / "segmented/segment.json").read_text())
    assert "cat\nlamp" in record["vocabulary"]
    assert "@background: sky; wall" in record["vocabulary"]


def test_evaluating_the_model_and_its_predictions_agree(made: Path) -> None:
    common = ("evaluate", made / "photos", "--masks", made / "labels/masks", "--classes", "cat, dog, sofa", "--json")
    must(run("segment", made / "photos", "--model", made / "model", "-o", made / "trained-classes"))
    of_model = json.loads(must(run(*common, "--model", made / "model")).out)
    of_files = json.loads(must(run(*common, "--predictions", made / "trained-classes")).out)
    assert of_model["images"] == 2
    assert of_model["predicted_by"]["kind"] == "aligned"
    same = ("miou", "pixel_accuracy", "coverage", "classes", "vocabulary_hash", "versions")
    assert {name: of_model[name] for name in same} == {name: of_files[name] for name in same}


def test_evaluate_prints_a_table_and_writes_a_report(made: Path, tmp_path: Path) -> None:
    masks = made / "labels/masks"
    options = (
        "--masks",
        masks,
        "--classes",
        "cat, dog, sofa",
        "--predictions",
        made / "labels",
        "-o",
        tmp_path / "report",
    )
    ran = must(run("evaluate", made / "photos", *options))
    assert "mIoU" in ran.out
    assert "100.0%" in ran.out
    assert json.loads((tmp_path / "report/evaluation.json").read_text())["miou"] == 1.0
    assert "not empty" in must(run("evaluate", made / "photos", *options), code=2).complaint
    must(run("evaluate", made / "photos", *options, "--overwrite"))


def test_json_goes_to_standard_output_alone(made: Path, tmp_path: Path, models: Models) -> None:
    labelled = must(run(*label_command(made / "photos", out=tmp_path / "labels", models=models), "--json"))
    assert json.loads(labelled.out)["images"] == 2
    aligned = must(run(*align_command(tmp_path / "labels", out=tmp_path / "model", models=models), "--json"))
    assert json.loads(aligned.out)["training"]["steps"] == 2
    segmented = must(
        run("segment", made / "photos", "--model", tmp_path / "model", "-o", tmp_path / "out", "--json", "--limit", 1)
    )
    told = json.loads(segmented.out)
    assert told.pop("session")["done"] == {"ok": 1, "failed": 0}
    assert told == {"folder": str(tmp_path / "out"), "segmented": 1, "failed": {}}


def test_a_dry_run_shows_everything_and_does_nothing(made: Path, tmp_path: Path, models: Models) -> None:
    before = files_in(made)
    command = [*label_command(made / "photos", out=tmp_path / "labels", models=models), "--dry-run"]
    plan = json.loads(must(run(*command, "--json", "--limit", 1)).out)
    assert plan["counts"] == {"photographs": 1, "classes": 3, "background words": 0}
    assert plan["models"]["image-text"].startswith(f"{models.clip} (local folder, 0.")
    assert plan["models"]["image-text"].endswith(" MB)")
    assert plan["settings"]["grids"] == [1, 2]
    assert "pred_iou_thresh" in must(run(*command)).out
    command = [*align_command(made / "labels", out=tmp_path / "model", models=models), "--dry-run", "--seed", 7]
    plan = json.loads(must(run(*command, "--json")).out)
    assert plan["counts"] == {"photographs": 2, "classes": 3, "steps at most": 2}
    assert plan["models"]["text encoder"].startswith(f"{models.clip} (local folder, ")
    assert plan["settings"]["seed"] == 7
    assert not (tmp_path / "labels").exists()
    assert not (tmp_path / "model").exists()
    assert files_in(made) == before


def test_a_dry_run_names_the_presets_models(made: Path, tmp_path: Path) -> None:
    command = (
        "label",
        made / "photos",
        "--classes",
        "cat",
        "-o",
        tmp_path / "labels",
        "--dry-run",
        "--preset",
        "thorough",
    )
    out = must(run(*command)).out
    assert "openai/clip-vit-large-patch14-336 (to be fetched, about" in out
    assert "facebook/sam-vit-huge" in out


def test_resuming_a_finished_run_changes_nothing(made: Path, models: Models) -> None:
    before = files_in(made)
    must(run(*label_command(made / "photos", out=made / "labels", models=models), "--resume"))
    must(run(*align_command(made / "labels", out=made / "model", models=models), "--resume"))
    after = files_in(made)
    assert {name for name in before if after[name] != before[name]} == {"labels/runs.jsonl"}


def test_the_same_seed_gives_the_same_model_and_another_does_not(made: Path, tmp_path: Path, models: Models) -> None:
    weights = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        must(run(*align_command(made / "labels", out=tmp_path / name, models=models), "--seed", seed))
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["a"] == weights["b"] != weights["c"]


def test_an_interruption_ends_with_130(
    made: Path, tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patchword, "label", interrupted)
    command = label_command(made / "photos", out=tmp_path / "labels", models=models)
    for options, advice in (((), "and --resume"), (("--overwrite",), "--resume instead of --overwrite")):
        monkeypatch.setattr(sys, "argv", ["patchword", *options])
        complaint = must(run(*command, *options), code=130).complaint
        assert complaint.startswith("patchword: interrupted; what is finished is on disk; go on with the same command")
        assert complaint.endswith(advice)


def test_an_interrupted_export_names_no_option_that_it_lacks(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patchword.export.run.export_labels", interrupted)
    monkeypatch.setattr(sys, "argv", ["patchword"])
    ran = must(run("export", made / "labels", "--format", "hf", "-o", tmp_path / "hf"), code=130)
    assert ran.complaint == "patchword: interrupted; what is finished is on disk"


def test_shards_are_merged(made: Path, tmp_path: Path, models: Models) -> None:
    for index in (1, 2):
        command = label_command(made / "photos", out=tmp_path / f"part {index}", models=models)
        must(run(*command, "--shard", f"{index}/2"))
    assert "shards are missing: 2/2" in must(run("merge", tmp_path / "part 1", "-o", tmp_path / "x"), code=2).complaint
    shards = (tmp_path / "part 1", tmp_path / "part 2")
    merged = json.loads(must(run("merge", *shards, "-o", tmp_path / "merged", "--json")).out)
    assert merged["images"] == 2
    must(run(*label_command(made / "photos", out=tmp_path / "whole", models=models)))
    first, second = (files_in(tmp_path / name) for name in ("merged", "whole"))
    assert {name for name in first if first[name] != second.get(name)} == {"runs.jsonl"}
    assert first.keys() == second.keys()


def test_the_last_lines_say_how_long_and_what_else(made: Path, tmp_path: Path, models: Models) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "2.png").write_bytes((photos / "0.png").read_bytes())
    (photos / "broken.jpg").write_text("no photograph")
    ran = must(run(*label_command(photos, out=tmp_path / "labels", models=models)), code=1)
    first, second, third, fourth, fifth = ran.out.splitlines()
    assert fifth == f"next: patchword align {tmp_path / 'labels'} -o model"
    assert first.endswith("failed")
    assert second.startswith("3 labelled and 1 failed in ")
    assert second.endswith("images a second")
    assert fourth == f"{tmp_path / 'labels' / 'report.html'} shows what they are worth, the worst first"
    assert third == "1 duplicate, labelled too"
    ran = must(run(*label_command(photos, out=tmp_path / "labels", models=models), "--resume"), code=1)
    assert "0 labelled in 0 s; 4 were there before" in ran.out
    assert "1 failed earlier, not tried again; --retry-failed tries them" in ran.out
    make_photos(photos, 1)
    (photos / "broken.jpg").write_bytes((photos / "1.png").read_bytes())
    must(run(*label_command(photos, out=tmp_path / "labels", models=models), "--resume", "--retry-failed"))


def test_the_demo_is_called_with_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    scores = dict.fromkeys(("miou", "miou_same_scenes", "miou_seen", "miou_unseen_classes", "miou_other_style"), 0.5)
    parts = ("aligned", "oracle", "baseline_dense_clip", "pseudo_labels", "pseudo_labels_other_style")
    record = dict.fromkeys(parts, scores)
    fake = ModuleType("patchword.toytown.demo")

    def run_demo(out: Path, *, seed: int, scenes: int, overwrite: bool, quiet: bool) -> Path:
        asked.extend([out, seed, scenes, overwrite, quiet])
        out.mkdir()
        (out / "report.json").write_text(json.dumps(record))
        return out / "report.html"

    fake.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "patchword.toytown.demo", fake)
    ran = must(run("demo", "-o", tmp_path / "demo", "--seed", 3, "--scenes", 12, "-q"))
    assert asked == [tmp_path / "demo", 3, 12, False, True]
    *table, page, after = ran.out.splitlines()
    assert table[2].split() == ["aligned", "segmenter", "50.0%", "50.0%", "50.0%", "50.0%"]
    assert page == str(tmp_path / "demo/report.html")
    assert after == "next: patchword suggest photos -o classes.txt"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(command: str) -> None:
    ran = must(run(*command.split(), "--help"))
    assert "Usage:" in ran.out
    assert ran.err == ""


def test_version() -> None:
    assert must(run("--version")).out.strip() == patchword.__version__


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("label",), ("label", "photos", "--frobnicate"), ("align", "labels", "-o", "model", "--seed", "x")],
)
def test_usage_errors_end_with_2(arguments: tuple[str, ...]) -> None:
    ran = must(run(*arguments), code=2)
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_as_a_module_without_a_traceback(tmp_path: Path) -> None:
    source = str(Path(patchword.__file__).parents[1])
    code = f"import sys, runpy; sys.path.insert(0, {source!r}); runpy.run_module('patchword', run_name='__main__')"
    command = [
        sys.executable,
        "-c",
        code,
        "label",
        str(tmp_path / "absent"),
        "--classes",
        "cat",
        "-o",
        str(tmp_path / "out"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("patchword: no such file or folder")


def test_models_list_needs_no_hub() -> None:
    listed = json.loads(must(run("models", "list", "--json")).out)
    by_name = {model["checkpoint"]["name"]: model for model in listed}
    assert by_name["openai/clip-vit-base-patch16"]["presets"] == ["fast", "balanced", "paper"]
    assert by_name["facebook/sam-vit-huge"]["checkpoint"]["licence"] == "Apache-2.0"
    table = must(run("models", "list")).out
    assert all(name in table for name in by_name)


def test_models_check(models: Models, tmp_path: Path) -> None:
    assert "loads (encoder)" in must(run("models", "check", models.dinov2)).out
    tmp_path.joinpath("config.json").write_text("{}")
    ran = must(run("models", "check", models.clip, tmp_path, "--json"), code=1)
    first, second = json.loads(ran.out)
    assert (first["kind"], first["problem"]) == ("image-text", "")
    assert "model_type" in second["problem"]


def test_models_fetch_without_a_hub_says_how(tmp_path: Path) -> None:
    ran = must(run("models", "fetch", "--preset", "fast", "--to", tmp_path / "weights"), code=2)
    assert "openai/clip-vit-base-patch16" in ran.complaint
    assert "patchword demo" in ran.complaint
    assert "nothing to fetch" in must(run("models", "fetch"), code=2).complaint


def test_settings_are_json_where_they_can_be() -> None:
    given = ["a=1", "b=0.5", "c=[1, 2]", "d=null", "e=sclip", "f=true", "g=x=y", " h = 1e-3"]
    expected = {"a": 1, "b": 0.5, "c": [1, 2], "d": None, "e": "sclip", "f": True, "g": "x=y", "h": 0.001}
    assert parse_settings(given) == expected


def test_settings_of_a_group_have_its_name_before_a_dot() -> None:
    assert parse_settings(["a.b=1", "a.c=[2]", "d=x.y"]) == {"a": {"b": 1, "c": [2]}, "d": "x.y"}


@pytest.mark.parametrize(
    "given", [["a"], ["=1"], ["a=1", "a=2"], ["a.b=1", "a.b=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]]
)
def test_settings_that_are_not_understood(given: list[str]) -> None:
    with pytest.raises(PatchwordError, match="--set"):
        parse_settings(given)


def test_words() -> None:
    assert split_words("sky, wall;  tall grass,") == ["sky", "wall", "tall grass"]
    assert split_words("") == []
