"""A folder run of stage 3: files, results, broken photographs, resuming, shards."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_world import COLOURS, draw
from PIL import Image

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.image_files import find_images
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.runs.records import read_sessions
from patchword.runs.shards import Shard
from patchword.segmentation.page import write_page
from patchword.segmentation.records import SegmentationRecord, SegmentedFolder, read_results
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.run import segment_folder
from patchword.segmentation.segmenter import Segmenter


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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the one that may differ from run to run."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("runs.jsonl")
    return files


class Counting:
    """A segmenter that counts its photographs, and stops the run after some."""

    def __init__(self, segmenter: Segmenter, *, stop_after: int | None = None) -> None:
        self.describe = segmenter.describe
        self.vocabulary_of = segmenter.vocabulary_of
        self.batches: list[int] = []
        self._segmenter = segmenter
        self._stop_after = stop_after

    def segment_batch(self, images: Any, **options: Any) -> list[SegmentationResult | PatchwordError]:
        if self._stop_after is not None and sum(self.batches) >= self._stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return self._segmenter.segment_batch(images, **options)


def test_every_photograph_has_mask_overlay_and_line(photos: Path, segmenter: Segmenter) -> None:
    result = run(photos, segmenter)
    assert result.names == ("a.png", "b.jpg", "deep/a.png")
    assert result.failed == {}
    for name, line in zip(result.names, lines(result.folder), strict=True):
        expected = segmenter.segment(photos / name, classes=list(COLOURS))
        mask = LabelMap.load(result.folder / "masks" / f"{name}.png", names=COLOURS)
        np.testing.assert_array_equal(mask.indices, expected.label_map.indices)
        with Image.open(result.folder / "overlays" / f"{name}.jpg") as overlay:
            assert overlay.format == "JPEG"
        assert {key: line[key] for key in ("name", "status", "size")} == {
            "name": name,
            "status": "ok",
            "size": [20, 30],
        }
        assert line["content"] == hashlib.sha256((photos / name).read_bytes()).hexdigest()
        for colour, area in line["classes"].items():
            assert area["pixels"] == (mask.indices == COLOURS.index(colour)).sum() > 0
            assert area["share"] == pytest.approx(area["pixels"] / 600, abs=1e-6)
        assert sum(area["pixels"] for area in line["classes"].values()) + line["ignored"] == 600
        assert line["mean_confidence"] == pytest.approx(expected.confidence.mean(), abs=1e-6)


def test_what_is_left_says_how_to_repeat_it(photos: Path, segmenter: Segmenter) -> None:
    result = run(
        photos,
        segmenter,
        settings={"image_size": 24, "threshold": 0.3},
        background=["nothing"],
        command="patchword segment ...",
        options={"model": "model/"},
    )
    written = json.loads((result.folder / "segment.json").read_text())
    assert written["settings"] == SegmentSettings(image_size=24, threshold=0.3).recorded()
    assert written["folder_settings"] == FolderSettings().model_dump(mode="json")
    assert written["complete"]
    assert written["photographs"] == "../photos"
    assert written["names"] == [*COLOURS, "background"]
    assert (written["counts"]["images"], written["counts"]["ok"], written["counts"]["failed"]) == (3, 3, 0)
    assert sum(written["counts"]["pixels"].values()) + sum(line["ignored"] for line in lines(result.folder)) == 3 * 600
    assert Vocabulary.parse(written["vocabulary"]).hash == written["vocabulary_hash"]
    assert "@background: nothing" in written["vocabulary"]
    assert written["segmenter"] == segmenter.describe()
    (session,) = read_sessions(result.folder)
    assert (session.command, session.options["model"], session.ended) == ("patchword segment ...", "model/", "finished")
    assert session.done == {"ok": 3, "failed": 0}


def test_broken_photographs_are_counted_and_end_nothing(photos: Path, segmenter: Segmenter) -> None:
    (photos / "aa.jpg").write_bytes(b"")
    (photos / "c.png").write_bytes((photos / "a.png").read_bytes()[:60])
    result = run(photos, segmenter)
    assert result.names == ("a.png", "b.jpg", "deep/a.png")
    assert set(result.failed) == {"aa.jpg", "c.png"}
    assert "cannot read aa.jpg: the file is empty" in result.failed["aa.jpg"]
    failed = [line for line in lines(result.folder) if line["status"] == "failed"]
    assert {line["name"]: line["reason"] for line in failed} == result.failed
    assert json.loads((result.folder / "segment.json").read_text())["counts"]["failed"] == 2


def test_the_page_shows_the_least_certain_first(photos: Path, segmenter: Segmenter) -> None:
    (photos / "broken <b>.jpg").write_bytes(b"no picture")
    folder = run(photos, segmenter).folder
    page = (folder / "report.html").read_text(encoding="utf-8")
    found = {line["name"]: line.get("mean_confidence") for line in lines(folder)}
    assert found.pop("broken <b>.jpg") is None
    shown = re.findall(r'alt="photograph ([^"]+)"', page)
    assert shown == sorted(found, key=lambda name: (found[name], name))
    assert page.count("data:image/png;base64,") == len(found)
    assert "broken &lt;b&gt;.jpg" in page
    for path in photos.iterdir():
        path.rename(photos.parent / path.name)
    write_page(folder, record=SegmentationRecord.load(folder), results=read_results(Manifest(folder / "results.jsonl")))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("No picture:") == len(found)


def test_photographs_share_batches_by_their_place_and_as_far_as_memory_goes(photos: Path, segmenter: Segmenter) -> None:
    together = Counting(segmenter)
    run(photos, together, settings={"batch": 2})
    assert together.batches == [2, 1]
    (photos.parent / "out/masks/b.jpg.png").unlink()
    again = Counting(segmenter)
    run(photos, again, settings={"batch": 2}, resume=True)
    assert again.batches == [2]  # with the one that it was with
    small = Counting(segmenter)
    limits = {"batch_megapixels": 1200 / 1e6}
    run(photos, small, settings={"batch": 3}, folder_settings=limits, overwrite=True)
    assert small.batches == [2, 1]
    (photos.parent / "out/masks/deep/a.png.png").unlink()
    last = Counting(segmenter)
    run(photos, last, settings={"batch": 3}, folder_settings=limits, resume=True)
    assert last.batches == [1]  # photographs that are too large together are chunks of their own


def test_an_error_of_one_photograph_is_its_own(photos: Path, segmenter: Segmenter) -> None:
    class Choosy(Counting):
        def segment_batch(self, images: Any, **options: Any) -> list[SegmentationResult | PatchwordError]:
            found = super().segment_batch(images, **options)
            return [found[0], PatchwordError("no, not this one"), *found[2:]]

    result = run(photos, Choosy(segmenter))
    assert result.names == ("a.png", "deep/a.png")
    assert result.failed == {"b.jpg": "no, not this one"}


def test_a_limit_takes_the_first_and_can_be_raised(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    whole = run(photos, segmenter, out=tmp_path / "whole", settings={"batch": 1})
    first = run(photos, segmenter, limit=2, settings={"batch": 1})
    assert first.names == ("a.png", "b.jpg")
    run(photos, segmenter, limit=3, resume=True, settings={"batch": 1})
    assert contents(first.folder) == contents(whole.folder)


def test_resuming_with_other_weights_is_refused_and_with_moved_ones_is_not(photos: Path, segmenter: Segmenter) -> None:
    run(photos, segmenter)
    moved, other = Counting(segmenter), Counting(segmenter)
    described = segmenter.describe()
    encoder = described["encoder"]
    moved.describe = lambda: {**described, "encoder": {**encoder, "name": "elsewhere"}}  # type: ignore[method-assign]
    other.describe = lambda: {**described, "encoder": {**encoder, "fingerprint": "0"}}  # type: ignore[method-assign]
    run(photos, moved, resume=True)
    with pytest.raises(PatchwordError, match=r"the segmenter's encoder fingerprint was p+, now 0"):
        run(photos, other, resume=True)


def test_a_damaged_record_is_one_line(photos: Path, segmenter: Segmenter) -> None:
    folder = run(photos, segmenter).folder
    for text, said in (("{", "is damaged"), ('{"format": "patchword-segmentation", "version": 1}', "has format 1")):
        (folder / "segment.json").write_text(text)
        with pytest.raises(PatchwordError, match=said):
            run(photos, segmenter, resume=True)
    (folder / "segment.json").unlink()
    with pytest.raises(PatchwordError, match=r"it has results but no segment\.json"):
        run(photos, segmenter, resume=True)


def test_wrong_arguments_leave_no_folder(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    for wrong in (
        {"settings": {"threshold": 2.0}},
        {"settings": {"image_size": -1}},
        {"classes": []},
        {"folder_settings": {"soft": ("purple",)}},
        {"folder_settings": {"confidence_bits": 7}},
        {"shard": Shard(2, 2)},
    ):
        with pytest.raises(PatchwordError):
            run(photos, segmenter, **wrong)
    with pytest.raises(PatchwordError, match="is outside"):
        segment_folder(
            [tmp_path / "x.png"], root=photos, segmenter=segmenter, classes="red", out=tmp_path / "out", quiet=True
        )
    assert not (tmp_path / "out").exists()
