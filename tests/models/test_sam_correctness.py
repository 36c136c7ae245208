"""SAM and SAM 2 against transformers: forward passes, points, and masks after its post-processing.

SAM 2's processor needs torchvision; there, Pillow's resizing and plain arithmetic stand in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from model_pictures import FORWARD, PIXEL, photo, plain_normalise, to_tensor
from PIL import Image

from patchword.models.loading import load_mask_generator
from patchword.models.pixels import crop_logits, longest_side_size, normalise, pad_bottom_right, resize

SAM_SIZES = [(48, 64), (64, 48), (33, 50), (50, 33), (200, 120), (96, 96)]


def sam_processor(side: int = 96) -> Any:
    from transformers import SamImageProcessorPil

    return SamImageProcessorPil(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 2},
        mask_pad_size={"height": side // 2, "width": side // 2},
    )


@pytest.mark.parametrize("size", [(48, 64), (33, 50), (200, 120)])
@pytest.mark.parametrize(
    ("points", "labels", "box"),
    [
        ([(3.0, 5.0)], [True], None),
        ([(3.0, 5.0), (20.0, 30.0), (0.0, 0.0)], [True, False, True], None),
        ([], [], (2.0, 3.0, 30.0, 25.0)),
        ([(9.0, 8.0)], [False], (2.0, 3.0, 30.0, 25.0)),
    ],
)
def test_clicks_and_boxes_agree_with_the_forward_pass(
    tiny_sam: Path, size: tuple[int, int], points: list[Any], labels: list[bool], box: Any
) -> None:
    """The same prompt through SamModel as a whole, enlarged as Segment Anything does."""
    from transformers import SamModel

    image = photo(*size)
    generator: Any = load_mask_generator(str(tiny_sam), device="cpu")
    (embedding,) = generator.embed([to_tensor(image)])
    mask, sure = generator.mask_at(embedding, points, labels=labels, box=box)

    rows, columns = longest_side_size(size, target=96)
    small = resize(to_tensor(image), size=(rows, columns), mode="bilinear")
    record = generator.record
    pixels = pad_bottom_right(normalise(small, mean=record.mean, std=record.std), size=(96, 96))
    scale = torch.tensor([columns / size[1], rows / size[0]])
    with torch.no_grad():
        output = SamModel.from_pretrained(tiny_sam)(
            pixel_values=pixels,
            input_points=(torch.tensor(points) * scale)[None, None] if points else None,
            input_labels=torch.tensor(labels).int()[None, None] if points else None,
            input_boxes=None if box is None else (torch.tensor(box) * scale.repeat(2))[None, None],
            multimask_output=len(points) + (box is not None) == 1,
        )
    best = int(output.iou_scores[0, 0].argmax())
    low = output.pred_masks[0, 0, best][None, None]
    whole = torch.nn.functional.interpolate(low, (96, 96), mode="bilinear", align_corners=False)
    expected = torch.nn.functional.interpolate(whole[..., :rows, :columns], size, mode="bilinear", align_corners=False)
    assert sure == pytest.approx(float(output.iou_scores[0, 0, best]), abs=1e-4)
    clear = expected[0, 0].abs() > 1e-4
    np.testing.assert_array_equal(mask[clear], (expected[0, 0] > 0)[clear])


def test_a_click_on_sam_2_is_its_surest_mask(tiny_sam2: Path) -> None:
    generator: Any = load_mask_generator(str(tiny_sam2), device="cpu")
    (embedding,) = generator.embed([to_tensor(photo(48, 64))])
    (proposals,) = generator.masks_at([embedding], [torch.tensor([[[3.0, 5.0]]])])
    logits, sure = proposals.best()
    mask, iou = generator.mask_at(embedding, [(3.0, 5.0)], labels=[True])
    np.testing.assert_array_equal(mask, proposals.upsample(logits)[0].numpy())
    assert iou == pytest.approx(float(sure[0]), abs=1e-5)
    outlined, _ = generator.mask_at(embedding, [(3.0, 5.0)], labels=[False], box=(2.0, 3.0, 30.0, 25.0))
    assert outlined.shape == (48, 64)


class TestSam:
    @pytest.mark.parametrize("size", SAM_SIZES)
    def test_pixels_agree_with_the_processor(self, tiny_sam: Path, size: tuple[int, int]) -> None:
        image = photo(*size)
        expected = sam_processor()(image, return_tensors="pt")
        record = load_mask_generator(str(tiny_sam), device="cpu").record
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
        proposer: Any = load_mask_generator(str(tiny_sam), device="cpu")
        (embedding,) = proposer.embed([to_tensor(image)])
        points = torch.tensor([[[3.0, 5.0], [20.0, 30.0]], [[size[1] - 1.0, size[0] - 1.0], [0.0, 0.0]]])
        (proposals,) = proposer.masks_at([embedding], [points])

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
        proposer: Any = load_mask_generator(str(folder), device="cpu")
        (embedding,) = proposer.embed([to_tensor(image)])
        points = torch.tensor([[[3.0, 5.0], [20.0, 30.0]], [[size[1] - 1.0, size[0] - 1.0], [0.0, 0.0]]])
        (proposals,) = proposer.masks_at([embedding], [points])

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
        record = load_mask_generator(str(tiny_sam2), device="cpu").record
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
        proposer = load_mask_generator(str(folder), device="cpu")
        assert proposer.record.input_size == side
        (embedding,) = proposer.embed([to_tensor(photo(40, 60))])
        (proposals,) = proposer.masks_at([embedding], [torch.tensor([[[30.0, 20.0]]])])
        assert proposals.upsample(proposals.best()[0]).shape == (1, 40, 60)
        longest = max(proposals.logits.shape[-2:])
        assert longest == side // (2 if make == "make_sam" else 4)  # patch 8 and cell 16, each upscaled by 4
