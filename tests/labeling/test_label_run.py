"""The folder run: what it writes, what it survives, and how it goes on."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_fakes import ColourClip, RegionSam, picture
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder
from patchword.models.protocols import ImageEmbedding
from patchword.runs.records import Session, read_sessions

CLASSES = ["red", "blue", "sol; yellow"]
PICTURES = {
    "a.png": [["red", "red", "blue"]],
    "b.png": [["yellow"]],
    "sub/a.png": [["red"], ["blue"], ["blue"]],
    "sub/c.bmp": [["white"]],  # nothing that the vocabulary names, but for a tie that goes to no one
    "é ü.png": [["blue", "yellow"]],
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, rows in PICTURES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rows, scale=16)).save(path)
    return tmp_path / "photos"


def make_parts(classes: list[str] = CLASSES, **changes: Any) -> LabelParts:
    vocabulary = Vocabulary.of(classes, background=["white"])
    return replace(LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=vocabulary), **changes)


def run(photos: Path, out: Path, **changes: Any) -> LabelledDataset:
    options: dict[str, Any] = {"parts": make_parts(), "command": "patchword label", "quiet": True} | changes
    return label_folder(find_images(photos), root=photos, out=out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the one that differs from run to run."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("runs.jsonl")
    return files


def test_a_folder_of_photographs_becomes_a_data_set(photos: Path, tmp_path: Path) -> None:
    dataset = run(photos, tmp_path / "labels")
    assert [item.record.name for item in dataset.items] == ["a.png", "b.png", "sub/a.png", "sub/c.bmp", "é ü.png"]
    first = dataset.items[0]
    assert first.label_map == tmp_path / "labels" / "masks" / "a.png.png"
    found = LabelMap.load(first.label_map, names=dataset.vocabulary.names)
    np.testing.assert_array_equal(found.indices, np.repeat([[0, 0, 1]], 16, axis=1).repeat(16, axis=0))
    assert first.record.status == "ok"
    assert first.record.size == (16, 48)
    assert first.record.classes == ("red", "blue")
    assert first.record.coverage == 1.0
    assert first.record.segments == len(first.segments()) > 0
    assert {segment.class_name for segment in first.segments()} == {"red", "blue"}
    empty = dataset.items[3].record
    assert empty.status == "empty"
    assert empty.reason is not None
    assert "nothing detected" in empty.reason
    assert dataset.counts.model_dump() == {
        "images": 5,
        "ok": 4,
        "empty": 1,
        "failed": 0,
        "duplicates": 0,
        "segments": sum(item.record.segments for item in dataset.items),
        "images_with_class": {"red": 2, "blue": 3, "sol": 2},
        "left_out": {},
    }


def test_dataset_json_says_how_it_was_made(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels", settings=LabelSettings(margin=0.05))
    data = json.loads((tmp_path / "labels" / "dataset.json").read_text())
    assert data["format"] == "patchword-labels"
    assert data["format_version"] == 2
    assert data["photographs"] == "../photos"
    assert data["settings"]["margin"] == 0.05
    assert data["vocabulary"]["hash"] == make_parts().vocabulary.hash
    assert data["image_text"]["name"] == "colour-clip"
    assert data["mask_proposer"]["fingerprint"] == "0" * 64
    (session,) = read_sessions(tmp_path / "labels")
    assert session.command == "patchword label"
    assert session.versions.keys() >= {"patchword", "torch", "transformers", "python"}
    assert session.ended == "finished"
    assert session.done == {"ok": 4, "empty": 1, "failed": 0}
    assert session.seconds is not None
    assert session.seconds > 0


def test_segments_json_says_what_was_detected(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    data = json.loads((tmp_path / "labels" / "segments" / "a.png.json").read_text())
    assert data["name"] == "a.png"
    assert data["size"] == [16, 48]
    assert data["detected"]["kept"] == ["red", "blue"]
    assert data["detected"]["crops"] == 35
    assert sum(data["detected"]["votes"].values()) + data["detected"]["background_votes"] == 35


def test_same_input_same_bytes(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "one")
    run(photos, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_bad_photographs_are_reported_and_skipped(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "empty.png").touch()
    dataset = run(photos, tmp_path / "labels")
    assert [record.name for record in dataset.failed] == ["broken.jpg", "empty.png"]
    assert all(record.reason and record.name in record.reason for record in dataset.failed)
    assert len(dataset) == 5
    assert (dataset.counts.images, dataset.counts.failed) == (7, 2)
    assert not (tmp_path / "labels" / "masks" / "broken.jpg.png").exists()


def test_no_photograph_can_be_labelled(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.jpg").write_bytes(b"no picture")
    dataset = run(photos, tmp_path / "labels")
    assert len(dataset) == 0
    assert dataset.counts.failed == 1


def test_memory_that_runs_out_concerns_one_photograph(photos: Path, tmp_path: Path) -> None:
    dataset = run(photos, tmp_path / "labels", parts=make_parts(mask_generator=Failing()))
    assert [record.name for record in dataset.failed] == ["é ü.png"]
    assert "not enough memory to label 16 x 32" in (dataset.failed[0].reason or "")


class Stopping(RegionSam):
    """Is interrupted at the third photograph."""

    embedded = 0

    def embed(self, images: Any) -> tuple[ImageEmbedding, ...]:
        self.embedded += 1
        if self.embedded == 3:
            raise KeyboardInterrupt
        return super().embed(images)


class Broken(RegionSam):
    """Has a defect."""

    def embed(self, images: Any) -> ImageEmbedding:
        raise ZeroDivisionError("a defect")


class Counting(ColourClip):
    """Writes down how many photographs it was shown together."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def encode_images(self, images: Any) -> Any:
        self.seen.append(len(images))
        return super().encode_images(images)


