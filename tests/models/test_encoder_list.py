"""The list of encoders: what it says agrees with the registry, with itself, and with the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchword.models.catalog import HEADINGS, encoder_row, list_encoders, patch_shape
from patchword.models.loading import load_patch_encoder
from patchword.models.registry import PRESETS

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"


def markdown() -> str:
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(encoder_row(facts) for facts in list_encoders())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def test_page_shows_the_list() -> None:
    assert markdown() in PAGE.read_text(encoding="utf-8")


def test_page_tells_the_features_of_every_family() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## What the features are")[1].split("\n## ")[0]
    for facts in list_encoders():
        assert f"`{facts.family}" in table, facts.family


def test_facts_follow_the_roles() -> None:
    listed = list_encoders()
    assert len({facts.name for facts in listed}) == len(listed)
    for facts in listed:
        assert "patches" in facts.roles
        if facts.extra:
            assert facts.name == f"{facts.extra}:NAME"
            continue
        assert facts.patch
        assert facts.channels
        assert facts.parameters
        assert facts.licence
        assert (facts.text_channels is not None) == ("text" in facts.roles)


@pytest.mark.parametrize(
    ("name", "channels", "text_channels"),
    [
        ("openai/clip-vit-large-patch14-336", 1024, 768),
        ("facebook/dinov2-with-registers-base", 768, None),
        ("facebook/sam-vit-huge", 256, None),
        ("google/siglip2-base-patch16-224", 768, 768),
    ],
)
def test_channels_of_patches_and_of_text_are_told_apart(name: str, channels: int, text_channels: int | None) -> None:
    (facts,) = [facts for facts in list_encoders() if facts.name == name]
    assert (facts.channels, facts.text_channels) == (channels, text_channels)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("facebook/dinov2-base", (14, 768)),
        ("openai/clip-vit-base-patch16", (16, 768)),
        ("facebook/sam2.1-hiera-tiny", (16, 256)),
        ("someone/their-dinov2", None),
        ("timm:resnet50", None),
    ],
)
def test_shape_of_a_name(name: str, shape: tuple[int, int] | None) -> None:
    assert patch_shape(name) == shape


@pytest.mark.parametrize(
    "fixture",
    ["tiny_clip", "tiny_siglip", "tiny_dinov2", "tiny_dinov3", "tiny_dinov3_convnext", "tiny_mae", "tiny_sam2_video"],
)
def test_shape_of_a_folder_is_that_of_the_loaded_model(fixture: str, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(fixture))
    record = load_patch_encoder(folder, device="cpu").record
    assert patch_shape(folder) == (record.patch_size, record.dim)


def test_encoders_of_the_presets_are_listed() -> None:
    names = {facts.name for facts in list_encoders()}
    assert {preset.patch_encoder for preset in PRESETS.values()} <= names
