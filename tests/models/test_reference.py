"""`models check --reference`: our adapters against transformers on the same weights, and against published numbers."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from huggingface_hub import constants
from PIL import Image

from patchword.errors import PatchwordError
from patchword.models import published as stated
from patchword.models import reference
from patchword.models.published import PUBLISHED, Published, compare_with_published
from patchword.models.reference import Comparison, compare_with_reference, drawn_picture
from patchword.models.registry import Kind, checkpoint_of
from patchword.toytown import miniatures
from small_world import must, run

CASES: list[tuple[str, Kind, int]] = [
    ("tiny_clip", "image-text", 3),
    ("tiny_siglip", "image-text", 3),
    ("tiny_dinov2", "patch", 1),
    ("tiny_dinov2_registers", "patch", 1),
    ("tiny_dinov3", "patch", 1),
    ("tiny_dinov3_convnext", "patch", 1),
    ("tiny_vit", "patch", 1),
    ("tiny_mae", "patch", 1),
    ("tiny_sam", "mask", 3),
    ("tiny_sam2", "mask", 2),
    ("tiny_clip", "patch", 1),
    ("tiny_siglip", "patch", 1),
    ("tiny_sam", "patch", 1),
    ("tiny_sam2", "patch", 1),
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
    assert said.count("passes") == 9
    assert "CLIPModel of transformers" in said
    rows = json.loads(must(run("models", "check", "--reference", folders[1], "--device", "cpu", "--json")).out)
    assert [(row["model"], row["passes"]) for row in rows] == [(folders[1], True)]


WRONG: dict[str, dict[str, Any]] = {
    "ImageNet's numbers": {"mean": tiny.IMAGENET_MEAN, "std": tiny.IMAGENET_STD},
    "CLIP's numbers": {"mean": tiny.CLIP_MEAN, "std": tiny.CLIP_STD},
    "from -1 to 1": {"mean": [0.5] * 3, "std": [0.5] * 3},
    "bicubic": {"resample": "bicubic"},
    "bilinear": {"resample": "bilinear"},
}
_OF_DINO = ("CLIP's numbers", "from -1 to 1")


@pytest.mark.parametrize(
    ("fixture", "kind", "mistakes"),
    [
        ("tiny_clip", "image-text", ("ImageNet's numbers", "from -1 to 1", "bilinear")),
        ("tiny_siglip", "image-text", ("ImageNet's numbers", "CLIP's numbers", "bicubic")),
        ("tiny_dinov2", "patch", _OF_DINO),
        ("tiny_dinov3", "patch", _OF_DINO),
        ("tiny_sam", "mask", (*_OF_DINO, "bicubic")),
        ("tiny_sam2", "mask", _OF_DINO),
        ("tiny_clip", "patch", ("ImageNet's numbers", "from -1 to 1")),
        ("tiny_siglip", "patch", ("ImageNet's numbers", "CLIP's numbers")),
        ("tiny_sam2", "patch", _OF_DINO),
    ],
)
def test_wrong_preprocessing_fails(
    fixture: str,
    kind: Kind,
    mistakes: tuple[str, ...],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with the numbers and filters of another family, the mistakes that are made."""
    folder = request.getfixturevalue(fixture)
    load = reference.LOADERS[kind]
    for mistake in mistakes:

        def mistaken(*arguments: Any, wrong: dict[str, Any] = WRONG[mistake], **options: Any) -> Any:
            adapter = load(*arguments, **options)
            for name, value in wrong.items():
                object.__setattr__(adapter if name == "resample" else adapter.record, name, value)
            return adapter

        monkeypatch.setitem(reference.LOADERS, kind, mistaken)
        found = compare_with_reference(str(folder), kind=kind, device="cpu")
        assert not all(each.passes for each in found), mistake
    assert must(run("models", "check", "--reference", folder, "--device", "cpu"), code=1).out.count("FAILS") >= 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("fixture", "kind"), [("tiny_clip", "image-text"), ("tiny_dinov2", "patch")])
def test_half_types_are_allowed_what_they_lose(
    fixture: str, kind: Kind, dtype: str, request: pytest.FixtureRequest
) -> None:
    found = compare_with_reference(str(request.getfixturevalue(fixture)), kind=kind, device="cpu", dtype=dtype)
    exact = compare_with_reference(str(request.getfixturevalue(fixture)), kind=kind, device="cpu", dtype="float32")
    assert [each for each in found if not each.passes] == []
    assert found[-1 if kind == "patch" else 1].difference > exact[-1 if kind == "patch" else 1].difference


