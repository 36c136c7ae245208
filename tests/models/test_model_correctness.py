"""Encoders against transformers: its forward passes, and its processors where they need no torchvision.

DINOv3's processor needs torchvision; DINO encoders do not resize, so that plain arithmetic stands in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from model_pictures import FORWARD, PIXEL, cosine, photo, plain_normalise, to_tensor

from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.models.pixels import normalise, resize


class TestClip:
    def test_pixels_agree_with_the_processor(self, tiny_clip: Path) -> None:
        """On a square photograph, which the processor does not crop."""
        from transformers import CLIPImageProcessorPil

        image = photo(50, 50)
        expected = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)(image, return_tensors="pt")
        record = load_image_text(str(tiny_clip), device="cpu").record
        pixels = normalise(resize(to_tensor(image), size=(32, 32)), mean=record.mean, std=record.std)
        torch.testing.assert_close(pixels, expected["pixel_values"], rtol=0, atol=PIXEL / min(record.std))

    def test_images_agree_with_the_forward_pass(self, tiny_clip: Path) -> None:
        from transformers import CLIPModel

        image = photo(32, 32)
        pixels = plain_normalise(image, tiny.CLIP_MEAN, tiny.CLIP_STD)
        model = CLIPModel.from_pretrained(tiny_clip).eval()
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output)
        torch.testing.assert_close(
            load_image_text(str(tiny_clip), device="cpu").encode_images(to_tensor(image)), expected, **FORWARD
        )

    def test_images_agree_from_photograph_to_vector(self, tiny_clip: Path) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel

        image = photo(50, 50)
        processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
        with torch.no_grad():
            features = CLIPModel.from_pretrained(tiny_clip).get_image_features(**processor(image, return_tensors="pt"))
        vector = load_image_text(str(tiny_clip), device="cpu").encode_images(to_tensor(image))
        assert cosine(vector, features.pooler_output) > 0.9999

    def test_text_agrees_with_the_forward_pass(self, tiny_clip: Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        prompts = ["a photo of a cat", "sky", " ".join(["a small red boat"] * 9)]
        tokens = AutoTokenizer.from_pretrained(tiny_clip)(
            prompts, padding="max_length", truncation=True, max_length=tiny.CLIP_CONTEXT, return_tensors="pt"
        )
        model = CLIPModel.from_pretrained(tiny_clip).eval()
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output)
        torch.testing.assert_close(
            load_image_text(str(tiny_clip), device="cpu").encode_text(prompts), expected, **FORWARD
        )

    def test_truncated_text_still_ends_in_the_token_that_is_pooled(self, tiny_clip: Path) -> None:
        from transformers import AutoTokenizer

        encoder: Any = load_image_text(str(tiny_clip), device="cpu")
        tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
        assert encoder.model.config.text_config.eos_token_id == tokenizer.eos_token_id
        ids = tokenizer("dog " * 100, truncation=True, max_length=tiny.CLIP_CONTEXT)["input_ids"]
        assert len(ids) == tiny.CLIP_CONTEXT
        assert ids.index(tokenizer.eos_token_id) == tiny.CLIP_CONTEXT - 1

    @pytest.mark.parametrize("size", [(32, 32), (24, 48)])
    def test_patches_before_the_last_layer_agree_with_hidden_states(
        self, tiny_clip: Path, size: tuple[int, int]
    ) -> None:
        """The dense variants change the last layer only; its input is transformers' own, at any grid."""
        from transformers import CLIPModel

        image = photo(*size)
        model = CLIPModel.from_pretrained(tiny_clip).eval()
        with torch.no_grad():
            states = model.vision_model(
                pixel_values=plain_normalise(image, tiny.CLIP_MEAN, tiny.CLIP_STD),
                interpolate_pos_encoding=True,
                output_hidden_states=True,
            ).hidden_states
            last = model.vision_model.encoder.layers[-1]
            values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(states[-2])))
            expected = model.visual_projection(model.vision_model.post_layernorm(values))[:, 1:]
        expected = torch.nn.functional.normalize(expected, dim=-1).transpose(1, 2).view(1, 24, size[0] // 8, -1)
        got = load_image_text(str(tiny_clip), device="cpu", dense="value").encode_patches(to_tensor(image))
        torch.testing.assert_close(got, expected, **FORWARD)


class TestSiglip:
    def test_pixels_agree_with_the_processor(self, tiny_siglip: Path) -> None:
        from transformers import SiglipImageProcessorPil

        image = photo(50, 70)  # squashed by the processor, too
        processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
        expected = processor(image, return_tensors="pt")["pixel_values"]
        pixels = resize(to_tensor(image), size=(32, 32), mode="bilinear")
        torch.testing.assert_close(
            normalise(pixels, mean=(0.5,) * 3, std=(0.5,) * 3), expected, rtol=0, atol=PIXEL / 0.5
        )

    def test_images_agree_from_photograph_to_vector(self, tiny_siglip: Path) -> None:
        from transformers import SiglipImageProcessorPil, SiglipModel

        image = photo(50, 70)
        processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
        model = SiglipModel.from_pretrained(tiny_siglip).eval()
        with torch.no_grad():
            features = model.get_image_features(**processor(image, return_tensors="pt")).pooler_output
        vector = load_image_text(str(tiny_siglip), device="cpu").encode_images(to_tensor(image))
        assert cosine(vector, features) > 0.9999

    def test_images_agree_with_the_forward_pass(self, tiny_siglip: Path) -> None:
        from transformers import SiglipModel

        image = photo(32, 32)
        pixels = plain_normalise(image, [0.5] * 3, [0.5] * 3)
        with torch.no_grad():
            features = SiglipModel.from_pretrained(tiny_siglip).eval().get_image_features(pixel_values=pixels)
        torch.testing.assert_close(
            load_image_text(str(tiny_siglip), device="cpu").encode_images(to_tensor(image)),
            torch.nn.functional.normalize(features.pooler_output),
            **FORWARD,
        )

    def test_text_agrees_with_the_forward_pass(self, tiny_siglip: Path) -> None:
        from transformers import AutoTokenizer, SiglipModel

        prompts = ["a photo of a cat", "sky"]
        tokens = AutoTokenizer.from_pretrained(tiny_siglip)(
            prompts, padding="max_length", truncation=True, max_length=tiny.SIGLIP_CONTEXT, return_tensors="pt"
        )
        with torch.no_grad():
            features = SiglipModel.from_pretrained(tiny_siglip).eval().get_text_features(input_ids=tokens["input_ids"])
        torch.testing.assert_close(
            load_image_text(str(tiny_siglip), device="cpu").encode_text(prompts),
            torch.nn.functional.normalize(features.pooler_output),
            **FORWARD,
        )

    def test_text_is_lowercased(self, tiny_siglip: Path) -> None:
        encoder = load_image_text(str(tiny_siglip), device="cpu")
        assert torch.equal(encoder.encode_text(["A Cat"]), encoder.encode_text(["a cat"]))

    def test_patch_of_an_image_of_one_patch_is_what_the_head_gives(self, tiny_siglip: Path) -> None:
        """With a single patch the head can attend to nothing else: the value path must equal the head itself."""
        from transformers import SiglipModel

        image = photo(8, 8)
        with torch.no_grad():
            features = SiglipModel.from_pretrained(tiny_siglip).get_image_features(
                pixel_values=plain_normalise(image, [0.5] * 3, [0.5] * 3), interpolate_pos_encoding=True
            )
        expected = torch.nn.functional.normalize(features.pooler_output)
        got = load_image_text(str(tiny_siglip), device="cpu").encode_patches(to_tensor(image))
        torch.testing.assert_close(got[..., 0, 0], expected, **FORWARD)


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
@pytest.mark.parametrize(
    ("fixture", "class_name", "prefix"),
    [
        ("tiny_dinov2", "Dinov2Model", 1),
        ("tiny_dinov2_registers", "Dinov2WithRegistersModel", 4),
        ("tiny_dinov3", "DINOv3ViTModel", 3),
    ],
)
def test_dino_agrees_with_the_forward_pass(
    fixture: str, class_name: str, prefix: int, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    import transformers

    folder = request.getfixturevalue(fixture)
    image = photo(*size)
    model = getattr(transformers, class_name).from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(plain_normalise(image, tiny.IMAGENET_MEAN, tiny.IMAGENET_STD)).last_hidden_state
    got = load_patch_encoder(str(folder), device="cpu")(to_tensor(image))
    for row in range(size[0] // 8):
        for column in range(size[1] // 8):
            token = hidden[0, prefix + row * (size[1] // 8) + column]
            torch.testing.assert_close(got[0, :, row, column], token, **FORWARD)


def test_dinov2_pixels_agree_with_the_processor(tiny_dinov2: Path) -> None:
    """DINOv2's processor resizes and crops; at its own size both leave the photograph whole, and normalise alike."""
    from transformers import BitImageProcessorPil

    image = photo(32, 32)
    processor = BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=32, image_mean=tiny.IMAGENET_MEAN, image_std=tiny.IMAGENET_STD
    )
    record = load_patch_encoder(str(tiny_dinov2), device="cpu").record
    torch.testing.assert_close(
        normalise(to_tensor(image), mean=record.mean, std=record.std),
        processor(image, return_tensors="pt")["pixel_values"],
        rtol=0,
        atol=1e-5,
    )


def test_mean_and_std_of_the_checkpoint_count(tiny_dinov2: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(tiny_dinov2, folder)
    tiny.write_preprocessor(folder, mean=[0.1, 0.2, 0.3], std=[0.9, 0.8, 0.7], resample=3)
    encoder = load_patch_encoder(str(folder), device="cpu")
    assert (encoder.record.mean, encoder.record.std) == ((0.1, 0.2, 0.3), (0.9, 0.8, 0.7))
    images = to_tensor(photo(24, 40))
    assert (encoder(images) - load_patch_encoder(str(tiny_dinov2), device="cpu")(images)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("fixture", "mean"), [("tiny_clip", tiny.CLIP_MEAN), ("tiny_siglip", [0.5] * 3), ("tiny_sam", tiny.IMAGENET_MEAN)]
)
def test_family_values_stand_in_where_the_checkpoint_states_none(
    fixture: str, mean: list[float], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(request.getfixturevalue(fixture), folder)
    (folder / "preprocessor_config.json").unlink()
    load = load_mask_generator if fixture == "tiny_sam" else load_image_text
    assert load(str(folder), device="cpu").record.mean == tuple(mean)
