"""Malformed files among good ones: the run ends, says what is wrong with each, and segments the rest."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from local_segmenter import LocalSegmenter

sys.path.insert(0, str(Path(__file__).parent.parent / "labeling"))

from malformed import FORMATS, bomb, malformed, photograph

from patchword.data.image_files import find_images
from patchword.data.images import read_image
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.segmentation.run import segment_folder

BAD, MOST_PIXELS = 200, 4096
NAMES = ("dark", "middle", "light")


def test_every_file_is_accounted_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, rng = tmp_path / "Füße 写真", random.Random(3)
    root.mkdir()
    for number, suffix in enumerate(FORMATS):
        (root / f"gut {number}{suffix}").write_bytes(photograph([["red", "blue"], ["red", "red"]], suffix))
    for number in range(BAD):
        suffix, data = malformed(rng)
        path = root / f"schlecht {number}{suffix}"
        path.write_bytes(data)
        if _pixels(path) > MOST_PIXELS:
            path.unlink()  # of a size that the mutation made up: a good photograph that would take long
    (root / "bombe.png").write_bytes(bomb())
    images = find_images(root)
    capfd.readouterr()
    done = segment_folder(
        images, root=root, segmenter=LocalSegmenter(), classes=NAMES, out=tmp_path / "out", quiet=True
    )
    assert capfd.readouterr() == ("", "")
    assert sorted([*done.names, *done.failed]) == sorted(path.name for path in images)
    assert {name for name in done.names if name.startswith("gut")} == {
        f"gut {number}{suffix}" for number, suffix in enumerate(FORMATS)
    }
    for path in images:
        assert (path.name in done.names) == (_pixels(path) > 0)
    for name in done.names:
        assert LabelMap.load(done.folder / "masks" / f"{name}.png", names=NAMES).indices.size == _pixels(root / name)
    for name, reason in done.failed.items():
        assert reason.isprintable()
        assert reason.startswith(f"cannot read {name}: ")
    assert "too large" in done.failed["bombe.png"]
    assert len(done.failed) > BAD / 4


def _pixels(path: Path) -> int:
    try:
        return read_image(path).size // 3
    except PatchwordError:
        return 0
