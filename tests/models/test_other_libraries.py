"""timm and OpenCLIP: loading by prefix, what is refused, and agreement with the libraries' own forward passes.

Both are stand-ins (`stand_ins.py`); the adapters' common behaviour is in the contract test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stand_ins
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.catalog import check_model, whereabouts
from patchword.models.hub import cached_folder, local_folder
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.models.registry import ModelName, repository, split_name

NAMES = [("timm:resnet50.a1_in1k", "timm"), ("open_clip:laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "open_clip")]


def pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))


def normalised(images: Tensor, record: Any) -> Tensor:
    return (images - torch.tensor(record.mean).view(3, 1, 1)) / torch.tensor(record.std).view(3, 1, 1)


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("timm:resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
        ("timm:someone/their_model", "someone/their_model"),
        ("open_clip:laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
        ("facebook/dinov2-small", "facebook/dinov2-small"),
    ],
)
def test_prefix_names_the_library(name: str, repo: str) -> None:
    assert repository(name)[0] == repo
    extra, rest = split_name(name)
    assert (extra.prefix + ":" if extra else "") + rest == name


@pytest.mark.parametrize(("name", "package"), NAMES)
@pytest.mark.parametrize("load", [load_patch_encoder, load_image_text])
def test_missing_package_is_one_line(
    name: str, package: str, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    if package == "timm" and load is load_image_text:
        message = f"{name} has no text encoder; use CLIP"
    else:
        message = rf"{name} needs the package {package}, which .*; install patchword\[{package}\]"
    with pytest.raises(PatchwordError, match=message) as error:
        load(name, device="cpu")
    assert "\n" not in str(error.value)


def test_package_that_does_not_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text("import torchvision_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(PatchwordError, match=r"cannot be imported \(No module named 'torchvision_that_is_not_there'\)"):
        load_patch_encoder("timm:resnet50", device="cpu")


@pytest.mark.parametrize(("name", "package"), NAMES)
def test_no_mask_generator(name: str, package: str) -> None:
    with pytest.raises(PatchwordError, match=f"{name} is not a mask generator; use SAM"):
        load_mask_generator(name, device="cpu")


@pytest.mark.usefixtures("tiny_timm", "tiny_open_clip")
@pytest.mark.parametrize(("name", "package"), NAMES)
def test_name_that_is_not_here_says_how_to_get_it(name: str, package: str) -> None:
    with pytest.raises(PatchwordError, match=f"run `patchword models fetch {name} --to FOLDER`"):
        load_patch_encoder(name, device="cpu")
    assert cached_folder(name, revision=None) is None
    assert whereabouts(ModelName.parse(name)) == "to be fetched"


def test_folder_with_prefix(tiny_timm: str) -> None:
    folder = local_folder(tiny_timm, revision=None)
    assert folder == Path(tiny_timm.removeprefix("timm:"))
    assert whereabouts(ModelName.parse(tiny_timm)).startswith("local folder")
    with pytest.raises(PatchwordError, match="no model folder timm:/no/such"):
        local_folder("timm:/no/such", revision=None)


def test_folder_with_an_at_sign(tiny_timm: str, tmp_path: Path) -> None:
    folder = stand_ins.make_timm(tmp_path / "odd@name")
    assert ModelName.parse(f"timm:{folder}") == ModelName(f"timm:{folder}")


def test_check_loads_either(tiny_timm: str, tiny_open_clip: str) -> None:
    assert (check_model(tiny_timm).kind, check_model(tiny_timm).problem) == ("patch", "")
    assert (check_model(tiny_open_clip).kind, check_model(tiny_open_clip).problem) == ("image-text", "")


class TestTimm:
    def test_record_comes_from_the_model(self, tiny_timm: str) -> None:
        record = load_patch_encoder(tiny_timm, device="cpu").record
        assert (record.mean, record.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
        assert (record.family, record.licence) == ("timm", "mit")

    def test_agrees_with_the_models_own_map(self, tiny_timm: str) -> None:
        encoder: Any = load_patch_encoder(tiny_timm, device="cpu")
        images = pictures(24, 40)
        maps = encoder.model.forward_intermediates(
            normalised(images, encoder.record), indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        assert torch.equal(encoder(images), maps[-1])

    def test_model_without_a_norm_for_maps(self, tiny_timm: str, tmp_path: Path) -> None:
        folder = stand_ins.make_timm(tmp_path, "net")
        encoder: Any = load_patch_encoder(f"timm:{folder}", device="cpu")
        images = pictures(24, 40)
        expected = encoder.model.stage(encoder.model.stem(normalised(images, encoder.record)).relu()).tanh()
        assert torch.equal(encoder(images), expected)

    def test_model_of_one_size_says_so(self, tiny_timm: str, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder: Any = load_patch_encoder(tiny_timm, device="cpu")
        monkeypatch.setattr(encoder.model, "dynamic", False)
        assert encoder(pictures(32, 32)).shape == (2, stand_ins.TIMM_DIM, 4, 4)
        with pytest.raises(PatchwordError, match=r"cannot encode images of 24 x 40 pixels: Input.*trained on 32 x 32"):
            encoder(pictures(24, 40))

    @pytest.mark.parametrize(
        ("architecture", "message"),
        [("plain", "gives no feature maps"), ("unheard", r"cannot be loaded by timm: Unknown model \(unheard\)")],
    )
    def test_model_that_cannot_serve(self, tiny_timm: str, tmp_path: Path, architecture: str, message: str) -> None:
        folder = stand_ins.make_timm(tmp_path, "plain")
        (folder / "config.json").write_text(json.dumps({"architecture": architecture}))
        with pytest.raises(PatchwordError, match=message):
            load_patch_encoder(f"timm:{folder}", device="cpu")

    def test_map_that_is_not_as_stated(self, tiny_timm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stand_ins.TimmNet, "forward_intermediates", lambda self, x, **more: [self.stem(x)])
        folder = stand_ins.make_timm(tmp_path, "net")
        with pytest.raises(PatchwordError, match=r"gives a map of shape \(1, 12, 8, 8\) where \(1, 24, 4, 4\) is due"):
            load_patch_encoder(f"timm:{folder}", device="cpu")

    def test_folder_of_another_library(self, tiny_timm: str, tiny_dinov2: Path) -> None:
        with pytest.raises(PatchwordError, match="names no architecture; give a checkpoint in timm's hub format"):
            load_patch_encoder(f"timm:{tiny_dinov2}", device="cpu")


class TestOpenClip:
    def test_text_and_images_are_the_models_own(self, tiny_open_clip: str) -> None:
        encoder: Any = load_image_text(tiny_open_clip, device="cpu")
        prompts, images = ["a cat", "sky"], pictures(32, 32)
        unit = torch.nn.functional.normalize
        text = unit(encoder.model.encode_text(stand_ins.tokenize(prompts)))
        torch.testing.assert_close(encoder.encode_text(prompts), text)
        expected = unit(encoder.model.encode_image(normalised(images, encoder.record)))
        torch.testing.assert_close(encoder.encode_images(images), expected)

    def test_patch_tokens_are_the_towers_own(self, tiny_open_clip: str) -> None:
        encoder: Any = load_patch_encoder(tiny_open_clip, device="cpu")
        images = pictures(32, 32)
        tokens = encoder.model.tokens(normalised(images, encoder.record))[:, 1:]
        expected = tokens.transpose(1, 2).reshape(2, stand_ins.OPEN_CLIP_WIDTH, 4, 4)
        torch.testing.assert_close(encoder(images), expected)

    def test_value_path_is_attention_to_oneself(self, tiny_open_clip: str) -> None:
        """An image of one patch whose class token is out of sight: the last block's attention is the value path."""
        encoder: Any = load_image_text(tiny_open_clip, device="cpu")
        tower, images = encoder.model.visual, pictures(8, 8)
        hidden = tower.conv1(normalised(images, encoder.record)).flatten(2).transpose(1, 2)
        middle = torch.nn.functional.interpolate(
            tower.positional_embedding[1:].T.reshape(1, -1, 4, 4), (1, 1), mode="bicubic"
        )
        first = (tower.class_embedding + tower.positional_embedding[0]).expand(2, 1, -1)
        hidden = tower.ln_pre(torch.cat([first, hidden + middle.flatten()], dim=1))
        for block in tower.transformer.resblocks[:-1]:
            hidden = block(hidden)
        last = tower.transformer.resblocks[-1]
        patch = last.ln_1(hidden)[:, 1:]
        values = last.attn(patch, patch, patch, need_weights=False)[0]  # one token attends to itself alone
        expected = torch.nn.functional.normalize(tower.ln_post(values) @ tower.proj, dim=-1)[:, 0]
        torch.testing.assert_close(encoder.encode_patches(images)[:, :, 0, 0], expected)

    def test_tower_of_timm_has_text_and_images_only(self, tiny_open_clip: str, tmp_path: Path) -> None:
        name = f"open_clip:{stand_ins.make_open_clip(tmp_path, timm_tower=True)}"
        encoder = load_image_text(name, device="cpu")
        assert encoder.encode_text(["a cat"]).shape == (1, stand_ins.OPEN_CLIP_DIM)
        assert encoder.encode_images(pictures(20, 50)).shape == (2, stand_ins.OPEN_CLIP_DIM)
        with pytest.raises(PatchwordError, match="image tower of class TimmModel, which gives no patches in the text"):
            encoder.encode_patches(pictures(32, 32))
        with pytest.raises(PatchwordError, match="image tower of class TimmModel, which gives no patches; use models"):
            load_patch_encoder(name, device="cpu")

    def test_one_dense_variant(self, tiny_open_clip: str) -> None:
        with pytest.raises(
            PatchwordError, match=r"dense is 'sclip', but .*not a CLIP in transformers.*only value works"
        ):
            load_image_text(tiny_open_clip, device="cpu", dense="sclip")

    @pytest.mark.parametrize("file", ["open_clip_config.json", "open_clip_model.safetensors"])
    def test_missing_file_is_named(self, tiny_open_clip: str, tmp_path: Path, file: str) -> None:
        folder = stand_ins.make_open_clip(tmp_path)
        (folder / file).unlink()
        with pytest.raises(PatchwordError, match=rf"has no {file}; give a checkpoint in OpenCLIP's hub format"):
            load_image_text(f"open_clip:{folder}", device="cpu")

    def test_damaged_config_is_one_line(self, tiny_open_clip: str, tmp_path: Path) -> None:
        folder = stand_ins.make_open_clip(tmp_path)
        (folder / "open_clip_config.json").write_text("{}")
        with pytest.raises(PatchwordError, match="cannot be loaded by open_clip: 'model_cfg'"):
            load_image_text(f"open_clip:{folder}", device="cpu")


def test_memory_that_runs_out_is_no_wrong_size(tiny_timm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or batches would not halve."""
    encoder = load_patch_encoder(tiny_timm, device="cpu")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder.model, "forward_intermediates", fail)
    with pytest.raises(torch.OutOfMemoryError):
        encoder(pictures(32, 32))
