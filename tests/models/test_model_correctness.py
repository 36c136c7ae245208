"""Every adapter against transformers: its forward passes, and its processors where they need no torchvision.

SAM 2's and DINOv3's processors need torchvision; there, Pillow's resizing and plain arithmetic stand in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from patchword.models import load_image_text, load_mask_proposer, load_patch_encoder
from patchword.models.pixels import crop_logits, longest_side_size, normalise, pad_bottom_right, resize

FORWARD = {"rtol": 1e-4, "atol": 1e-5}  # the same pixels, float32
PIXEL = 4 / 255  # of a processor that works in whole levels (see test_pixels), in [0, 1]


def photo(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 (h, w, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def plain_normalise(image: np.ndarray, mean: list[float], std: list[float]) -> Tensor:
    scaled = (image.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]


def cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))


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

        prompts = ["a photo of a cat", "sky", "a small red boat " * 9]
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


SAM_SIZES = [(48, 64), (64, 48), (33, 50), (50, 33), (200, 120), (96, 96)]


def sam_processor(side: int = 96) -> Any:
    from transformers import SamImageProcessorPil

    return SamImageProcessorPil(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 2},
        mask_pad_size={"height": side // 2, "width": side // 2},
    )


class TestSam:
    @pytest.mark.parametrize("size", SAM_SIZES)
    def test_pixels_agree_with_the_processor(self, tiny_sam: Path, size: tuple[int, int]) -> None:
        image = photo(*size)
        expected = sam_processor()(image, return_tensors="pt")
        record = load_mask_proposer(str(tiny_sam), device="cpu").record
        resized = longest_side_size(size, target=96)
        assert resized == tuple(expected["reshaped_input_sizes"][0].tolist())
        pixels = normalise(resize(to_tensor(image), size=resized, mode="bilinear"), mean=record.mean, std=record.std)
        torch.testing.assert_close(
            pad_bottom_right(pixels, size=(96, 96)), expected["pixel_values"], rtol=0, atol=PIXEL / min(record.std)
        )

    @pytest.mark.parametrize("size", SAM_SIZES)
    def test_embedding_and_masks_agree_with_the_forward_pass(self, tiny_sam: Path, size: tuple[int, int]) -> None:
        """The same pixels and the same points through SamModel as a whole: logits of the valid part and IoU."""
        from transformers import SamModel

        image = photo(*size)
        proposer: Any = load_mask_proposer(str(tiny_sam), device="cpu")
        embedding = proposer.embed(to_tensor(image))
        points = torch.tensor([[[3.0, 5.0], [20.0, 30.0]], [[size[1] - 1.0, size[0] - 1.0], [0.0, 0.0]]])
        proposals = proposer.masks_at(embedding, points)

        rows, columns = longest_side_size(size, target=96)
        small = resize(to_tensor(image), size=(rows, columns), mode="bilinear")
        pixels = torch.zeros(1, 3, 96, 96)
        pixels[..., :rows, :columns] = plain_normalise(
            small[0].permute(1, 2, 0).numpy() * 255, tiny.IMAGENET_MEAN, tiny.IMAGENET_STD
        )
        scaled = points * torch.tensor([columns / size[1], rows / size[0]])
        with torch.no_grad():
            model = SamModel.from_pretrained(tiny_sam).eval()
            output = model(pixel_values=pixels, input_points=scaled[None], multimask_output=True)
            features = model.get_image_embeddings(pixels)
        torch.testing.assert_close(embedding.features[0], features, **FORWARD)
        torch.testing.assert_close(proposals.predicted_iou, output.iou_scores[0], rtol=1e-3, atol=1e-4)
        expected = crop_logits(output.pred_masks[0], valid=(rows / 2, columns / 2))
        torch.testing.assert_close(proposals.logits, expected, rtol=1e-3, atol=1e-3)

    def test_points_agree_with_the_processor(self) -> None:
        from transformers import SamProcessor

        from patchword.models.pixels import map_points

        expected = SamProcessor(sam_processor())(
            photo(33, 50), input_points=[[[12.0, 30.0], [49.0, 0.0]]], return_tensors="pt"
        )["input_points"]
        got = map_points(torch.tensor([[[12.0, 30.0], [49.0, 0.0]]]), image_size=(33, 50), input_size=(63, 96))
        torch.testing.assert_close(got, expected[0].float(), rtol=1e-6, atol=1e-5)

    @pytest.mark.parametrize("size", [(480, 640), (333, 500), (500, 375), (1200, 900), (100, 1000), (1024, 1024)])
    def test_upsampled_masks_agree_with_transformers_post_processing(self, size: tuple[int, int]) -> None:
        """Smooth logits at SAM's own resolution: both masks must agree on 99.9 % of pixels, also for fractional sizes.

        Beyond the valid part lies another field, as in a real model: what the padding says must not count. transformers
        lets it bleed over the last half cell, which is where the two differ.
        """
        from patchword.models.protocols import MaskProposals

        rows, columns = longest_side_size(size, target=1024)
        generator = torch.Generator().manual_seed(size[0])
        coarse = torch.randn(1, 3, 12, 12, generator=generator)
        logits = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")
        expected = sam_processor(1024).post_process_masks(
            [logits], [size], [(rows, columns)], pad_size={"height": 1024, "width": 1024}
        )[0]
        cropped = crop_logits(logits, valid=(rows / 4, columns / 4))
        proposals = MaskProposals(cropped, torch.zeros(1, 3), size)
        assert (proposals.upsample(cropped[0]) == expected[0]).float().mean() > 0.999


class TestSam2:
    @pytest.mark.parametrize("fixture", ["tiny_sam2", "tiny_sam2_video"])
    @pytest.mark.parametrize("size", [(48, 64), (33, 50), (200, 120)])
    def test_embedding_and_masks_agree_with_the_forward_pass(
        self, fixture: str, size: tuple[int, int], request: pytest.FixtureRequest
    ) -> None:
        """The same pixels and points through Sam2Model as a whole, also from a video model's checkpoint."""
        from transformers import Sam2Model

        folder = request.getfixturevalue(fixture)
        image = photo(*size)
        proposer: Any = load_mask_proposer(str(folder), device="cpu")
        embedding = proposer.embed(to_tensor(image))
        points = torch.tensor([[[3.0, 5.0], [20.0, 30.0]], [[size[1] - 1.0, size[0] - 1.0], [0.0, 0.0]]])
        proposals = proposer.masks_at(embedding, points)

        small = resize(to_tensor(image), size=(128, 128), mode="bilinear")
        pixels = plain_normalise(small[0].permute(1, 2, 0).numpy() * 255, tiny.IMAGENET_MEAN, tiny.IMAGENET_STD)
        scaled = points * torch.tensor([128 / size[1], 128 / size[0]])
        with torch.no_grad():
            model = Sam2Model.from_pretrained(folder).eval()
            output = model(pixel_values=pixels, input_points=scaled[None], multimask_output=True)
            features = model.get_image_embeddings(pixels)
        for got, expected in zip(embedding.features, reversed(features), strict=True):
            torch.testing.assert_close(got, expected, **FORWARD)
        torch.testing.assert_close(proposals.logits, output.pred_masks[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(proposals.predicted_iou, output.iou_scores[0], rtol=1e-3, atol=1e-4)
        # transformers' own post-processing: plain bilinear to the size of the photograph
        full = torch.nn.functional.interpolate(output.pred_masks[0][:, 0][None], size, mode="bilinear")[0] > 0
        assert (proposals.upsample(proposals.logits[:, 0]) == full).float().mean() > 0.999

    def test_pixels_agree_with_pillow(self, tiny_sam2: Path) -> None:
        image = photo(48, 80)
        small = np.asarray(Image.fromarray(image).resize((128, 128), Image.BILINEAR))
        record = load_mask_proposer(str(tiny_sam2), device="cpu").record
        torch.testing.assert_close(
            normalise(resize(to_tensor(image), size=(128, 128), mode="bilinear"), mean=record.mean, std=record.std),
            plain_normalise(small, tiny.IMAGENET_MEAN, tiny.IMAGENET_STD),
            rtol=0,
            atol=1.01 / 255 / min(record.std),
        )


@pytest.mark.parametrize(
    ("make", "sizes"), [("make_sam", (64, 96, 160, 192)), ("make_sam2", (64, 128, 256))], ids=["sam", "sam2"]
)
def test_every_number_comes_from_the_config(make: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    """Embedding, logits and masks have the sizes that follow from the config: nothing assumes 1024 and 256."""
    for side in sizes:
        folder = getattr(tiny, make)(tmp_path / str(side), image_size=side)
        proposer = load_mask_proposer(str(folder), device="cpu")
        assert proposer.record.input_size == side
        embedding = proposer.embed(to_tensor(photo(40, 60)))
        proposals = proposer.masks_at(embedding, torch.tensor([[[30.0, 20.0]]]))
        assert proposals.upsample(proposals.best()[0]).shape == (1, 40, 60)
        longest = max(proposals.logits.shape[-2:])
        assert longest == side // (2 if make == "make_sam" else 4)  # patch 8 and cell 16, each upscaled by 4


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
    load = load_mask_proposer if fixture == "tiny_sam" else load_image_text
    assert load(str(folder), device="cpu").record.mean == tuple(mean)
