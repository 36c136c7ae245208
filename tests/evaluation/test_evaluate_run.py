"""Predictions on disk or from a function against masks, and the record that is written."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from patchword.config.evaluate import ScoredRun, ZeroIs
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.masks import EvaluationTask, MaskRule, folder_task
from patchword.evaluation.predictors import find_predictions
from patchword.evaluation.records import SETUP_FILE, SetupRecord, read_record
from patchword.evaluation.report import EvaluationReport, class_table
from patchword.evaluation.run import UnscoredError, evaluate_task

ANIMALS = Vocabulary.of(["cat", "dog", "yak"], background=["sky"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photographs of 2 x 4 pixels with VOC-style masks (0 = background, 1 = cat, 2 = dog) and predictions."""
    truths = {"one": [[0, 0, 1, 1], [0, 0, 1, 255]], "two": [[2, 2, 2, 2], [0, 0, 0, 0]]}
    predictions = {"one": [[255, 255, 0, 0], [255, 1, 255, 0]], "two": [[1, 1, 0, 255], [255, 255, 255, 255]]}
    for folder in ("photos", "masks", "predicted/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for name, truth in truths.items():
        Image.new("RGB", (4, 2)).save(tmp_path / f"photos/{name}.png")
        Image.fromarray(np.array(truth, dtype=np.uint8)).save(tmp_path / f"masks/{name}.png")
        label_map = LabelMap(np.array(predictions[name]), ANIMALS.names)
        label_map.save(tmp_path / f"predicted/masks/{name}.png.png")
    return tmp_path


def task_of(data: Path, *, zero_is: ZeroIs = "background") -> EvaluationTask:
    return folder_task(data / "photos", masks=data / "masks", rule=MaskRule(ANIMALS, zero_is=zero_is))


def evaluate(data: Path, *, predictions: str = "predicted", zero_is: ZeroIs = "background") -> EvaluationReport:
    task = task_of(data, zero_is=zero_is)
    predictor = find_predictions(data / predictions, pairs=task.pairs, truth=task.truth, coded="positions")
    run = ScoredRun(out=data / "out", command="patchword evaluate", quiet=True)
    return evaluate_task(task, predictor=predictor, run=run)


def test_a_mask_of_the_stored_pixels_of_a_turned_photograph_fails_with_the_reason(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(data / "photos/one.png", exif=exif)  # upright it is 2 x 4, its mask is 4 x 2
    LabelMap(np.full((4, 2), 255), ANIMALS.names).save(data / "predicted/masks/one.png.png")
    with pytest.raises(UnscoredError, match="stored as 4 x 2, and its EXIF orientation turns them"):
        evaluate(data)
    Image.new("RGB", (2, 4)).save(data / "photos/one.png")
    shutil.rmtree(data / "out")
    with pytest.raises(UnscoredError) as caught:
        evaluate(data)
    assert "EXIF" not in str(caught.value)


def test_a_prediction_of_two_photographs_is_refused(data: Path) -> None:
    Image.new("RGB", (4, 2)).save(data / "photos/one.bmp")
    Image.fromarray(np.zeros((2, 4), dtype=np.uint8)).save(data / "masks/one.bmp.png")
    (data / "predicted/masks/one.png.png").rename(data / "predicted/masks/one.png")
    with pytest.raises(PatchwordError, match=r"masks/one\.png may be of one\.bmp or of one\.png"):
        evaluate(data)


def test_scores_by_hand(data: Path) -> None:
    report = evaluate(data)
    ious = {entry.name: entry.iou for entry in report.classes}
    # background: 3 + 4 right of 8 in the truth, and two pixels besides that nothing is predicted for
    assert ious == {
        "background": pytest.approx(7 / 10),
        "cat": pytest.approx(2 / 4),
        "dog": pytest.approx(2 / 5),
        "yak": None,
    }
    assert report.miou == pytest.approx((0.7 + 0.5 + 0.4) / 3)
    assert report.pixel_accuracy == pytest.approx(11 / 15)
    assert report.mean_accuracy == pytest.approx((7 / 8 + 2 / 3 + 2 / 4) / 3)
    assert report.coverage == 1.0
    assert (report.images, report.pixels) == (2, 15)
    assert {entry.name: entry.confused_with for entry in report.classes}["dog"] in ("background", "cat")


def test_without_background_unpredicted_pixels_are_misses(data: Path) -> None:
    report = evaluate(data, zero_is="ignore")
    assert [entry.iou for entry in report.classes] == [pytest.approx(2 / 4), pytest.approx(2 / 4), None]
    assert report.coverage == pytest.approx(5 / 7)


def test_the_record_describes_itself_and_reads_back(data: Path) -> None:
    report, folder = evaluate(data), data / "out"
    text = (folder / "evaluation.json").read_text(encoding="utf-8")
    assert EvaluationReport.model_validate_json(text) == report
    record = json.loads(text)
    assert record["vocabulary_hash"] == ANIMALS.hash
    assert Vocabulary.parse(record["vocabulary"]) == ANIMALS
    assert {"patchword", "torch", "python"} <= set(record["versions"])
    assert record["command"] == "patchword evaluate"
    with (folder / "confusion.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["truth", "background", "cat", "dog", "yak", "no prediction"]
    assert rows[1] == ["background", "7", "0", "1", "0", "0"]


def test_the_report_is_not_written_over_another(data: Path) -> None:
    evaluate(data)
    with pytest.raises(PatchwordError, match="not empty"):
        evaluate(data)


def test_the_table_shows_classes_that_occur(data: Path) -> None:
    report = evaluate(data)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(class_table(report))
    text = capture.get()
    assert "background" in text
    assert "70.0%" in text
    assert "53.3%" in text
    assert "yak" not in text


def test_predictions_in_a_plain_folder(data: Path) -> None:
    (data / "predicted/masks").rename(data / "plain")
    report = evaluate(data, predictions="plain")
    assert report.miou == pytest.approx((0.7 + 0.5 + 0.4) / 3)


def test_missing_predictions(data: Path) -> None:
    (data / "predicted/masks/two.png.png").unlink()
    with pytest.raises(PatchwordError, match=r"1 of 2 photographs have no prediction in .*, such as two\.png"):
        evaluate(data)
    with pytest.raises(PatchwordError, match=r"no such folder of predictions: .*nowhere"):
        evaluate(data, predictions="nowhere")


def test_sizes_that_differ_are_refused_with_both(data: Path) -> None:
    LabelMap(np.zeros((2, 3), dtype=np.uint8), ANIMALS.names).save(data / "predicted/masks/two.png.png")
    with pytest.raises(UnscoredError, match=r"two\.png is 4 x 2 pixels and the prediction for two\.png 3 x 2"):
        evaluate(data)


def test_a_prediction_outside_the_class_list_is_refused(data: Path) -> None:
    Image.fromarray(np.full((2, 4), 4, dtype=np.uint8)).save(data / "predicted/masks/two.png.png")
    with pytest.raises(UnscoredError, match=r"two\.png\.png has index 4; it must be 0 to 3"):
        evaluate(data)


def test_a_folder_made_for_other_classes_is_refused(data: Path) -> None:
    record = {"vocabulary": Vocabulary.of(["cat", "fox", "yak"]).to_text()}
    (data / "predicted/segment.json").write_text(json.dumps(record))
    with pytest.raises(
        PatchwordError, match="made for the classes 'cat', 'fox', 'yak', the class list has 'cat', 'dog', 'yak'"
    ):
        evaluate(data)
    (data / "predicted/segment.json").write_text(json.dumps({"vocabulary": ANIMALS.to_text()}))
    assert evaluate(data).images == 2
    (data / "predicted/segment.json").write_text("{")
    with pytest.raises(PatchwordError, match=r"segment\.json is damaged"):
        evaluate(data)


def test_an_evaluation_of_a_newer_patchword_says_so(tmp_path: Path) -> None:
    (tmp_path / SETUP_FILE).write_text('{"format": "patchword-evaluation-setup", "format_version": 2}')
    with pytest.raises(PatchwordError, match=r"made by a newer patchword \(format 2, this one reads 1\): upgrade"):
        read_record(tmp_path / SETUP_FILE, SetupRecord)
