"""Predictions of any program: coded as the masks are, or as positions in the class list; 8 and 16 bits; errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scored_folder import save

from patchword.config.evaluate import PredictionsAre, ZeroIs
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.api import evaluate
from patchword.evaluation.report import EvaluationReport

CLASSES = ["cat", "dog", "sofa"]
MASK = np.array([[0, 1, 2, 3], [0, 1, 2, 255]], dtype=np.uint8)


def score(
    root: Path,
    predicted: NDArray[np.integer],
    *,
    mask: NDArray[np.integer] = MASK,
    zero_is: ZeroIs = "background",
    predictions_are: PredictionsAre = "auto",
    folder: str = "predicted",
    classes: list[str] | None = None,
) -> EvaluationReport:
    Image.new("RGB", mask.shape[::-1]).save(ready(root / "photos/a.png"))
    Image.fromarray(mask).save(ready(root / "masks/a.png"))
    Image.fromarray(predicted).save(ready(root / f"{folder}/a.png"))
    return evaluate(
        root / "photos",
        masks=root / "masks",
        classes=classes or CLASSES,
        predictions=root / folder,
        predictions_are=predictions_are,
        zero_is=zero_is,
        quiet=True,
    )


def ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("zero_is", ["background", "ignore"])
def test_the_masks_themselves_are_perfect_predictions(tmp_path: Path, zero_is: ZeroIs) -> None:
    report = score(tmp_path, MASK, zero_is=zero_is)
    assert report.miou == report.coverage == report.boundary_iou == 1
    assert report.predicted_by["values"] == "as the masks"


def test_what_does_not_count_in_a_mask_is_no_prediction(tmp_path: Path) -> None:
    report = score(tmp_path, np.full_like(MASK, 255))
    assert report.coverage == 0
    assert score(tmp_path, np.zeros_like(MASK), zero_is="ignore").coverage == 0


def test_positions_have_the_class_after_the_last_for_background(tmp_path: Path) -> None:
    positions = np.array([[3, 0, 1, 2], [255, 0, 1, 9]], dtype=np.uint8)
    positions[1, 3] = 0
    report = score(tmp_path, positions, predictions_are="positions")
    assert report.miou == 1
    assert report.predicted_by["values"] == "positions in the class list"


def test_a_folder_of_patchword_holds_positions(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    record = {"vocabulary": Vocabulary.of(CLASSES, background=["sky"]).to_text()}
    (tmp_path / "made/segment.json").write_text(json.dumps(record), encoding="utf-8")
    positions = np.array([[3, 0, 1, 2], [3, 0, 1, 0]], dtype=np.uint8)
    assert score(tmp_path, positions, folder="made/masks").miou == 1
    assert score(tmp_path, MASK, folder="made/masks", predictions_are="masks").miou == 1


def test_sixteen_bits(tmp_path: Path) -> None:
    many = [f"thing {number}" for number in range(400)]
    mask = np.array([[0, 300, 399, 65535]], dtype=np.uint16)
    assert score(tmp_path, mask, mask=mask, zero_is="class", classes=many).miou == 1
    eight = np.array([[0, 44, 143, 255]], dtype=np.uint8)
    with pytest.raises(PatchwordError, match=r"value 255, which is a class of 400 .* or write 16-bit masks"):
        score(tmp_path, eight, mask=mask, zero_is="class", classes=many)
    below = np.array([[0, 44, 143, 254]], dtype=np.uint8)
    assert score(tmp_path, below, mask=mask, zero_is="class", classes=many).coverage == 1
    with pytest.raises(PatchwordError, match="8-bit label map; 400 names need a 16-bit one"):
        score(tmp_path, eight, mask=mask, zero_is="class", classes=many, predictions_are="positions")


@pytest.mark.parametrize(("predictions_are", "said"), [("masks", "allow 0 to 3"), ("positions", "it must be 0 to 3")])
def test_an_unknown_value_is_named_with_its_file(tmp_path: Path, predictions_are: PredictionsAre, said: str) -> None:
    with pytest.raises(PatchwordError, match=rf"predicted/a\.png has .*7.*; .*{said}"):
        score(tmp_path, np.full_like(MASK, 7), predictions_are=predictions_are)


def test_pictures_in_colour_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"predicted/a\.png is a picture of mode RGB"):
        score(tmp_path, np.zeros((2, 4, 3), dtype=np.uint8))
    (tmp_path / "predicted/a.png").write_bytes(b"\x89PNG")
    with pytest.raises(PatchwordError, match=r"cannot read label map .*predicted/a\.png"):
        evaluate(tmp_path / "photos", masks=tmp_path / "masks", classes=CLASSES, predictions=tmp_path / "predicted")


def test_another_word_for_the_coding(tmp_path: Path) -> None:
    save(tmp_path / "photos/a.png", np.zeros((2, 4, 3), dtype=np.uint8))
    with pytest.raises(PatchwordError, match="'predictions_are' is 'labels'; choose from auto, masks, positions"):
        score(tmp_path, MASK, predictions_are="labels")  # type: ignore[arg-type]
