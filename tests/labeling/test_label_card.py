"""The card beside the labels says what they are, from their record alone."""

from __future__ import annotations

from pathlib import Path

from label_fakes import ColourClip, RegionSam, picture
from PIL import Image

from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.image import LabelParts
from patchword.labeling.records import CARD_FILE, DatasetRecord, dataset_card
from patchword.labeling.run import label_folder


def test_a_run_leaves_a_card_that_its_record_makes_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(picture([["red", "blue"]], scale=16)).save(photos / "a.png")
    (photos / "b.png").write_bytes(b"no picture")
    vocabulary = Vocabulary.of(["red", "blue"], background=["white"])
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=vocabulary)
    label_folder(find_images(photos), root=photos, out=tmp_path / "labels", parts=parts, quiet=True)
    card = (tmp_path / "labels" / CARD_FILE).read_text()
    record = DatasetRecord.load(tmp_path / "labels")
    assert card == dataset_card(record)
    for part in ("2 photographs: 1 with labels", "| 0 | red | 1 |", "colour-clip", "| margin | 0.02 |", "## Limits"):
        assert part in card
    imported = record.model_copy(update={"source": "voc", "settings": None, "image_text": None, "mask_proposer": None})
    text = dataset_card(imported)
    assert "They were imported from voc." in text
    assert "## Models" not in text
    assert "## Settings" not in text
