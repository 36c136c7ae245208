"""An evaluation as a run: whatever stopped it or divided it, the scores are those of one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scored_folder import CLASSES, RedSegmenter, files_of, make_folder, photograph_of, save

from patchword.errors import PatchwordError
from patchword.evaluation.api import evaluate
from patchword.evaluation.masks import MaskRule, folder_task
from patchword.evaluation.predictors import SegmenterPredictor
from patchword.evaluation.report import EvaluationReport
from patchword.evaluation.run import UnscoredError, evaluate_task, merge_evaluations


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def run(data: Path, out: Path | None, **options: Any) -> EvaluationReport:
    chosen = {"model": RedSegmenter(), "settings": {"batch": 2}, "scoring": {"worst": 3, "resamples": 50}, **options}
    return evaluate(data / "photos", masks=data / "masks", classes=CLASSES, out=out, quiet=True, **chosen)


def test_the_folder_and_the_report(data: Path) -> None:
    report = run(data, data / "out", command="patchword evaluate photos")
    written = EvaluationReport.model_validate_json((data / "out/evaluation.json").read_text(encoding="utf-8"))
    assert written == report
    assert report == run(data, None, command="patchword evaluate photos")
    assert set(files_of(data / "out")) == {
        ".patchword",
        "confusion.csv",
        "confusion.png",
        "evaluation.json",
        "images.jsonl",
        "setup.json",
        "worst/0/6.png.jpg",
        "worst/0/8.png.jpg",
        "worst/1/7.png.jpg",
    }
    assert report.images == 9
    assert report.miou is not None
    low, high = report.intervals["miou"] or (1, 0)
    assert 0 < low < report.miou < high < 1
    assert set(report.intervals) == set(report.intervals) | {"boundary_iou", "frequency_weighted_iou"}
    assert report.predicted_by["fingerprint"] == "f00d"
    assert report.predicted_by["settings"]["batch"] == 2
    assert report.vocabulary_hash == CLASSES.hash
    assert report.data.reading == {"zero_is": "class"}
    assert not (report.chance and report.chance.at_chance)
    lines = [json.loads(line) for line in (data / "out/images.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines] == sorted(f"{number % 2}/{number}.png" for number in range(9))
    assert {line["name"]: line["status"] for line in lines}["1/3.png"] == "empty"
    assert all(len(line["content"]) == 64 for line in lines)


def test_shards_that_do_not_belong_together(data: Path) -> None:
    for number in (1, 2):
        run(data, data / f"part{number}", shard=f"{number}/2")
    run(data, data / "other", shard="2/2", model=RedSegmenter(temperature=0.2))
    with pytest.raises(PatchwordError, match=r"shards are missing: 2/2"):
        merge_evaluations([data / "part1"], out=data / "merged")
    with pytest.raises(PatchwordError, match=r"not of one run: predicted by: temperature is 0\.1 and 0\.2"):
        merge_evaluations([data / "part1", data / "other"], out=data / "merged")
    run(data, data / "whole")
    with pytest.raises(PatchwordError, match="whole is not a shard"):
        merge_evaluations([data / "part1", data / "whole"], out=data / "merged")
    lines = (data / "part2/images.jsonl").read_text().splitlines(keepends=True)
    (data / "part2/images.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(PatchwordError, match="finish each with --resume"):
        merge_evaluations([data / "part1", data / "part2"], out=data / "merged")


def test_what_cannot_be_scored_is_all_listed_and_there_is_no_score(data: Path) -> None:
    (data / "photos/0/2.png").write_bytes(b"no picture")
    save(data / "photos/1/5.png", photograph_of(np.zeros((23, 30), dtype=np.int64)))
    save(data / "masks/1/7.png", np.full((24, 30), 3, dtype=np.uint8))
    save(data / "photos/0/8.png", photograph_of(np.zeros((50, 30), dtype=np.int64)))
    with pytest.raises(UnscoredError, match="4 of 9 images could not be scored") as caught:
        run(data, data / "out", model=RedSegmenter(refuse=50))
    reasons = caught.value.reasons
    assert set(reasons) == {"0/2.png", "1/5.png", "1/7.png", "0/8.png"}
    assert "30 x 24 pixels and the prediction for 1/5.png 30 x 23" in reasons["1/5.png"]
    assert "has the value 3" in reasons["1/7.png"]
    assert "does not like it" in reasons["0/8.png"]
    assert not (data / "out/evaluation.json").exists()
    with pytest.raises(UnscoredError):
        run(data, None, model=RedSegmenter(refuse=50))
    make_folder(data)
    rest = RedSegmenter()
    run(data, data / "out", model=rest, resume=True)
    assert sum(rest.sizes) < 9
    run(data, data / "whole")
    assert files_of(data / "out") == files_of(data / "whole")


def test_a_resumed_run_that_fails_withdraws_the_earlier_scores(data: Path) -> None:
    run(data, data / "out")
    path = data / "out/images.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    (data / "photos/1/7.png").write_bytes(b"no picture")
    with pytest.raises(UnscoredError):
        run(data, data / "out", resume=True)
    assert not any((data / "out" / name).exists() for name in ("evaluation.json", "report.html", "confusion.png"))


def test_a_run_gives_up_when_too_many_fail(data: Path) -> None:
    for mask in (data / "masks").rglob("*.png"):
        Image.fromarray(np.full((24, 30), 9, dtype=np.uint8)).save(mask)
    with pytest.raises(UnscoredError, match=r"3 of 9 .* the run ended early"):
        run(data, data / "out", scoring={"most_failures": 3})


def test_wrong_requests(data: Path) -> None:
    with pytest.raises(PatchwordError, match="given: a model and predictions"):
        run(data, None, predictions=data)
    with pytest.raises(PatchwordError, match="settings of segmenting are given beside predictions"):
        run(data, None, model=None, predictions=data)
    with pytest.raises(PatchwordError, match="a shard is asked for without an output folder"):
        run(data, None, shard="1/2")
    with pytest.raises(
        PatchwordError, match=r"'resample' is unknown; did you mean 'resamples'\? \(choose from boundary"
    ):
        run(data, None, scoring={"resample": 3})
    with pytest.raises(PatchwordError, match="'batches' is unknown"):
        run(data, None, settings={"batches": 3})
    with pytest.raises(PatchwordError, match="shard 6/9 has no photographs"):
        run(data, data / "out", shard="6/9")


def test_the_page_speaks_for_itself(data: Path) -> None:
    run(data, data / "out", command="patchword evaluate <b>")
    page = (data / "out/report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert "patchword evaluate &lt;b&gt;" in page
    assert page.count("data:image/jpeg") == 3 * 4
    assert page.count("data:image/png") == 1
    assert page.index("0/8.png") < page.index("0/6.png")
    assert "Chance: " in page
    assert CLASSES.hash in page
    assert len(page) < 2_000_000


def test_a_page_without_worst_images_and_intervals(data: Path) -> None:
    report = run(data, data / "out", scoring={"worst": 0, "resamples": 0, "boundary": False})
    assert report.intervals == {}
    assert report.boundary_iou is None
    page = (data / "out/report.html").read_text(encoding="utf-8")
    assert "Boundary IoU" not in page
    assert "resamples of the images" not in page
    assert not (data / "out/worst").exists()


def test_a_score_at_chance_is_said_to_be_one(data: Path) -> None:
    for photo in (data / "photos").rglob("*.png"):
        Image.fromarray(photograph_of(np.zeros((24, 30), dtype=np.int64))).save(photo)
    report = run(data, data / "out")
    assert report.chance is not None
    assert report.chance.at_chance
    assert "at the level of chance" in (data / "out/report.html").read_text(encoding="utf-8")


def test_a_name_too_long_for_a_picture_costs_the_picture_and_not_the_score(data: Path) -> None:
    name = "n" * 248
    for folder in ("photos", "masks"):
        (data / folder / "0/8.png").rename(data / folder / f"0/{name}.png")
    run(data, data / "out")
    assert len(list((data / "out/worst").rglob("*.jpg"))) == 2
    page = (data / "out/report.html").read_text(encoding="utf-8")
    assert "No picture: its file is missing." in page
    assert page.count("data:image/jpeg") == 2 * 4
    for part in (1, 2):
        run(data, data / f"part{part}", shard=f"{part}/2")
    merge_evaluations([data / "part1", data / "part2"], out=data / "merged")
    assert files_of(data / "merged") == files_of(data / "out")


def test_two_photographs_of_one_name_are_refused(data: Path) -> None:
    task = folder_task(data / "photos", masks=data / "masks", rule=MaskRule(CLASSES))
    twice = replace(task, pairs=(*task.pairs, task.pairs[0]))
    with pytest.raises(PatchwordError, match="10 photographs have 9 names"):
        evaluate_task(twice, predictor=SegmenterPredictor.of(RedSegmenter(), truth=twice.truth))


def test_results_among_the_photographs_are_no_photographs(data: Path) -> None:
    first = run(data, data / "photos/evaluation")
    assert list((data / "photos/evaluation/worst").rglob("*.jpg"))
    assert run(data, data / "photos/evaluation", resume=True).images == first.images == 9
    assert run(data, None).images == 9


def test_a_finished_run_is_resumed_for_other_intervals_without_predicting_again(data: Path) -> None:
    first = run(data, data / "out")
    nobody = RedSegmenter(stop_at=1)
    second = run(data, data / "out", model=nobody, resume=True, scoring={"worst": 3, "resamples": 80, "level": 0.5})
    assert second.miou == first.miou
    (low, high), (lowest, highest) = second.intervals["miou"] or (0, 0), first.intervals["miou"] or (0, 0)
    assert lowest < low < high < highest
    assert EvaluationReport.model_validate_json((data / "out/evaluation.json").read_text()) == second


def test_a_photograph_that_changed_is_scored_again_and_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, data / "out")
    save(data / "photos/0/2.png", photograph_of(np.full((24, 30), 2)))
    segmenter = RedSegmenter()
    report = evaluate(
        data / "photos",
        masks=data / "masks",
        classes=CLASSES,
        out=data / "out",
        model=segmenter,
        settings={"batch": 2},
        scoring={"worst": 3, "resamples": 50},
        resume=True,
    )
    assert segmenter.sizes == [2]  # its chunk
    told = "1 photograph or its mask changed since it was scored: 0/2.png; scored again"
    assert told in capsys.readouterr().err
    assert report.miou == run(data, None).miou
    save(data / "masks/1/5.png", np.full((24, 30), 1, dtype=np.uint8))
    segmenter = RedSegmenter()
    assert run(data, data / "out", model=segmenter, resume=True) == run(data, None)
    assert segmenter.sizes == [2]
