"""One contract for every family and every dense variant: saved to disk, loaded back, held to the protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from fake_device import DEVICE, fake_device
from patchword.errors import PatchwordError
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32, another batch size sums in another order


@dataclass(frozen=True)
class Case:
    """A checkpoint fixture, how to load it, and the sizes that its config was made with."""

    fixture: str
    load: Callable[..., Any]
    patch_size: int
    dim: int
    input_size: int
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        role = ["patches"] if self.load is load_patch_encoder else []
        return "-".join([self.fixture, *role, *self.options.values()])

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Sides in pixels of an image of so many patches."""
        return rows * self.patch_size, columns * self.patch_size


IMAGE_TEXT = [
    *(
        Case("tiny_clip", load_image_text, 8, 24, 32, {"dense": d})
        for d in ("value", "maskclip", "sclip", "clearclip", "naclip")
    ),
    Case("tiny_siglip", load_image_text, 8, 32, 32),
    Case("tiny_open_clip", load_image_text, 8, 20, 32),
]
PATCH = [
    Case("tiny_dinov2", load_patch_encoder, 8, 32, 32),
    Case("tiny_dinov2_registers", load_patch_encoder, 8, 32, 32),
    Case("tiny_dinov3", load_patch_encoder, 8, 32, 32),
    Case("tiny_dinov3_convnext", load_patch_encoder, 32, 32, 64),
    Case("tiny_mae", load_patch_encoder, 8, 32, 32),
    Case("tiny_vit", load_patch_encoder, 8, 32, 32),
    Case("tiny_clip", load_patch_encoder, 8, 32, 32),  # in their second role
    Case("tiny_siglip", load_patch_encoder, 8, 32, 32),
    Case("tiny_sam", load_patch_encoder, 8, 16, 96),
    Case("tiny_sam2", load_patch_encoder, 16, 32, 128),
    Case("tiny_sam2_video", load_patch_encoder, 16, 32, 128),
    Case("tiny_open_clip", load_patch_encoder, 8, 32, 32),
    Case("tiny_timm", load_patch_encoder, 8, 24, 32),
]
MASK = [
    Case("tiny_sam", load_mask_generator, 8, 16, 96),
    Case("tiny_sam2", load_mask_generator, 16, 32, 128),
    Case("tiny_sam2_video", load_mask_generator, 16, 32, 128),
]
WHITE_POINT = [[[3.0, 4.0]]]


LOADED: dict[tuple[str, str, str], Any] = {}  # models are frozen, so tests may share them


def load(case: Case, request: pytest.FixtureRequest, *, dtype: str = "auto") -> Any:
    key = (str(case), str(request.getfixturevalue(case.fixture)), dtype)
    if key not in LOADED:
        LOADED[key] = load_afresh(case, request, dtype=dtype)
    return LOADED[key]


def load_afresh(case: Case, request: pytest.FixtureRequest, *, dtype: str = "auto") -> Any:
    return case.load(str(request.getfixturevalue(case.fixture)), device="cpu", dtype=dtype, **case.options)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def embed(model: Any, image: Tensor) -> Any:
    (embedding,) = model.embed([image])
    return embedding


