"""Settings through the whole segmenter: windows, rules for background, several images at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourPatches, ColourText, draw
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.evaluation.masks import MaskRule
from patchword.models.pixels import resize
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.segmenter import Segmenter
from patchword.segmentation.sliding_window import plan_windows

PATCH = ColourPatches().record.patch_size


def watched(segmenter: Segmenter, seen: list[tuple[int, ...]], *, most: int = 10**6, oom: bool = True) -> Segmenter:
    """The same segmenter, telling the shapes of its batches, with memory for so many images at once."""

    class Watching(ColourPatches):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            if len(images) > most:
                raise MemoryError if oom else PatchwordError("broken")
            return super().__call__(images)

    return Segmenter(encoder=Watching(), module=segmenter.module, text=segmenter.text, config=segmenter.config)


def same(one: SegmentationResult, other: SegmentationResult) -> None:
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-4)
    assert (one.label_map.indices == other.label_map.indices).mean() > 0.999
    np.testing.assert_array_equal(one.image, other.image)
    assert one.label_map.names == other.label_map.names


def pictures() -> list[NDArray[np.uint8]]:
    sizes = [(20, 30), (20, 30), (48, 16), (20, 30), (21, 30), (48, 16)]
    return [draw(number, height=height, width=width)[0] for number, (height, width) in enumerate(sizes)]


class TestBatch:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"image_size": 32},
            {"window": 2 * PATCH, "stride": PATCH},
            {"window": 2 * PATCH, "join": "logits", "shorter_side": 23, "softmax_over": "words"},
        ],
    )
    def test_together_is_as_one_by_one(self, segmenter: Segmenter, settings: dict[str, Any]) -> None:
        together = segmenter.segment_batch(pictures(), classes="red, green; lime, blue", settings=settings)
        for picture, one in zip(pictures(), together, strict=True):
            assert isinstance(one, SegmentationResult)
            same(one, segmenter.segment(picture, classes="red, green; lime, blue", settings=settings))

    def test_images_of_one_seen_size_share_batches(self, segmenter: Segmenter) -> None:
        seen: list[tuple[int, ...]] = []
        watched(segmenter, seen).segment_batch(pictures(), classes="red", settings={"batch": 3})
        assert sorted(shape[0] for shape in seen) == [1, 2, 3]
        assert len({shape[2:] for shape in seen}) == 2  # 20 x 30 and 21 x 30 are seen at one size

    def test_windows_of_several_images_share_batches(self, segmenter: Segmenter) -> None:
        seen: list[tuple[int, ...]] = []
        settings = {"window": 2 * PATCH, "stride": 2 * PATCH, "shorter_side": 2 * PATCH, "batch": 4}
        images = [draw(number, height=16, width=32)[0] for number in range(3)]
        watched(segmenter, seen).segment_batch(images, classes="red", settings=settings)
        assert [shape[0] for shape in seen] == [4, 2]

    def test_out_of_memory_halves_the_batch(self, segmenter: Segmenter) -> None:
        seen: list[tuple[int, ...]] = []
        images = [draw(number)[0] for number in range(7)]
        small = watched(segmenter, seen, most=2)
        found = small.segment_batch(images, classes=list(COLOURS))
        assert [shape[0] for shape in seen] == [7, 4, 2, 2, 2, 1]
        for picture, one in zip(images, found, strict=True):
            assert isinstance(one, SegmentationResult)
            same(one, segmenter.segment(picture, classes=list(COLOURS)))

    def test_too_little_memory_for_one_is_an_error_in_one_line(self, segmenter: Segmenter) -> None:
        with pytest.raises(PatchwordError, match=r"not enough memory for one of windows of 16 x 16 pixels"):
            watched(segmenter, [], most=0).segment(draw(0)[0], classes="red")

    def test_what_fails_does_not_fail_the_others(self, segmenter: Segmenter, tmp_path: Path) -> None:
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"")
        Image.fromarray(draw(3)[0]).save(tmp_path / "good.png")
        found = segmenter.segment_batch([broken, tmp_path / "good.png", "nowhere.png"], classes=list(COLOURS))
        assert [type(one) for one in found] == [PatchwordError, SegmentationResult, PatchwordError]
        assert "broken.jpg" in str(found[0])
        assert "nowhere.png" in str(found[2])
        assert isinstance(found[1], SegmentationResult)
        same(found[1], segmenter.segment(draw(3)[0], classes=list(COLOURS)))

    def test_size_that_the_model_refuses_fails_alone(self, segmenter: Segmenter) -> None:
        images = [draw(0, height=16, width=16)[0], draw(1, height=16, width=64)[0]]

        class Choosy(ColourPatches):
            def __call__(self, images: torch.Tensor) -> torch.Tensor:
                if images.shape[2] != images.shape[3]:
                    raise PatchwordError("squares only")
                return super().__call__(images)

        choosy = Segmenter(encoder=Choosy(), module=segmenter.module, text=segmenter.text, config=segmenter.config)
        square, wide = choosy.segment_batch(images, classes="red")
        assert isinstance(square, SegmentationResult)
        assert str(wide) == "squares only"

    def test_an_image_of_broken_features_fails_alone_in_its_batch(self, segmenter: Segmenter) -> None:
        class Overflowing(ColourPatches):
            def __call__(self, images: torch.Tensor) -> torch.Tensor:
                white = (images.amin(dim=(1, 2, 3)) == 1)[:, None, None, None]
                return super().__call__(images).masked_fill(white, torch.inf)

        images = [draw(0)[0], np.full_like(draw(0)[0], 255), draw(1)[0]]
        fragile = Segmenter(
            encoder=Overflowing(), module=segmenter.module, text=segmenter.text, config=segmenter.config
        )
        found = fragile.segment_batch(images, classes=list(COLOURS))
        assert [type(one) for one in found] == [SegmentationResult, PatchwordError, SegmentationResult]
        assert "not finite" in str(found[1])
        for picture, one in ((images[0], found[0]), (images[2], found[2])):
            assert isinstance(one, SegmentationResult)
            same(one, segmenter.segment(picture, classes=list(COLOURS)))

    def test_an_image_too_long_for_memory_is_an_error_in_one_line(self, segmenter: Segmenter) -> None:
        long = np.zeros((1, 500_000, 3), dtype=np.uint8)
        settings = {"shorter_side": 8000, "resize": "plain"}  # 384 terabytes, more than a processor can address
        (found,) = segmenter.segment_batch([long], classes="red", settings=settings)
        assert "not enough memory to resize 1 x 500000 pixels to 8000 x 4000000000" in str(found)

    def test_no_images_are_no_results(self, segmenter: Segmenter) -> None:
        assert segmenter.segment_batch([], classes="red") == []

    def test_features_that_are_not_finite_are_refused(self, segmenter: Segmenter) -> None:
        class Overflowing(ColourPatches):
            def __call__(self, images: torch.Tensor) -> torch.Tensor:
                return super().__call__(images) * float("inf")

        broken = Segmenter(encoder=Overflowing(), module=segmenter.module, text=segmenter.text, config=segmenter.config)
        with pytest.raises(PatchwordError, match="not finite"):
            broken.segment(draw(0)[0], classes="red")


class TestWindows:
    @pytest.mark.parametrize("join", ["features", "logits"])
    def test_windows_find_what_the_whole_finds(self, join: str) -> None:
        picture, truth = draw(100, height=48, width=72)
        settings = {"shorter_side": 48, "window": 24, "stride": 12, "join": join}
        result = DenseSegmenter(ColourText()).segment(picture, classes=list(COLOURS), settings=settings)
        assert (result.label_map.indices == truth).mean() > 0.9

    def test_protocol_against_everything_in_full(self) -> None:
        """Resize, slide, average logits, resize, times 40, softmax over words, best word of a class, threshold."""
        text = ColourText()
        picture, _ = draw(101, height=37, width=50)
        names = ["red; crimson", "green", "background; blue; lime"]
        settings = {
            "shorter_side": 24,
            "window": 16,
            "stride": 4,
            "join": "logits",
            "temperature": 1 / 40,
            "softmax_over": "words",
            "background_threshold": 0.7,
            "refine": "none",
        }
        result = DenseSegmenter(text, templates=("{}",)).segment(picture, classes=names, settings=settings)
        words = ["red", "crimson", "green", "background", "blue", "lime"]
        vectors = functional.normalize(text.encode_text(words), dim=1)
        image = resize(to_tensor(picture), size=(24, 32))  # 50 * 24 / 37 = 32.4
        plan = plan_windows((24, 32), window=16, stride=4)
        total, count = torch.zeros(6, 24, 32), torch.zeros(24, 32)
        for place in range(len(plan)):
            top, left = plan.start(place)
            patches = text.encode_patches(image[..., top : top + 16, left : left + 16])[0]
            logits = torch.einsum("wd,dyx->wyx", vectors, patches)[None]
            total[:, top : top + 16, left : left + 16] += functional.interpolate(logits, size=16, mode="bilinear")[0]
            count[top : top + 16, left : left + 16] += 1
        full = functional.interpolate((total / count)[None], size=(37, 50), mode="bilinear")[0]
        shares = (full * 40).softmax(dim=0)
        classes = torch.stack([shares[:2].amax(0), shares[2], shares[3:].amax(0)])
        confidence, index = classes.max(dim=0)
        index[confidence < 0.7] = 2
        assert 0.05 < float((confidence < 0.7).float().mean()) < 0.95
        np.testing.assert_allclose(result.confidence, confidence.numpy(), rtol=2e-4)
        assert (result.label_map.indices == index.numpy()).mean() > 0.998

    def test_window_of_broken_patches_is_refused(self, segmenter: Segmenter) -> None:
        with pytest.raises(PatchwordError, match=f"window is {PATCH + 1}; "):
            segmenter.segment_batch([draw(0)[0]], classes="red", settings={"window": PATCH + 1})


class TestBackgroundThreshold:
    def segmented(self, segmenter: Segmenter, classes: Any, **settings: Any) -> SegmentationResult:
        return segmenter.segment(draw(100, height=32, width=32)[0], classes=classes, settings=settings)

    def test_the_class_of_that_name_takes_what_is_unsure(self, segmenter: Segmenter) -> None:
        classes = ["background", *COLOURS]
        free = self.segmented(segmenter, classes)
        level = float(np.median(free.confidence))
        found = self.segmented(segmenter, classes, background_threshold=level)
        assert found.label_map.names == ("background", *COLOURS)
        low = free.confidence < np.float32(level)
        assert (found.label_map.indices[low] == 0).all()
        np.testing.assert_array_equal(found.label_map.indices[~low], free.label_map.indices[~low])

    def test_without_such_a_class_one_is_added_at_the_end(self, segmenter: Segmenter) -> None:
        found = self.segmented(segmenter, list(COLOURS), background_threshold=1.0)
        assert found.label_map.names == (*COLOURS, "background")
        assert found.label_map.colours is not None
        assert len(found.label_map.colours) == len(COLOURS) + 1
        assert (found.label_map.indices == len(COLOURS)).mean() > 0.9
        assert self.segmented(segmenter, list(COLOURS)).label_map.names == COLOURS

    def test_background_words_make_the_class_that_is_used(self, segmenter: Segmenter) -> None:
        picture = draw(100, height=32, width=32)[0]
        found = segmenter.segment(picture, classes="red", background=["blue"], settings={"background_threshold": 1.0})
        assert found.label_map.names == ("red", "background")

    def test_ignore_goes_before_background(self, segmenter: Segmenter) -> None:
        free = self.segmented(segmenter, list(COLOURS))
        low, high = (float(np.quantile(free.confidence, share)) for share in (0.3, 0.6))
        found = self.segmented(segmenter, list(COLOURS), threshold=low, background_threshold=high)
        np.testing.assert_array_equal(found.label_map.indices == 255, free.confidence < np.float32(low))
        between = (free.confidence >= np.float32(low)) & (free.confidence < np.float32(high))
        np.testing.assert_array_equal(found.label_map.indices == len(COLOURS), between)


class TestSoft:
    @pytest.mark.parametrize("over", ["classes", "words"])
    def test_probabilities_are_those_of_the_softmax(self, segmenter: Segmenter, over: str) -> None:
        picture, _ = draw(100, height=21, width=30)
        named = ["red; crimson", "green", "blue; azure; navy"]
        found = segmenter.segment(picture, classes=named, background=["sky"], settings={"softmax_over": over})
        assert found.scores is not None
        assert found.class_of is not None
        full = found.scores.rows(range(21), maps=range(found.scores.count)).double()
        shares = (full / found.temperature).softmax(dim=0).numpy()
        expected = np.stack([shares[found.class_of == index].max(axis=0) for index in range(4)])
        assert found.label_map.names == ("red", "green", "blue", "background")
        np.testing.assert_allclose(found.soft(), expected, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found.soft().max(axis=0), found.confidence, rtol=1e-5)
        if over == "classes":
            np.testing.assert_allclose(found.soft().sum(axis=0), 1, rtol=1e-5)

    def test_some_classes_in_some_rows(self, segmenter: Segmenter) -> None:
        found = segmenter.segment(draw(100, height=21, width=30)[0], classes=list(COLOURS))
        whole = found.soft()
        part = found.soft(["blue", "red"], rows=range(5, 9), dtype="float16")
        assert part.dtype == np.float16
        np.testing.assert_allclose(part, whole[[2, 0], 5:9], atol=1e-3)
        np.testing.assert_array_equal(found.soft("green"), whole[1:2])

    def test_class_of_a_threshold_has_none(self, segmenter: Segmenter) -> None:
        settings = {"background_threshold": 0.9}
        found = segmenter.segment(draw(100)[0], classes=list(COLOURS), settings=settings)
        assert (found.soft("background") == 0).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"classes": ["lamp"]}, r"unknown class 'lamp' \(choose from red, green"),
            ({"rows": range(3, 40)}, "it must be a range within 0 to 16"),
            ({"rows": range(0, 9, 2)}, "in steps of 1"),
        ],
    )
    def test_what_is_not_there_is_refused(self, segmenter: Segmenter, arguments: dict[str, Any], message: str) -> None:
        found = segmenter.segment(draw(100)[0], classes=["red", "green"])
        with pytest.raises(PatchwordError, match=message):
            found.soft(**arguments)
        kept_none = SegmentationResult(found.label_map, found.confidence, found.image)
        with pytest.raises(PatchwordError, match="were not kept"):
            kept_none.soft()


class TestAgreementWithMasks:
    @pytest.mark.parametrize("background", [None, ["sky"]])
    def test_background_of_the_rule_is_background_of_the_masks(
        self, segmenter: Segmenter, background: list[str] | None
    ) -> None:
        picture = draw(100, height=32, width=32)[0]
        vocabulary = segmenter.vocabulary_of(list(COLOURS), background=background)
        free = segmenter.segment(picture, classes=vocabulary)
        level = float(np.median(free.confidence))
        found = segmenter.segment(picture, classes=vocabulary, settings={"background_threshold": level})
        rule = MaskRule(vocabulary, zero_is="background")
        scored = rule.prediction(found.label_map)
        assert rule.names[0] == "background"
        assert (scored[free.confidence < np.float32(level)] == 0).all()
        named = (found.label_map.indices < len(COLOURS)) & (free.confidence >= np.float32(level))
        assert named.any()
        np.testing.assert_array_equal(scored[named], found.label_map.indices[named] + 1)
