"""A thousand malformed files among good ones: the run ends, says what is wrong with each, and labels the rest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from label_fakes import ColourClip, RegionSam
from malformed import FORMATS, bomb, malformed, photograph

from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.images import read_image
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder

BAD = 1000
FOLDERS = ("", "Füße im Schnee", "写真/二〇二四", "a/b/c", "d’été")
SETTINGS = LabelSettings(generator="clip-prompts-sam", grids=(1, 2), minimum_crops=1, peaks=1)
CLASSES = Vocabulary.of(["red", "blue", "yellow", "green"])
MOST_PIXELS = 4096


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.name


def can_be_read(path: Path) -> bool:
    try:
        read_image(path)
    except PatchwordError:
        return False
    return True


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = random.Random(7)
    for number in range(30):
        suffix = list(FORMATS)[number % len(FORMATS)]
        write(
            root / rng.choice(FOLDERS) / f"gut {number}{suffix}", photograph([["red", "blue"], ["red", "red"]], suffix)
        )
    made = 0
    while made < BAD - 1:
        suffix, data = malformed(rng)
        path = root / rng.choice(FOLDERS) / f"schlecht {made} ü{suffix}"
        write(path, data)
        if can_be_read(path) and read_image(path).size > 3 * MOST_PIXELS:
            path.unlink()  # of a size that the mutation made up: a good photograph, but it would take the fakes long
            continue
        made += 1
    write(root / "bombe.png", bomb())
    return root


@pytest.fixture(scope="module")
def labelled(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelledDataset:
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=CLASSES)
    out = tmp_path_factory.mktemp("out") / "labels"
    return label_folder(find_images(photos), root=photos, out=out, parts=parts, settings=SETTINGS, quiet=True)


def test_every_file_is_accounted_for(photos: Path, labelled: LabelledDataset) -> None:
    names = {path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file()}
    assert len(names) == BAD + 30
    done = [item.record.name for item in labelled.items]
    failed = [record.name for record in labelled.failed]
    assert sorted(done + failed) == sorted(names)
    assert labelled.counts.images == BAD + 30
    assert labelled.counts.failed == len(failed) > BAD / 3
    for name in names:
        assert (name in done) == can_be_read(photos / name)


def test_every_good_photograph_is_labelled(labelled: LabelledDataset) -> None:
    good = [item for item in labelled.items if "gut" in item.record.name]
    assert len(good) == 30
    for item in good:
        found = LabelMap.load(item.label_map, names=CLASSES.names).indices
        assert found.shape == item.record.size == (16, 16)
        assert item.record.status == "ok"
        if item.image.suffix not in (".jpg", ".jpeg", ".webp", ".jp2"):  # these change the colours a little
            assert set(item.record.classes) == {"red", "blue"}
            assert found[4, 4] == CLASSES.names.index("red")
            assert found[4, 12] == CLASSES.names.index("blue")


def test_every_reason_is_one_line_that_names_the_file(labelled: LabelledDataset) -> None:
    for record in labelled.failed:
        assert record.reason is not None
        assert record.reason.isprintable()
        assert record.reason.startswith("cannot read ")
        assert record.name in record.reason
        assert 0 < len(record.reason.partition(record.name)[2].lstrip(": ")) <= 200
    reasons = " ".join(record.reason or "" for record in labelled.failed)
    for expected in ("the file is empty", "not an image that can be read", "truncated", "damaged"):
        assert expected in reasons
    (bombed,) = [record for record in labelled.failed if record.name == "bombe.png"]
    assert "178,956,970 pixels" in (bombed.reason or "")


def test_nothing_is_said_on_the_screen(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The run itself is quiet, and so is whatever decodes, also where it writes past Python."""
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=CLASSES)
    images = [path for path in find_images(photos) if path.suffix in (".tif", ".tiff", ".png", ".jpg")]
    capfd.readouterr()
    label_folder(images, root=photos, out=tmp_path / "labels", parts=parts, settings=SETTINGS, quiet=True)
    assert capfd.readouterr() == ("", "")
