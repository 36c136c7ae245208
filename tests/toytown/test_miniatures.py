"""The miniature models that come with the package: they load, are small, have cards and hold no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.toytown import miniatures
from patchword.toytown.classes import CLASSES, COLOURS

MODELS = {"clip": miniatures.CLIP, "dino": miniatures.DINO, "sam": miniatures.SAM}
MEGABYTES = 25


def present(name: str) -> Path:
    """The folder of a miniature; the test is skipped where the package has none yet."""
    folder = MODELS[name]
    if not folder.is_dir():
        pytest.skip(f"the miniature {name} has not been trained: {folder} is absent")
    return folder


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_clip_loads(image: torch.Tensor) -> None:
    encoder = load_image_text(str(present("clip")), device="cpu")
    assert encoder.record.family == "clip"
    assert encoder.encode_images(image).isfinite().all()
    assert encoder.encode_patches(image).shape[-2:] == (8, 12)
    assert encoder.encode_text(["a car"]).shape == (1, encoder.record.dim)


def test_clip_knows_every_name_as_one_token() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(present("clip"))
    lengths = {word: len(tokenizer(word)["input_ids"]) - 2 for word in [*CLASSES, *COLOURS]}
    assert {word: length for word, length in lengths.items() if length != 1} == {}


def test_dino_loads(image: torch.Tensor) -> None:
    encoder = load_patch_encoder(str(present("dino")), device="cpu")
    assert encoder.record.family == "dinov2"
    found = encoder(image)
    assert found.shape == (1, encoder.record.dim, 8, 12)
    assert found.isfinite().all()


def test_sam_loads(image: torch.Tensor) -> None:
    proposer = load_mask_generator(str(present("sam")), device="cpu")
    assert proposer.record.family == "sam"
    (proposals,) = proposer.masks_at(proposer.embed([image]), [torch.tensor([[[20.0, 30.0]], [[70.0, 10.0]]])])
    assert proposals.logits.shape[:2] == (2, 3)
    assert proposals.upsample(proposals.best()[0]).shape == (2, 64, 96)


def test_together_they_are_small() -> None:
    size = sum(path.stat().st_size for name in MODELS for path in present(name).rglob("*") if path.is_file())
    assert 0 < size <= MEGABYTES * 1e6


@pytest.mark.parametrize("name", MODELS)
def test_each_has_a_card(name: str) -> None:
    card = (present(name) / "README.md").read_text(encoding="utf-8")
    assert "\n# " in f"\n{card}"
    assert f"train-{name}" in card
    assert f"python -m tools.miniatures.train {name}" in card
    assert "validate" in card


@pytest.mark.parametrize("name", MODELS)
def test_none_holds_a_pickle(name: str) -> None:
    for path in present(name).rglob("*"):
        assert path.suffix in (".json", ".safetensors", ".md", ".txt"), path.name
        if path.suffix == ".safetensors":
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            parts = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            assert 8 + int.from_bytes(content[:8], "little") + max(parts) == len(content)
        else:
            path.read_text(encoding="utf-8")
