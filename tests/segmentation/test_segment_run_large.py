"""Photographs and images that are segmented tile by tile in one folder run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_segmenter import NAMES, LocalSegmenter, picture
from PIL import Image

from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, WriteError
from patchword.runs.folder_run import FolderRun
from patchword.runs.records import read_sessions
from patchword.runs.shards import Shard
from patchword.segmentation.folder import merge_segmentations
from patchword.segmentation.records import SegmentedFolder
from patchword.segmentation.run import segment_folder

SETTINGS = {"batch": 2, "large_megapixels": 0.003, "tile": 32, "overlap": 8}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, side in (("a.png", 40), ("large.png", 90), ("m.png", 50), ("z.png", 45)):
        Image.fromarray(picture(side, side, seed=side)).save(folder / name)
    return folder


def run(photos: Path, segmenter: LocalSegmenter, **options: Any) -> SegmentedFolder:
    arguments: dict[str, Any] = {
        "classes": NAMES,
        "out": photos.parent / "out",
        "settings": SETTINGS,
        "folder_settings": {"confidence_bits": 8},
        "quiet": True,
        **options,
    }
    return segment_folder(find_images(photos), root=photos, segmenter=segmenter, **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("runs.jsonl")
    return files


def test_a_large_image_is_read_tile_by_tile_beside_photographs(photos: Path) -> None:
    segmenter = LocalSegmenter()
    done = run(photos, segmenter)
    assert done.names == ("a.png", "large.png", "m.png", "z.png")
    assert {side for size in segmenter.seen for side in size} == {32, 40, 45, 50}
    lines = {line["name"]: line for line in map(json.loads, (done.folder / "results.jsonl").read_text().splitlines())}
    assert "large" not in lines["a.png"]
    assert lines["large.png"]["large"] == {"tiles": 16, "mask": "masks/large.png.png"}
    for name, line in lines.items():
        expected = LocalSegmenter().segment(picture(*line["size"], seed=line["size"][0]), classes=NAMES)
        mask = LabelMap.load(done.folder / "masks" / f"{name}.png", names=NAMES)
        np.testing.assert_array_equal(mask.indices, expected.label_map.indices)
        assert {each: area["pixels"] for each, area in line["classes"].items()} == expected.areas()
        assert (done.folder / "confidence" / f"{name}.png").is_file()
        assert (done.folder / "overlays" / f"{name}.jpg").is_file()
    assert not (done.folder / "unfinished").exists()


def test_what_is_being_done_is_told_with_the_name_of_the_image(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(FolderRun, "tell", lambda _, note: told.append(note))
    run(photos, LocalSegmenter())
    assert told[-1] == ""
    assert told[-2].startswith("large.png: tile ")


@pytest.mark.parametrize("after", [0, 3, 17, 18])
def test_it_goes_on_in_the_midst_of_an_image(photos: Path, tmp_path: Path, after: int) -> None:
    whole = run(photos, LocalSegmenter(), out=tmp_path / "whole")
    stopping = LocalSegmenter()
    stopping.fail_after = after
    with pytest.raises(KeyboardInterrupt):
        run(photos, stopping)
    rest = LocalSegmenter()
    resumed = run(photos, rest, resume=True)
    assert contents(resumed.folder) == contents(whole.folder)
    assert [session.ended for session in read_sessions(resumed.folder)] == ["interrupted", "finished"]
    assert run(photos, LocalSegmenter(), resume=True).names == whole.names
    assert contents(resumed.folder) == contents(whole.folder)


def test_shards_merge_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    whole = run(photos, LocalSegmenter(), out=tmp_path / "whole")
    shards = [tmp_path / "1", tmp_path / "2"]
    for index, shard in enumerate(shards, start=1):
        run(photos, LocalSegmenter(), out=shard, shard=Shard(index, 2))
    with pytest.raises(PatchwordError, match="no such folder of photographs: absent"):
        merge_segmentations(shards, out=tmp_path / "merged", photos="absent", quiet=True)
    merged = merge_segmentations(shards, out=tmp_path / "merged", quiet=True)
    assert contents(merged.folder) == contents(whole.folder)


def test_a_large_image_that_is_broken_ends_nothing_and_a_full_disk_does(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (photos / "large.png").read_bytes()
    (photos / "large.png").write_bytes(data[: len(data) // 2])
    done = run(photos, LocalSegmenter())
    assert done.names == ("a.png", "m.png", "z.png")
    assert done.failed["large.png"].startswith("cannot read large.png: ")

    def full(*_: object, **__: object) -> None:
        raise WriteError("cannot write it: No space left on device")

    monkeypatch.setattr("patchword.segmentation.large.run.segment_large", full)
    with pytest.raises(PatchwordError, match="No space left"):
        run(photos, LocalSegmenter(), resume=True, retry_failed=True)


def test_a_georeference_is_kept(photos: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = np.moveaxis(picture(60, 70), -1, 0)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)}
    with rasterio.open(
        photos / "geo.tif", "w", driver="GTiff", height=60, width=70, count=3, dtype="uint8", **place
    ) as file:
        file.write(values)
    done = run(photos, LocalSegmenter())
    line = json.loads((done.folder / "results.jsonl").read_text().splitlines()[1])
    assert (line["name"], line["large"]["mask"]) == ("geo.tif", "masks/geo.tif.tif")
    assert line["large"]["crs"] == "EPSG:32633"
    for area in line["classes"].values():
        assert area["square_metres"] == pytest.approx(area["pixels"] * 0.25)
    before = contents(done.folder)
    (done.folder / "masks/geo.tif.tif").unlink()
    run(photos, LocalSegmenter(), resume=True)
    assert contents(done.folder) == before
