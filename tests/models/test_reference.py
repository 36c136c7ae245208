"""`models check --reference`: our adapters against transformers on the same weights, and against published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchword.errors import PatchwordError
from patchword.models import reference
from patchword.models.reference import (
    PUBLISHED,
    Comparison,
    Published,
    compare_with_published,
    compare_with_reference,
    drawn_picture,
)
from patchword.models.registry import Kind, checkpoint_of
from patchword.toytown import miniatures
from small_world import must, run

CASES: list[tuple[str, Kind, int]] = [
    ("tiny_clip", "image-text", 2),
    ("tiny_siglip", "image-text", 2),
    ("tiny_dinov2", "patch", 1),
    ("tiny_dinov2_registers", "patch", 1),
    ("tiny_sam", "mask", 2),
    ("tiny_sam2", "mask", 2),
]


@pytest.mark.parametrize(("fixture", "kind", "count"), CASES)
def test_every_family_agrees_with_transformers(
    fixture: str, kind: Kind, count: int, request: pytest.FixtureRequest
) -> None:
    found = compare_with_reference(str(request.getfixturevalue(fixture)), kind=kind, device="cpu")
    assert len(found) == count
    assert [each for each in found if not each.passes] == []


def test_the_miniatures_agree_and_the_command_says_so() -> None:
    folders = [str(folder) for folder in (miniatures.CLIP, miniatures.DINO, miniatures.SAM)]
    said = must(run("models", "check", "--reference", *folders, "--device", "cpu")).out
    assert said.count("passes") == 5
    assert "CLIPModel of transformers" in said
    rows = json.loads(must(run("models", "check", "--reference", folders[1], "--device", "cpu", "--json")).out)
    assert [(row["model"], row["passes"]) for row in rows] == [(folders[1], True)]


@pytest.mark.parametrize(
    ("fixture", "kind"), [("tiny_clip", "image-text"), ("tiny_dinov2", "patch"), ("tiny_sam", "mask")]
)
def test_wrong_preprocessing_fails(
    fixture: str, kind: Kind, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(fixture)
    load = reference._LOADERS[kind]

    def swapped(*arguments: Any, **options: Any) -> Any:
        adapter = load(*arguments, **options)
        object.__setattr__(adapter.record, "mean", (0.1, 0.2, 0.9))
        object.__setattr__(adapter.record, "std", (0.9, 0.5, 0.1))
        return adapter

    monkeypatch.setitem(reference._LOADERS, kind, swapped)
    found = compare_with_reference(str(folder), kind=kind, device="cpu")
    assert not all(each.passes for each in found)
    assert must(run("models", "check", "--reference", folder, "--device", "cpu"), code=1).out.count("FAILS") >= 1


def test_a_difference_that_is_no_number_does_not_pass() -> None:
    assert not Comparison("x", float("nan"), 1.0, "").passes


def test_families_without_a_reference_are_named(tiny_mae: Path) -> None:
    with pytest.raises(PatchwordError, match=r"no reference for the family mae .there is one for clip, dinov2"):
        compare_with_reference(str(tiny_mae), kind="patch", device="cpu")


def test_the_drawn_picture_is_always_the_same() -> None:
    first, second = (np.asarray(drawn_picture(60)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100


def test_published_numbers_belong_to_known_checkpoints() -> None:
    assert {entry.checkpoint for entry in PUBLISHED} >= {"facebook/dinov2-base", "facebook/sam-vit-base"}
    assert all(checkpoint_of(entry.checkpoint) or entry.checkpoint.endswith("patch32") for entry in PUBLISHED)


@pytest.fixture
def published(tiny_dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, and published numbers that are those of a tiny model for it."""
    picture = tmp_path / "cats.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(picture)
    adapter = reference._LOADERS["patch"](str(tiny_dinov2), device="cpu")
    values = reference._dino_patches(adapter, Image.open(picture))
    entry = Published(
        str(tiny_dinov2),
        "cats.png",
        "",
        "",
        "",
        "patches",
        tuple(values.tolist()),
        reference._dino_patches,
        1e-4,
        "here",
    )
    monkeypatch.setattr(reference, "PUBLISHED", (entry,))
    return picture


def test_published_numbers_are_compared_where_the_picture_is(tiny_dinov2: Path, published: Path) -> None:
    assert "dino" in str(tiny_dinov2)
    (found,), missed = compare_with_published(str(tiny_dinov2), picture=published, device="cpu")
    assert (found.passes, missed) == (True, [])
    pixels = np.asarray(Image.open(published))
    Image.fromarray(255 - pixels).save(published)
    (found,), _ = compare_with_published(str(tiny_dinov2), picture=published, device="cpu")
    assert not found.passes


def test_a_picture_that_is_not_to_be_found_is_said_and_the_rest_goes_on(tiny_dinov2: Path, published: Path) -> None:
    ran = must(run("models", "check", "--reference", tiny_dinov2, "--device", "cpu"))
    assert "patches not compared: give the picture with --picture (cats.png)" in ran.err
    assert "passes" in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--picture", "x.png"], "--picture requires --reference"),
        (["--reference", "--picture", "x.png"], "is not a file"),
    ],
)
def test_a_picture_without_use_is_refused(options: list[str], said: str, tiny_dinov2: Path) -> None:
    assert said in must(run("models", "check", tiny_dinov2, *options), code=2).err


def test_logits_of_clip_are_scaled_cosines(tiny_clip: Path) -> None:
    adapter: Any = reference._LOADERS["image-text"](str(tiny_clip), device="cpu")
    logits = reference._clip_logits(adapter, drawn_picture(256))
    assert logits.shape == (2,)
    assert float(logits.abs().max()) <= float(torch.exp(adapter.model.logit_scale.detach())) + 1e-4
