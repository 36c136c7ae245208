"""Segmenters of the world of colours: one trained in seconds, and its parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "alignment"))

import colour_world

from patchword.alignment.run import align_labels
from patchword.segmentation.segmenter import Segmenter


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    align_labels(
        colour_world.make_data(folder),
        encoder=colour_world.ColourPatches(),
        text_encoder=colour_world.ColourText(),
        out=folder / "model",
        settings=colour_world.SETTINGS,
        quiet=True,
    )
    return folder / "model"


@pytest.fixture
def segmenter(model_folder: Path) -> Segmenter:
    return Segmenter.from_pretrained(
        model_folder, encoder=colour_world.ColourPatches(), text_encoder=colour_world.ColourText()
    )
