"""Shards of a folder, and their way back to one data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_fakes import ColourClip, RegionSam, picture
from PIL import Image

from patchword.config.inputs import choose_images
from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling import folder
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import merge_labels
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder
from patchword.runs import merge as taking_over
from patchword.runs.shards import Shard, chunks_of, names_hash

COLOURS = ["red", "blue", "yellow", "white"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(7):
        name = f"sub/{number}.png" if number % 2 else f"é {number}.png"
        Image.fromarray(picture([[COLOURS[number % 4], COLOURS[number % 3]]], scale=8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    shutil.copy(folder / "sub" / "1.png", folder / "sub" / "copy of 1.png")
    return folder


def run(photos: Path, out: Path, **changes: Any) -> LabelledDataset:
    vocabulary = Vocabulary.of(changes.pop("classes", ["red", "blue", "yellow"]))
    parts = LabelParts.of(changes.pop("image_text", ColourClip()), mask_generator=RegionSam(), vocabulary=vocabulary)
    return label_folder(find_images(photos), root=photos, out=out, parts=parts, quiet=True, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("runs.jsonl")
    return files


def shards_of(photos: Path, folder: Path, count: int, **changes: Any) -> list[Path]:
    for index in range(1, count + 1):
        run(photos, folder / f"shard {index}", shard=Shard(index, count), **changes)
    return [folder / f"shard {index}" for index in range(1, count + 1)]


def test_shards_of_the_first_few_are_a_run_of_the_first_few(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole", limit=5)
    merge_labels(shards_of(photos, tmp_path, 2, limit=5), out=tmp_path / "merged", quiet=True)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_shards_of_other_numbers_of_threads_are_merged_with_a_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shards_of(photos, tmp_path, 2, limit=5)
    record = json.loads((shards[1] / "dataset.json").read_text())
    here, record["numerics"]["threads"] = record["numerics"]["threads"], 97
    (shards[1] / "dataset.json").write_text(json.dumps(record))
    merge_labels(shards, out=tmp_path / "merged")
    assert f"torch computed in {here} and 97 threads: last digits may differ" in capsys.readouterr().err


def test_without_hard_links_there_are_copies(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    run(photos, tmp_path / "whole")
    shards = shards_of(photos, tmp_path, 2)
    monkeypatch.setattr(taking_over.os, "link", refused)
    merge_labels(shards, out=tmp_path / "merged", quiet=True)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_a_merged_data_set_goes_on_like_any_other_and_leaves_its_shards_alone(photos: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path, 2)
    before = [contents(shard) for shard in shards]
    merge_labels(shards, out=tmp_path / "merged", quiet=True)
    Image.fromarray(picture([["red"]], scale=8)).save(photos / "broken.jpg", format="PNG")
    (tmp_path / "merged" / "masks" / "sub" / "1.png.png").unlink()
    run(photos, tmp_path / "merged", resume=True, retry_failed=True)
    run(photos, tmp_path / "whole")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert [contents(shard) for shard in shards] == before


def test_a_merge_that_was_stopped_can_be_repeated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(photos, tmp_path, 2)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            merge_labels(shards, out=tmp_path / "merged", quiet=True)
    with pytest.raises(PatchwordError, match="did not finish"):
        LabelledDataset.open(tmp_path / "merged")
    merge_labels(shards, out=tmp_path / "merged", overwrite=True, quiet=True)
    run(photos, tmp_path / "whole")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_photographs_that_moved_are_named(photos: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path, 2)
    photos.rename(tmp_path / "moved")
    with pytest.raises(PatchwordError, match=r"photographs of .*shard 1 are not in .*photos="):
        merge_labels(shards, out=tmp_path / "merged")
    merge_labels(shards, out=tmp_path / "merged", photos=tmp_path / "moved", quiet=True)


def test_unfinished_and_damaged_shards_are_refused(photos: Path, tmp_path: Path) -> None:
    one, two = shards_of(photos, tmp_path, 2)
    (two / "masks" / "sub" / "1.png.png").unlink()
    with pytest.raises(PatchwordError, match=r"shard 2 has lost masks/sub/1\.png\.png; make it with --resume"):
        merge_labels([one, two], out=tmp_path / "merged")
    run(photos, two, shard=Shard(2, 2), resume=True)
    lines = (two / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (two / "manifest.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(PatchwordError, match=r"manifest\.jsonl lists 3 images, but dataset\.json counts 4"):
        merge_labels([one, two], out=tmp_path / "merged")
    (two / "manifest.jsonl").write_bytes(b"".join([*lines, (one / "manifest.jsonl").read_bytes().splitlines(True)[0]]))
    data = json.loads((two / "dataset.json").read_text())
    data["counts"]["images"] += 1
    (two / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(PatchwordError, match=r"overlap: both have 'broken\.jpg'"):
        merge_labels([one, two], out=tmp_path / "merged")
    data = json.loads((two / "dataset.json").read_text())
    (two / "dataset.json").write_text(json.dumps(data | {"complete": False}))
    with pytest.raises(PatchwordError, match="did not finish"):
        merge_labels([one, two], out=tmp_path / "merged")


def test_shards_are_never_inside_the_output(photos: Path, tmp_path: Path) -> None:
    shards = shards_of(photos, tmp_path / "labels", 2)
    for out in (tmp_path / "labels", shards[0], shards[0] / "merged"):
        with pytest.raises(PatchwordError, match="lie in each other"):
            merge_labels(shards, out=out, overwrite=True)
    assert all(shard.is_dir() for shard in shards)


def test_a_shard_resumes_as_the_shard_that_it_was(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels", shard=Shard(1, 2))
    for other in (Shard(2, 2), None):
        with pytest.raises(PatchwordError, match=r"the shard was 1/2, now (2/2|none)"):
            run(photos, tmp_path / "labels", shard=other, resume=True)
    Image.fromarray(picture([["red"]], scale=8)).save(photos / "0.png")  # deals the photographs out anew
    with pytest.raises(PatchwordError, match="photographs of all shards was 9, now 10"):
        run(photos, tmp_path / "labels", shard=Shard(1, 2), resume=True)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(PatchwordError, match="it must be i/n with i from 1 to n"):
        Shard.parse(text)


def test_a_shard_without_photographs_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"shard 10/10 has no photographs.*at most 9 shards"):
        run(photos, tmp_path / "labels", shard=Shard(10, 10))
    assert not (tmp_path / "labels").exists()


def test_chunks_are_whole_and_dealt_out_in_turn() -> None:
    names = [f"{number:02d}" for number in range(11)]
    chunks = chunks_of(names, size=2)
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 2, 1]
    assert [name for chunk in chunks for name in chunk] == names
    parts = [chunks_of(names, size=2, shard=Shard(index, 4)) for index in (1, 2, 3, 4)]
    assert parts[0] == [("00", "01"), ("08", "09")]
    assert parts[1] == [("02", "03"), ("10",)]
    assert sorted(chunk for part in parts for chunk in part) == chunks


def test_lists_of_names_are_told_apart() -> None:
    assert names_hash(["a", "b"]) != names_hash(["ab"]) != names_hash(["b", "a"])
    assert names_hash(["caf\udce9.jpg"]) != names_hash(["caf.jpg"])  # a name that is not UTF-8


def test_what_other_shards_write_among_the_photographs_is_no_photograph(photos: Path) -> None:
    before = choose_images(photos, out=photos / "labels-2").images
    run(photos, photos / "labels-1", shard=Shard(1, 2))
    assert choose_images(photos, out=photos / "labels-2").images == before


def test_chunks_hold_no_more_pixels_than_they_may() -> None:
    pixels = {"a": 4, "b": 4, "c": 9, "d": 1, "e": 20, "f": 1}
    chunks = chunks_of("abcdefg", size=4, pixels=pixels, most=10)
    assert chunks == [("a", "b"), ("c", "d"), ("e",), ("f", "g")]
    assert chunks_of("abcd", size=4, pixels=pixels, most=10, alone={"b"}) == [("a",), ("c", "d"), ("b",)]
    assert chunks_of("abcdefg", size=4, pixels=pixels) == [tuple("abcd"), tuple("efg")]