def test_a_chunk_of_which_a_part_is_missing_is_done_anew_as_a_whole(photos: Path, tmp_path: Path) -> None:
    settings = LabelSettings(image_batch=2, grids=(1,), minimum_crops=1)  # one crop a photograph
    run(photos, tmp_path / "whole", settings=settings)
    run(photos, tmp_path / "labels", settings=settings, limit=3)
    (tmp_path / "labels" / "masks" / "b.png.png").unlink()
    clip = Counting()
    parts = make_parts(image_text=clip)
    run(photos, tmp_path / "labels", settings=settings, parts=parts, resume=True)
    assert sum(clip.seen) == 5  # a and b, for b was lost; sub/a and sub/c, for sub/c is new; é ü
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")
    (tmp_path / "labels" / "segments" / "sub" / "c.bmp.json").unlink()
    clip.seen.clear()
    run(photos, tmp_path / "labels", settings=settings, parts=parts, resume=True, limit=3)
    assert clip.seen == []  # it is not among the first three


class Failing(RegionSam):
    """Has no memory for one photograph."""

    def embed(self, images: Any) -> tuple[ImageEmbedding, ...]:
        if images[0].shape[-1] == 32:
            raise MemoryError
        return super().embed(images)


def test_resume_makes_what_was_lost_and_retries_what_failed_when_asked(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole")
    assert run(photos, tmp_path / "labels", parts=make_parts(mask_generator=Failing())).counts.failed == 1
    (tmp_path / "labels" / "masks" / "b.png.png").unlink()
    assert run(photos, tmp_path / "labels", resume=True).counts.failed == 1
    assert read_sessions(tmp_path / "labels")[-1].failed_before == 1
    assert (tmp_path / "labels" / "masks" / "b.png.png").is_file()
    run(photos, tmp_path / "labels", resume=True, retry_failed=True)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["masks/b.png.png", "segments/b.png.json"])
def test_a_photograph_that_broke_leaves_nothing_behind(photos: Path, tmp_path: Path, lost: str) -> None:
    run(photos, tmp_path / "labels")
    (tmp_path / "labels" / lost).unlink()
    (photos / "b.png").write_bytes(b"no picture")
    assert [record.name for record in run(photos, tmp_path / "labels", resume=True).failed] == ["b.png"]
    assert not list((tmp_path / "labels").rglob("b.png.*"))


def test_a_finished_run_that_is_taken_up_again_is_unfinished_meanwhile(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    (photos / "b.png").rename(photos / "d.png")
    sam = Stopping()
    sam.embedded = 2
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "labels", parts=make_parts(mask_generator=sam), resume=True, forget_missing=True)
    with pytest.raises(PatchwordError, match="did not finish"):
        LabelledDataset.open(tmp_path / "labels")


