"""A folder run of stage 3: files, results, broken photographs, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_world import COLOURS, ColourText, draw
from PIL import Image

from patchword.errors import PatchwordError
from patchword.images import find_images
from patchword.maps import LabelMap
from patchword.segment.baseline import DenseSegmenter
from patchword.segment.result import SegmentationResult
from patchword.segment.run import SegmentedFolder, segment_folder
from patchword.segment.segmenter import Segmenter
from patchword.segment.settings import SegmentSettings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.jpg", "deep/a.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number, height=20, width=30)[0]).save(folder / name)
    return folder


def run(photos: Path, segmenter: Any, **options: Any) -> SegmentedFolder:
    arguments: dict[str, Any] = {"classes": list(COLOURS), "out": photos.parent / "out", "quiet": True, **options}
    return segment_folder(find_images(photos), root=photos, segmenter=segmenter, **arguments)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_photograph_has_mask_overlay_and_line(photos: Path, segmenter: Segmenter) -> None:
    result = run(photos, segmenter)
    assert result.names == ("a.png", "b.jpg", "deep/a.png")
    assert result.failed == {}
    for name in result.names:
        expected = segmenter.segment(photos / name, classes=list(COLOURS))
        mask = LabelMap.load(result.folder / "masks" / f"{name}.png", names=COLOURS)
        np.testing.assert_array_equal(mask.indices, expected.label_map.indices)
        with Image.open(result.folder / "overlays" / f"{name}.jpg") as overlay:
            assert overlay.format == "JPEG"
    for line in lines(result.folder):
        assert line["status"] == "ok"
        assert (line["width"], line["height"]) == (30, 20)
        assert sum(line["classes"].values()) + line["ignored"] == 600
        assert 0 < line["mean_confidence"] <= 1
        assert line["seconds"] >= 0


def test_settings_say_how_to_repeat_it(photos: Path, segmenter: Segmenter) -> None:
    result = run(
        photos,
        segmenter,
        settings={"image_size": 24, "threshold": 0.3},
        background=["nothing"],
        command="patchword segment ...",
    )
    written = json.loads((result.folder / "segment.json").read_text())
    chosen = SegmentSettings(image_size=24, threshold=0.3)
    assert written["settings"] == {**chosen.model_dump(mode="json"), "overlays": True}
    assert written["command"] == "patchword segment ..."
    assert written["counts"] == {"ok": 3, "failed": 0}
    assert "@background: nothing" in written["vocabulary"]
    assert written["segmenter"] == segmenter.describe()


def test_broken_photographs_are_counted_and_end_nothing(photos: Path, segmenter: Segmenter) -> None:
    (photos / "aa.jpg").write_bytes(b"")
    (photos / "c.png").write_bytes((photos / "a.png").read_bytes()[:60])
    result = run(photos, segmenter)
    assert result.names == ("a.png", "b.jpg", "deep/a.png")
    assert set(result.failed) == {"aa.jpg", "c.png"}
    assert "empty" in result.failed["aa.jpg"]
    failed = [line for line in lines(result.folder) if line["status"] == "failed"]
    assert {line["name"]: line["reason"] for line in failed} == result.failed
    assert json.loads((result.folder / "segment.json").read_text())["counts"] == {"ok": 3, "failed": 2}


class Counting:
    """A segmenter that counts, and stops the run after some photographs."""

    def __init__(self, segmenter: Segmenter, *, stop_after: int | None = None) -> None:
        self.describe = segmenter.describe
        self.vocabulary_of = segmenter.vocabulary_of
        self.count = 0
        self._segmenter = segmenter
        self._stop_after = stop_after

    def segment(self, image: Any, **options: Any) -> SegmentationResult:
        if self.count == self._stop_after:
            raise KeyboardInterrupt
        self.count += 1
        return self._segmenter.segment(image, **options)


def test_stopped_run_goes_on(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    whole = run(photos, segmenter, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(photos, Counting(segmenter, stop_after=1))
    rest = Counting(segmenter)
    resumed = run(photos, rest, resume=True)
    assert rest.count == 2
    assert resumed.names == whole.names
    for one in sorted((tmp_path / "whole").rglob("*.*g")):
        assert one.read_bytes() == (resumed.folder / one.relative_to(whole.folder)).read_bytes()
    for one, other in zip(lines(whole.folder), lines(resumed.folder), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (whole.folder / "segment.json").read_bytes() == (resumed.folder / "segment.json").read_bytes()


def test_lost_masks_and_failed_photographs_are_tried_again(photos: Path, segmenter: Segmenter) -> None:
    good = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(b"")
    folder = run(photos, segmenter).folder
    (photos / "b.jpg").write_bytes(good)
    (folder / "masks" / "a.png.png").unlink()
    again = Counting(segmenter)
    result = run(photos, again, resume=True)
    assert again.count == 2
    assert result.failed == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["red"]}, "the vocabulary of the run there"),
        ({"settings": {"threshold": 0.5}}, "the settings of the run there"),
        ({"segmenter": DenseSegmenter(ColourText())}, "the vocabulary and the segmenter of the run there"),
    ],
)
def test_resuming_another_run_is_refused(
    photos: Path, segmenter: Segmenter, change: dict[str, Any], message: str
) -> None:
    run(photos, segmenter)
    with pytest.raises(PatchwordError, match=message):
        run(photos, **{"segmenter": segmenter, "resume": True, **change})
    run(photos, **{"segmenter": segmenter, "overwrite": True, **change})


def test_overlays_can_be_left_out(photos: Path, segmenter: Segmenter) -> None:
    folder = run(photos, segmenter, overlays=False).folder
    assert not (folder / "overlays").exists()
    assert (folder / "masks" / "a.png.png").exists()


def test_wrong_arguments_leave_no_folder(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    for wrong in ({"settings": {"threshold": 2.0}}, {"settings": {"image_size": -1}}, {"classes": []}):
        with pytest.raises(PatchwordError):
            run(photos, segmenter, **wrong)
    with pytest.raises(PatchwordError, match="not below the folder"):
        segment_folder(
            [tmp_path / "x.png"], root=photos, segmenter=segmenter, classes="red", out=tmp_path / "out", quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_result_can_be_saved_by_hand(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    result = segmenter.segment(photos / "a.png", classes=list(COLOURS))
    path = result.save(tmp_path / "by_hand", name="x/a.png")
    assert path == tmp_path / "by_hand" / "masks" / "x" / "a.png.png"
    assert (tmp_path / "by_hand" / "overlays" / "x" / "a.png.jpg").exists()
    areas = result.areas()
    assert sum(areas.values()) == 600
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
