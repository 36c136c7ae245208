"""A class has one colour: in label maps, segmentations, overlays, and in the table of all exported formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from label_fakes import ColourClip, RegionSam, label_image, picture
from PIL import Image

from patchword.config.label import LabelSettings
from patchword.data.images import to_tensor
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.export.job import categories_of
from patchword.labeling.image import LabelParts
from patchword.segmentation.dense import DenseSegmenter

VOCABULARY = Vocabulary.parse("green\nblue\n  @colour: c04080\nred\n@background: white\n")
SCENE = picture([["blue", "blue", "red"], ["blue", "green", "red"]], scale=16)


def stored_colours(label_map: LabelMap, path: Path) -> list[list[int]]:
    label_map.save(path)
    with Image.open(path) as image:
        return np.array(image.getpalette("RGB")).reshape(-1, 3)[:3].tolist()


def test_the_colours_of_the_class_list_go_everywhere(tmp_path: Path) -> None:
    wanted = VOCABULARY.colours.tolist()
    assert wanted[1] == [0xC0, 0x40, 0x80]
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=VOCABULARY)
    labels = label_image(to_tensor(SCENE), parts=parts, settings=LabelSettings(minimum_crops=1, minimum_share=0))
    assert stored_colours(labels.label_map, tmp_path / "labels.png") == wanted
    segmented = DenseSegmenter(ColourClip()).segment(SCENE, classes=VOCABULARY)
    assert segmented.label_map.names[-1] == "background"
    assert stored_colours(segmented.label_map, tmp_path / "segmented.png") == wanted
    shown = np.asarray(segmented.overlay(opacity=1, legend=False))
    expected = segmented.label_map.class_colours()[segmented.label_map.indices]
    np.testing.assert_array_equal(shown, expected)
    assert [list(category.colour) for category in categories_of(VOCABULARY)] == wanted