def test_a_difference_that_is_no_number_does_not_pass() -> None:
    assert not Comparison("x", float("nan"), 1.0, "").passes


def test_a_role_without_a_reference_is_named(tiny_sam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(reference._REFERENCES, ("sam", "patch"))
    with pytest.raises(PatchwordError, match=r"no reference for the family sam .there is one for clip, dinov2"):
        compare_with_reference(str(tiny_sam), kind="patch", device="cpu")


def test_one_picture_does_not_do_for_models_of_several(tmp_path: Path) -> None:
    (tmp_path / "car.png").write_bytes(b"")
    command = ["models", "check", "--reference", "--picture", tmp_path / "car.png"]
    said = must(run(*command, "facebook/sam-vit-base", "facebook/dinov2-base"), code=2).complaint
    assert "--picture is one picture, but these models need 2: COCO val2017, 000000039769.jpg; car.png" in said


def test_a_picture_of_the_hub_is_not_fetched_offline() -> None:
    entry = next(each for each in PUBLISHED if each.checkpoint == "facebook/sam-vit-base")
    with pytest.raises(PatchwordError, match=r"^assets/car.png of .* HF_HUB_OFFLINE is set; give the picture with"):
        stated._fetch_picture(entry)


def test_a_model_that_does_not_load_is_in_the_json_too(tmp_path: Path) -> None:
    ran = must(run("models", "check", "--reference", tmp_path, "--json"), code=1)
    (row,) = json.loads(ran.out)
    assert (row["model"], row["passes"]) == (str(tmp_path), False)
    assert "has no config.json" in row["problem"]


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
    adapter = reference.LOADERS["patch"](str(tiny_dinov2), device="cpu")
    values = stated._dino_patches(adapter, Image.open(picture))
    entry = Published(
        str(tiny_dinov2),
        "cats.png",
        "",
        "http://127.0.0.1:9/cats.png",
        "",
        "patches",
        tuple(values.tolist()),
        stated._dino_patches,
        1e-4,
        "here",
    )
    monkeypatch.setattr(stated, "PUBLISHED", (entry,))
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
    assert "patches not compared: cats.png is not fetched, because HF_HUB_OFFLINE is set; give the picture" in ran.err
    assert "passes" in ran.out


def test_a_picture_is_fetched_from_its_address(
    tiny_dinov2: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(published.parent))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, count in (("cats.png", 1), ("dogs.png", 0)):
            entry = replace(stated.PUBLISHED[0], file=f"http://127.0.0.1:{server.server_port}/{name}")
            monkeypatch.setattr(stated, "PUBLISHED", (entry,))
            found, missed = compare_with_published(str(tiny_dinov2), device="cpu")
            assert [each.passes for each in found] == [True] * count
            assert len(missed) == 1 - count
        server.shutdown()
    assert "404" in missed[0]
    assert "give the picture with --picture (cats.png)" in missed[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--picture", "x.png"], "--picture requires --reference"),
        (["--reference", "--picture", "x.png"], "is not a file"),
    ],
)
def test_a_picture_without_use_is_refused(options: list[str], said: str, tiny_dinov2: Path) -> None:
    assert said in must(run("models", "check", tiny_dinov2, *options), code=2).err


@pytest.mark.parametrize(
    ("fixture", "measure", "class_name", "prompts"),
    [
        ("tiny_clip", stated._clip_logits, "CLIPModel", ["a photo of a cat", "a photo of a dog"]),
        ("tiny_siglip", stated._siglip_logits, "SiglipModel", ["a photo of 2 cats", "a photo of 2 dogs"]),
    ],
)
def test_logits_are_those_of_transformers(
    fixture: str, measure: Any, class_name: str, prompts: list[str], request: pytest.FixtureRequest
) -> None:
    """The adapters' cosines, scaled, on a picture of CLIP's size, which is resized for SigLIP alone."""
    folder = request.getfixturevalue(fixture)
    adapter: Any = reference.LOADERS["image-text"](str(folder), device="cpu")
    seen: list[torch.Tensor] = []
    hook = adapter.model.vision_model.embeddings.patch_embedding.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    with torch.no_grad():
        logits = measure(adapter, drawn_picture(224))
    hook.remove()
    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    length = model.config.text_config.max_position_embeddings
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    mask = {} if fixture == "tiny_siglip" else {"attention_mask": tokens["attention_mask"]}
    with torch.no_grad():
        expected = model(input_ids=tokens["input_ids"], pixel_values=seen[0], **mask).logits_per_image
    torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-4)
