"""Large images in a folder run, beside ordinary ones: stopped, resumed, in shards, and failing."""

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
from patchword.runs.shards import Shard, chunks_of
from patchword.segmentation.records import SegmentedFolder
from patchword.segmentation.run import segment_folder

rasterio = pytest.importorskip("rasterio")

TRANSFORM = rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)
TILES = 2 + 12 + 4 + 4  # of all images together; ordinary ones are one each
NUMBERS = {"tile": 32, "overlap": 8, "large_megapixels": 0.004, "batch": 4}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two ordinary photographs, a large one, and two GeoTIFFs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "e.png")):
        Image.fromarray(picture(20, 30, seed=number)).save(folder / name)
    Image.fromarray(picture(70, 95)).save(folder / "b.png")
    for number, name in enumerate(("c.tif", "d.tif")):
        values = picture(40, 50, seed=number)
        profile = {"driver": "GTiff", "height": 40, "width": 50, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(folder / name, "w", **profile, transform=TRANSFORM) as file:
            file.write(np.moveaxis(values, -1, 0))
    return folder


def run(photos: Path, out: str = "out", *, segmenter: Any = None, **options: Any) -> SegmentedFolder:
    arguments: dict[str, Any] = {
        "settings": NUMBERS,
        "folder_settings": {"confidence_bits": 8, "rle": True},
        "quiet": True,
        **options,
    }
    return segment_folder(
        find_images(photos),
        root=photos,
        segmenter=segmenter or LocalSegmenter(),
        classes=NAMES,
        out=photos.parent / out,
        **arguments,
    )


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "runs.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {line["name"]: line for line in found}


def test_all_kinds_in_one_folder(photos: Path) -> None:
    result = run(photos)
    assert result.names == ("a.png", "b.png", "c.tif", "d.tif", "e.png")
    expected = {"masks": ["a.png.png", "b.png.png", "c.tif.json", "c.tif.tif", "d.tif.json", "d.tif.tif", "e.png.png"]}
    expected["confidence"] = [name for name in expected["masks"] if not name.endswith(".json")]
    expected["overlays"] = [f"{name}.jpg" for name in result.names]
    for folder, names in expected.items():
        assert sorted(path.name for path in (result.folder / folder).iterdir()) == names
    assert not (result.folder / "unfinished").exists()
    for line in lines(result.folder).values():
        height, width = line["size"]
        assert sum(area["pixels"] for area in line["classes"].values()) + line["ignored"] == height * width
        assert sum(area["share"] for area in line["classes"].values()) == pytest.approx(1, abs=1e-5)
        assert line["content"]
    areas = lines(result.folder)["c.tif"]["classes"]
    assert all(area["square_metres"] == area["pixels"] * 0.25 for area in areas.values())
    whole = LocalSegmenter().segment(picture(70, 95), classes=NAMES).label_map.indices
    np.testing.assert_array_equal(LabelMap.load(result.folder / "masks/b.png.png", names=NAMES).indices, whole)


@pytest.mark.parametrize("after", [2, 5, 14, 16])
def test_a_stopped_run_goes_on_to_the_same_bytes(photos: Path, after: int) -> None:
    whole = run(photos, "whole")
    segmenter = LocalSegmenter()
    segmenter.fail_after = after
    with pytest.raises(KeyboardInterrupt):
        run(photos, segmenter=segmenter)
    rest = LocalSegmenter()
    again = run(photos, segmenter=rest, resume=True)
    assert files(again.folder) == files(whole.folder)
    assert len(segmenter.seen) + len(rest.seen) <= TILES + 4  # at most the batch that was under way is done again
    nothing = LocalSegmenter()
    run(photos, segmenter=nothing, resume=True)
    assert nothing.seen == []


def test_large_images_are_chunks_of_their_own() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    assert chunks_of(names, size=4, alone={"b", "f"}) == [("a", "c", "d"), ("b",), ("e",), ("f",)]
    assert chunks_of(names, size=4, alone={"b", "f"}, shard=Shard(2, 2)) == [("b",), ("f",)]


def test_one_that_cannot_be_read_is_a_line_and_the_rest_goes_on(photos: Path) -> None:
    run(photos)
    data = (photos / "d.tif").read_bytes()
    (photos / "d.tif").write_bytes(data[: len(data) // 2])
    result = run(photos, overwrite=True)
    assert list(result.failed) == ["d.tif"]
    assert result.failed["d.tif"].startswith("cannot read d.tif: damaged")
    assert not list((result.folder / "masks").glob("d.tif*"))
    (photos / "d.tif").write_bytes(data)
    assert not run(photos, resume=True, retry_failed=True).failed