def masks_at(model: Any, embedding: Any, points: Tensor) -> Any:
    (proposals,) = model.masks_at([embedding], [points])
    return proposals


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Everything that an adapter says of images, of whichever kind it is."""
    if isinstance(model, MaskGenerator):
        embeddings = model.embed(images.split(1) if images.ndim == 4 else [images])
        proposals = model.masks_at(embeddings[:1], [torch.tensor(WHITE_POINT)])[0]
        levels = [level for embedding in embeddings for level in embedding.features]
        return [*levels, proposals.logits, proposals.predicted_iou]
    if isinstance(model, ImageTextEncoder):
        return [model.encode_images(images), model.encode_patches(images), model.encode_text(["a cat", "a red boat"])]
    return [model(images)]


@pytest.mark.parametrize("case", [*IMAGE_TEXT, *PATCH, *MASK], ids=str)
class TestEveryModel:
    def test_record_states_the_checkpoint(self, case: Case, request: pytest.FixtureRequest) -> None:
        record = load(case, request).record
        assert (record.patch_size, record.dim, record.input_size) == (case.patch_size, case.dim, case.input_size)
        assert record.name == str(request.getfixturevalue(case.fixture))
        assert record.revision is None
        assert len(record.fingerprint) == 64
        assert all(0 < value < 1 for value in (*record.mean, *record.std))

    def test_keeps_its_protocol(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        expected = {load_image_text: ImageTextEncoder, load_patch_encoder: PatchEncoder}.get(case.load, MaskGenerator)
        assert isinstance(model, expected)
        assert model.device == torch.device("cpu")

    def test_is_frozen_and_in_evaluation_mode(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request).model
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())

    def test_gives_the_same_twice_and_after_loading_again(self, case: Case, request: pytest.FixtureRequest) -> None:
        images = pictures(2, 3, *case.size(3, 5))
        model = load(case, request)
        again = load_afresh(case, request)
        first, second, reloaded = outputs(model, images), outputs(model, images), outputs(again, images)
        for one, two, three in zip(first, second, reloaded, strict=True):
            assert torch.equal(one, two)
            torch.testing.assert_close(one, three, **TOLERANCE)  # memory may be aligned otherwise

    def test_outputs_are_finite_float32_without_gradient(self, case: Case, request: pytest.FixtureRequest) -> None:
        for output in outputs(load(case, request), pictures(2, 3, *case.size(3, 5))):
            assert output.dtype == torch.float32
            assert output.isfinite().all()
            assert not output.requires_grad
            assert not output.is_inference()  # or a trainer could not use it as an input

    def test_gives_the_same_on_a_device_that_has_less(self, case: Case, request: pytest.FixtureRequest) -> None:
        images = pictures(2, 3, *case.size(3, 5))
        with fake_device():
            model = case.load(str(request.getfixturevalue(case.fixture)), device="mps", **case.options)
            assert model.device == DEVICE
            there = outputs(model, images)
            assert all(output.device == DEVICE for output in there)
            found = [output.cpu() for output in there]
        for one, other in zip(found, outputs(load(case, request), images), strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)

    def test_runs_in_bfloat16(self, case: Case, request: pytest.FixtureRequest) -> None:
        images = pictures(1, 3, *case.size(4, 4))
        reduced, whole = load(case, request, dtype="bfloat16"), load(case, request)
        halves, fulls = outputs(reduced, images), outputs(whole, images)
        if isinstance(whole, ImageTextEncoder):  # prototypes are made of text, which no type of the images may change
            assert torch.equal(halves.pop(), fulls.pop())
        for half, full in zip(halves, fulls, strict=True):
            assert half.dtype == torch.float32
            similarity = torch.nn.functional.cosine_similarity(half.flatten(), full.flatten(), dim=0)
            assert similarity > 0.98  # 8 bits of mantissa
            assert not torch.equal(half, full)  # or nothing ran in bfloat16

    def test_accepts_other_float_types(self, case: Case, request: pytest.FixtureRequest) -> None:
        model, images = load(case, request), pictures(1, 3, *case.size(3, 5))
        for got, expected in zip(outputs(model, images.double()), outputs(model, images), strict=True):
            torch.testing.assert_close(got, expected, **TOLERANCE)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.rand(3, 32, 32), r"images must have shape .*, not \(3, 32, 32\)"),
            (torch.rand(1, 4, 32, 32), r"images must have shape .*, not \(1, 4, 32, 32\)"),
            (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "not torch.uint8"),
            (torch.rand(1, 3, 0, 32), "image sides are 0 x 32"),
        ],
        ids=["no batch", "four channels", "integers", "empty"],
    )
    def test_refuses_what_is_no_image(
        self, case: Case, request: pytest.FixtureRequest, images: Tensor, message: str
    ) -> None:
        with pytest.raises(PatchwordError, match=message):
            outputs(load(case, request), images)


@pytest.mark.parametrize("case", IMAGE_TEXT, ids=str)
class TestImageText:
    @pytest.mark.parametrize("size", [(32, 32), (50, 21), (1, 1), (200, 9)])
    def test_images_of_any_size(self, case: Case, request: pytest.FixtureRequest, size: tuple[int, int]) -> None:
        vectors = load(case, request).encode_images(pictures(2, 3, *size))
        assert vectors.shape == (2, case.dim)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))

    @pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 8), (64, 16)])
    def test_patches_of_any_grid(self, case: Case, request: pytest.FixtureRequest, size: tuple[int, int]) -> None:
        patches = load(case, request).encode_patches(pictures(2, 3, *size))
        assert patches.shape == (2, case.dim, size[0] // 8, size[1] // 8)
        torch.testing.assert_close(patches.norm(dim=1), torch.ones(2, size[0] // 8, size[1] // 8))

    @pytest.mark.parametrize("size", [None, (24, 40)])
    def test_both_are_what_each_is_alone(
        self, case: Case, request: pytest.FixtureRequest, size: tuple[int, int] | None
    ) -> None:
        """To the last bit, whether in one pass (at the model's own size) or in two."""
        model = load(case, request)
        images = pictures(2, 3, *(size or (case.input_size, case.input_size)))
        tokens, patches = model.encode_both(images)
        assert torch.equal(tokens, model.encode_images(images))
        assert torch.equal(patches, model.encode_patches(images))

    def test_batch_equals_one_by_one(self, case: Case, request: pytest.FixtureRequest) -> None:
        model, images = load(case, request), pictures(3, 3, 24, 40)
        singles = [image[None] for image in images]
        batch, alone = model.encode_images(images), torch.cat([model.encode_images(single) for single in singles])
        torch.testing.assert_close(batch, alone, **TOLERANCE)
        batch, alone = model.encode_patches(images), torch.cat([model.encode_patches(single) for single in singles])
        torch.testing.assert_close(batch, alone, **TOLERANCE)

    def test_patches_lie_in_reading_order(self, case: Case, request: pytest.FixtureRequest) -> None:
        images = torch.full((1, 3, 24, 40), 0.5)
        images[..., 8:16, 24:32] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
        model = load(case, request)
        change = (model.encode_patches(images) - model.encode_patches(torch.full((1, 3, 24, 40), 0.5))).norm(dim=1)[0]
        assert divmod(int(change.argmax()), 5) == (1, 3)

    @pytest.mark.parametrize("size", [(33, 32), (32, 4), (7, 8)])
    def test_patches_refuse_sides_that_are_no_multiple(
        self, case: Case, request: pytest.FixtureRequest, size: tuple[int, int]
    ) -> None:
        with pytest.raises(PatchwordError, match="must be positive multiples of 8"):
            load(case, request).encode_patches(pictures(1, 3, *size))

    def test_text_of_any_length_and_alphabet(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        prompts = ["a cat", "", "dog " * 500, "Größe 猫 🐈", "a cat"]
        vectors = model.encode_text(prompts)
        assert vectors.shape == (5, case.dim)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(vectors[0], vectors[4], **TOLERANCE)
        assert (vectors[0] - vectors[2]).norm() > 1e-3

    def test_text_batch_equals_one_by_one(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        prompts = ["a cat", "a photo of a small red boat", "sky"]  # of several lengths: padding must not matter
        alone = torch.cat([model.encode_text([prompt]) for prompt in prompts])
        torch.testing.assert_close(model.encode_text(prompts), alone, **TOLERANCE)

    def test_text_of_more_than_one_batch(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        prompts = [f"cat {number}" for number in range(300)]
        vectors = model.encode_text(prompts)
        torch.testing.assert_close(vectors[[0, 299]], model.encode_text([prompts[0], prompts[299]]), **TOLERANCE)

    def test_no_text_gives_no_vectors(self, case: Case, request: pytest.FixtureRequest) -> None:
        assert load(case, request).encode_text([]).shape == (0, case.dim)

    @pytest.mark.parametrize("prompts", ["a cat", ["a cat", 3]])
    def test_text_refuses_what_is_no_list_of_strings(
        self, case: Case, request: pytest.FixtureRequest, prompts: Any
    ) -> None:
        with pytest.raises(PatchwordError, match=r"prompts? .*must be a"):
            load(case, request).encode_text(prompts)


@pytest.mark.parametrize("case", PATCH, ids=str)
class TestPatchEncoder:
    @pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 1), (8, 2), (2, 13), (14, 13)])
    def test_images_of_any_grid(self, case: Case, request: pytest.FixtureRequest, grid: tuple[int, int]) -> None:
        features = load(case, request)(pictures(2, 3, *case.size(*grid)))
        assert features.shape == (2, case.dim, *grid)
        assert features.isfinite().all()

    def test_batch_equals_one_by_one(self, case: Case, request: pytest.FixtureRequest) -> None:
        model, images = load(case, request), pictures(3, 3, *case.size(3, 5))
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, **TOLERANCE)

    def test_features_do_not_depend_on_what_came_before(self, case: Case, request: pytest.FixtureRequest) -> None:
        """No state: another size or another picture in between, and random numbers drawn, change nothing."""
        model, images = load(case, request), pictures(1, 3, *case.size(3, 5))
        weights = {name: value.clone() for name, value in model.model.state_dict().items()}
        before = model(images)
        random = torch.random.get_rng_state()
        model(pictures(2, 3, *case.size(5, 2), seed=1))
        assert torch.equal(torch.random.get_rng_state(), random)
        torch.manual_seed(7)
        assert torch.equal(model(images), before)
        for name, value in model.model.state_dict().items():
            assert torch.equal(value, weights[name]), name
        assert not model.model.training

    @pytest.mark.parametrize("place", [(1, 3), (0, 0), (2, 4), (0, 4)])
    def test_patches_lie_in_reading_order(
        self, case: Case, request: pytest.FixtureRequest, place: tuple[int, int]
    ) -> None:
        grey = torch.full((1, 3, *case.size(3, 5)), 0.5)
        top, left = case.size(*place)
        images = grey.clone()
        images[..., top : top + case.patch_size, left : left + case.patch_size] = torch.tensor([1.0, 0.0, 0.0]).view(
            3, 1, 1
        )
        model = load(case, request)
        change = (model(images) - model(grey)).norm(dim=1)[0]
        row, column = divmod(int(change.argmax()), 5)
        # SAM's necks mix each cell with its neighbours, and random weights do not favour the middle
        reach = 1 if case.fixture.startswith("tiny_sam") else 0
        assert max(abs(row - place[0]), abs(column - place[1])) <= reach

    def test_refuses_sides_that_are_no_multiple(self, case: Case, request: pytest.FixtureRequest) -> None:
        patch = case.patch_size
        for size in ((patch * 4 + 1, patch * 4), (patch * 4, patch // 2), (patch - 1, patch)):
            with pytest.raises(PatchwordError, match=f"must be positive multiples of {patch}"):
                load(case, request)(pictures(1, 3, *size))


@pytest.mark.parametrize("case", MASK, ids=str)
class TestMaskGenerator:
    @pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 50), (1, 1), (300, 9), (96, 96)])
    def test_masks_have_the_size_of_the_image(
        self, case: Case, request: pytest.FixtureRequest, size: tuple[int, int]
    ) -> None:
        model = load(case, request)
        embedding = embed(model, pictures(1, 3, *size))
        assert embedding.image_size == size
        points = torch.tensor([[[0.0, 0.0], [size[1] / 2, size[0] / 2]]] * 5)
        proposals = masks_at(model, embedding, points)
        assert proposals.logits.shape[:2] == (5, 3)
        assert proposals.predicted_iou.shape == (5, 3)
        logits, scores = proposals.best()
        assert torch.equal(scores, proposals.predicted_iou.max(dim=1).values)
        masks = proposals.upsample(logits)
        assert masks.shape == (5, *size)
        assert masks.dtype == torch.bool

    def test_first_level_is_the_one_that_prompts_attend_to(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        side = case.input_size // case.patch_size
        features = embed(model, pictures(1, 3, 48, 64)).features
        assert features[0].shape == (1, case.dim, side, side)
        assert len(features) == (1 if case.fixture == "tiny_sam" else 3)

    def test_images_and_prompts_together_equal_one_by_one(self, case: Case, request: pytest.FixtureRequest) -> None:
        """70 prompts over images of three sizes take two calls of the decoder, one of them over two images."""
        model = load(case, request)
        images = [pictures(1, 3, *size, seed=size[0]) for size in ((33, 50), (64, 48), (20, 20))]
        points = [
            pictures(count, 2, 2, seed=count) * torch.tensor([image.shape[-1], image.shape[-2]])
            for count, image in zip((30, 0, 40), images, strict=True)
        ]
        together = model.masks_at(model.embed(images), points)
        for image, places, found in zip(images, points, together, strict=True):
            assert found.image_size == tuple(image.shape[-2:])
            assert len(found.logits) == len(found.predicted_iou) == len(places)
            alone = embed(model, image)
            for index in range(0, len(places), 13):
                expected = masks_at(model, alone, places[index : index + 1])
                torch.testing.assert_close(found.logits[index], expected.logits[0], **TOLERANCE)
                torch.testing.assert_close(found.predicted_iou[index], expected.predicted_iou[0], **TOLERANCE)

    def test_no_images_no_embeddings(self, case: Case, request: pytest.FixtureRequest) -> None:
        assert load(case, request).embed([]) == ()

    def test_points_matter(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        embedding = embed(model, pictures(1, 3, 33, 50))
        logits = masks_at(model, embedding, torch.tensor([[[1.0, 1.0]], [[45.0, 30.0]]])).logits
        assert (logits[0] - logits[1]).abs().max() > 0.1

    def test_no_prompts_give_no_masks(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        embedding = embed(model, pictures(1, 3, 33, 50))
        none = masks_at(model, embedding, torch.zeros(0, 1, 2))
        some = masks_at(model, embedding, torch.tensor(WHITE_POINT))
        assert none.logits.shape == (0, *some.logits.shape[1:])
        assert none.predicted_iou.shape == (0, 3)
        assert none.upsample(none.best()[0]).shape == (0, 33, 50)

    @pytest.mark.parametrize("point", [(0.0, 0.0), (50.0, 33.0), (50.0, 0.0), (0.0, 33.0)])
    def test_points_at_the_border_are_allowed(
        self, case: Case, request: pytest.FixtureRequest, point: tuple[float, float]
    ) -> None:
        model = load(case, request)
        proposals = masks_at(model, embed(model, pictures(1, 3, 33, 50)), torch.tensor([[point]]))
        assert proposals.logits.isfinite().all()

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            ([[[50.5, 4.0]]], r"point \(50\.5, 4\) is outside the image \(x in 0\.\.50, y in 0\.\.33\)"),
            ([[[5.0, 4.0], [4.0, -1.0]]], r"point \(4, -1\) is outside the image"),
            ([[[float("nan"), 4.0]]], "is outside the image"),
            ([[5.0, 4.0]], r"points have shape \(1, 2\)"),
            ([[[5.0, 4.0, 1.0]]], r"points have shape \(1, 1, 3\)"),
            ([[]], r"points have shape \(1, 0\)"),
        ],
    )
    def test_refuses_points_that_are_none(
        self, case: Case, request: pytest.FixtureRequest, points: Any, message: str
    ) -> None:
        model = load(case, request)
        with pytest.raises(PatchwordError, match=message):
            masks_at(model, embed(model, pictures(1, 3, 33, 50)), torch.tensor(points))

    def test_refuses_what_does_not_belong_together(self, case: Case, request: pytest.FixtureRequest) -> None:
        model = load(case, request)
        embeddings = model.embed([pictures(1, 3, 33, 50), pictures(1, 3, 20, 20)])
        with pytest.raises(PatchwordError, match="2 embeddings and points of 1"):
            model.masks_at(embeddings, [torch.tensor(WHITE_POINT)])
        with pytest.raises(PatchwordError, match="prompts have 1 and 2 points"):
            model.masks_at(embeddings, [torch.zeros(1, 2, 2), torch.zeros(3, 1, 2)])
        with pytest.raises(PatchwordError, match=r"must be a batch of 1, .*, not of 2"):
            model.embed([pictures(2, 3, 33, 50)])
