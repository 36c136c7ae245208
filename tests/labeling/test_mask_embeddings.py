"""What CLIP sees in every mask: kept with the labels, read again, and laid on patches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from label_fakes import COLOURS, ColourClip, RegionSam, picture
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.embeddings import CELLS, MaskEmbeddings
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder

PICTURES = {"a.png": [["red", "blue"]], "b.png": [["green"]], "c.png": [["red"], ["green"]]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, rows in PICTURES.items():
        Image.fromarray(picture(rows, scale=16)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def run(photos: Path, out: Path, **options: Any) -> LabelledDataset:
    vocabulary = Vocabulary.of(["red", "blue"], background=["white"])
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=vocabulary)
    settings = LabelSettings(mask_embeddings=options.pop("kept", True), stability_score_offset=0.5)
    return label_folder(
        find_images(photos), root=photos, out=out, parts=parts, settings=settings, quiet=True, **options
    )


def random_embeddings(count: int, seed: int = 0) -> MaskEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn((count, 12), generator=generator)
    return MaskEmbeddings.of(vectors, shares=torch.rand((count, CELLS, CELLS), generator=generator))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_was_saved_is_read_again(tmp_path: Path, count: int) -> None:
    before = random_embeddings(count)
    before.save(tmp_path / "x.safetensors")
    after = MaskEmbeddings.load(tmp_path / "x.safetensors")
    torch.testing.assert_close(after.vectors, before.vectors, rtol=0, atol=0)
    assert torch.equal(after.cells, before.cells)


def test_a_file_that_is_damaged_or_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(PatchwordError, match=r"x\.safetensors are missing"):
        MaskEmbeddings.load(path)
    random_embeddings(3).save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(PatchwordError, match=r"x\.safetensors are damaged"):
        MaskEmbeddings.load(path)


@pytest.mark.parametrize("grid", [(8, 8), (16, 4)])
def test_a_patch_belongs_to_the_smallest_mask_that_covers_enough_of_it(grid: tuple[int, int]) -> None:
    cells = torch.zeros(4, CELLS, CELLS, dtype=torch.bool)
    cells[0, 8:56, 8:56] = True
    cells[1] = True
    cells[2, 20:29, 20:41] = True
    found = MaskEmbeddings(torch.zeros(4, 3), cells).regions(grid, majority=0.6)
    high, wide = CELLS // grid[0], CELLS // grid[1]
    for row in range(grid[0]):
        for column in range(grid[1]):
            inside = cells[:, row * high : (row + 1) * high, column * wide : (column + 1) * wide].float().mean((1, 2))
            fits = [mask for mask in range(4) if inside[mask] >= 0.6]
            assert found[row, column] == min(fits, key=lambda mask: int(cells[mask].sum()), default=-1)


def test_every_mask_has_its_colour_and_its_place_named_or_not(photos: Path, tmp_path: Path) -> None:
    found = {item.record.name: item for item in run(photos, tmp_path / "labels").items}
    colours = list(COLOURS)
    for name, rows in PICTURES.items():
        path = found[name].embeddings_file
        assert path is not None
        embeddings = MaskEmbeddings.load(path)
        seen = {colours[int(vector.argmax())] for vector in embeddings.vectors}
        assert seen == {colour for row in rows for colour in row}
        for vector, cells in zip(embeddings.vectors, embeddings.cells, strict=True):
            colour = colours[int(vector.argmax())]
            table = torch.tensor([[each == colour for each in row] for row in rows])
            size = (CELLS // table.shape[0], CELLS // table.shape[1])
            assert torch.equal(cells, table.repeat_interleave(size[0], 0).repeat_interleave(size[1], 1))


def test_labels_are_the_same_with_and_without(photos: Path, tmp_path: Path) -> None:
    with_, without = run(photos, tmp_path / "with"), run(photos, tmp_path / "without", kept=False)
    assert [item.embeddings_file for item in without.items] == [None] * 3
    assert not (tmp_path / "without" / "embeddings").exists()
    for one, other in zip(with_.items, without.items, strict=True):
        assert one.label_map.read_bytes() == other.label_map.read_bytes()
        assert one.segments_file.read_bytes() == other.segments_file.read_bytes()


def test_a_photograph_whose_embeddings_are_gone_is_labelled_again(photos: Path, tmp_path: Path) -> None:
    (item, *_) = run(photos, tmp_path / "labels").items
    assert item.embeddings_file is not None
    before = item.embeddings_file.read_bytes()
    item.embeddings_file.unlink()
    run(photos, tmp_path / "labels", resume=True)
    assert item.embeddings_file.read_bytes() == before


def test_labels_of_an_earlier_version_hold_none(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "labels", kept=False)
    path = tmp_path / "labels" / "dataset.json"
    data = json.loads(path.read_bytes())
    del data["settings"]["mask_embeddings"]
    path.write_text(json.dumps(data))
    opened = LabelledDataset.open(tmp_path / "labels")
    assert opened.settings is not None
    assert not opened.settings.mask_embeddings
