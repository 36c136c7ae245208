"""The whole path on real model classes with random weights: nonsense labels, but real files and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder
from patchword.models.loading import load_image_text, load_mask_generator

SIZES = {"one.png": (1, 1), "long.png": (200, 8000), "thin.png": (300, 2), "plain.jpg": (60, 90)}
VOCABULARY = Vocabulary.of(["cat", "dog", "sofa; couch", "naïve 猫"], background=["sky", "wall"])
SETTINGS = LabelSettings(pred_iou_thresh=0, minimum_crops=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, size in SIZES.items():
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def run(photos: Path, out: Path, *, image_text: Path, mask_generator: Path) -> LabelledDataset:
    parts = LabelParts.of(
        load_image_text(str(image_text), device="cpu"),
        mask_generator=load_mask_generator(str(mask_generator), device="cpu"),
        vocabulary=VOCABULARY,
    )
    return label_folder(find_images(photos), root=photos, out=out, parts=parts, settings=SETTINGS, quiet=True)


@pytest.mark.parametrize(("image_text", "proposer"), [("tiny_clip", "tiny_sam"), ("tiny_siglip", "tiny_sam2")])
def test_every_size_gets_a_label_map(
    photos: Path, tmp_path: Path, request: pytest.FixtureRequest, image_text: str, proposer: str
) -> None:
    models = {"image_text": request.getfixturevalue(image_text), "mask_generator": request.getfixturevalue(proposer)}
    dataset = run(photos, tmp_path / "labels", **models)
    assert [item.record.name for item in dataset.items] == sorted(SIZES)
    assert dataset.failed == ()
    for item in dataset.items:
        indices = LabelMap.load(item.label_map, names=VOCABULARY.names).indices
        assert indices.shape == SIZES[item.record.name]
        assert all(segment.mask().shape == indices.shape for segment in item.segments())
        assert all(0 <= segment.score <= 1 for segment in item.segments())
    assert dataset.counts.segments > 0
    assert len(dataset.image_text.fingerprint) == 64
    again = run(photos, tmp_path / "again", **models)
    for first, second in zip(dataset.items, again.items, strict=True):
        assert first.label_map.read_bytes() == second.label_map.read_bytes()
        assert first.segments_file.read_bytes() == second.segments_file.read_bytes()