def test_resume_follows_photographs_that_came_and_went(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    (photos / "sub" / "a.png").unlink()
    (photos / "b.png").rename(photos / "d.png")
    before = contents(tmp_path / "labels")
    with pytest.raises(PatchwordError, match=r"2 of \d labelled photographs are gone from .*--forget-missing"):
        run(photos, tmp_path / "labels", resume=True)
    assert contents(tmp_path / "labels").keys() == before.keys()  # nothing is lost
    run(photos, tmp_path / "labels", resume=True, forget_missing=True)
    run(photos, tmp_path / "whole")
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_resume_with_fewer_photographs_loses_nothing(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels")
    before = contents(tmp_path / "labels")
    images = find_images(photos)[:2]
    options: dict[str, Any] = {"root": photos, "out": tmp_path / "labels", "parts": make_parts(), "quiet": True}
    assert len(label_folder(images, **options, resume=True)) == 5
    assert contents(tmp_path / "labels") == before


def test_every_session_leaves_its_line(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "labels", parts=make_parts(mask_generator=Stopping()), command="first")
    with pytest.raises(ZeroDivisionError):
        run(photos, tmp_path / "labels", parts=make_parts(mask_generator=Broken()), resume=True, command="second")
    run(photos, tmp_path / "labels", resume=True, command="third")
    run(photos, tmp_path / "labels", resume=True, command="fourth")
    first, second, third, fourth = read_sessions(tmp_path / "labels")
    assert [each.command for each in (first, second, third, fourth)] == ["first", "second", "third", "fourth"]
    assert [each.ended for each in (first, second, third, fourth)] == ["interrupted", "failed", "finished", "finished"]
    assert (first.reason, second.reason) == (None, "a defect")
    assert first.done == {"ok": 2, "empty": 0, "failed": 1}
    assert (second.kept, second.failed_before, third.kept, fourth.kept) == (3, 1, 3, 6)
    assert fourth.done == {"ok": 0, "empty": 0, "failed": 0}


def test_a_session_that_was_killed_has_left_its_line(photos: Path, tmp_path: Path) -> None:
    Session(tmp_path, command="killed").__enter__()
    with Session(tmp_path, command="after"):
        pass
    killed, after = read_sessions(tmp_path)
    assert (killed.command, killed.ended, killed.seconds) == ("killed", None, None)
    assert (after.command, after.ended) == ("after", "finished")


def test_an_existing_folder_is_refused_or_overwritten(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels", settings=LabelSettings(margin=0.5))
    with pytest.raises(PatchwordError, match="not empty"):
        run(photos, tmp_path / "labels")
    run(photos, tmp_path / "labels", overwrite=True)
    run(photos, tmp_path / "fresh")
    assert contents(tmp_path / "labels") == contents(tmp_path / "fresh")


def test_labels_inside_the_photographs_folder_are_no_photographs(photos: Path) -> None:
    run(photos, photos / "labels")
    again = run(photos, photos / "labels", resume=True)
    assert len(again) == 5


def test_the_photographs_are_never_inside_the_output(photos: Path, tmp_path: Path) -> None:
    for out in (photos, tmp_path):
        with pytest.raises(PatchwordError, match="inside the output folder"):
            run(photos, out, overwrite=True)
    assert len(find_images(photos)) == 5


def test_mistakes_are_found_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    with pytest.raises(PatchwordError, match="no photographs"):
        label_folder([], root=photos, out=out, parts=make_parts())
    with pytest.raises(PatchwordError, match="outside"):
        label_folder([tmp_path / "x.png"], root=photos, out=out, parts=make_parts())
    with pytest.raises(PatchwordError, match="crop_size"):
        run(photos, out, settings=LabelSettings(crop_size=15))
    encoder = ColourClip()
    encoder.dense = "sclip"  # type: ignore[attr-defined]
    with pytest.raises(PatchwordError, match=r"`dense` is 'value'.*'sclip'"):
        run(photos, out, parts=make_parts(image_text=encoder))
    assert not out.exists()


def test_duplicates_are_labelled_and_noted(photos: Path, tmp_path: Path) -> None:
    (photos / "sub" / "z.png").write_bytes((photos / "b.png").read_bytes())
    (photos / "0.png").write_bytes((photos / "b.png").read_bytes())
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "broken too.jpg").write_bytes(b"no picture")
    dataset = run(photos, tmp_path / "labels")
    everything = [*dataset.failed, *(item.record for item in dataset.items)]
    assert {record.name: record.duplicate_of for record in everything if record.duplicate_of} == {
        "b.png": "0.png",
        "sub/z.png": "0.png",
        "broken.jpg": "broken too.jpg",
    }
    assert dataset.counts.duplicates == 3
    assert dataset.items[0].record.content == hashlib.sha256((photos / "b.png").read_bytes()).hexdigest()
    (photos / "0.png").unlink()
    run(photos, tmp_path / "labels", resume=True, forget_missing=True)
    run(photos, tmp_path / "fresh")
    assert contents(tmp_path / "labels") == contents(tmp_path / "fresh")


def test_a_name_that_has_no_room_for_its_results_is_a_failure_of_its_own(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(picture([["red"]], scale=16)).save(photos / f"{'n' * 248}.png")
    Image.fromarray(picture([["red"]], scale=16)).save(photos / f"{'n' * 247}.png")
    dataset = run(photos, tmp_path / "labels")
    assert sorted(len(record.name) for record in dataset.failed) == [251, 252]
    assert all("File name too long" in (record.reason or "") for record in dataset.failed)
    assert len(dataset) == 5
    assert not list((tmp_path / "labels").rglob("n*"))


def test_reasons_do_not_depend_on_how_the_folder_was_typed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    run(photos, tmp_path / "absolute")
    monkeypatch.chdir(tmp_path)
    run(Path("photos"), Path("relative"))
    assert contents(tmp_path / "relative") == contents(tmp_path / "absolute")


def test_an_error_while_writing_ends_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(PatchwordError, match=r"cannot write .*: No space left on device"):
            run(photos, tmp_path / "labels")
    run(photos, tmp_path / "labels", resume=True)
    run(photos, tmp_path / "whole")
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_no_thread_outlives_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "labels", parts=make_parts(mask_generator=Stopping()))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("patchword")]
