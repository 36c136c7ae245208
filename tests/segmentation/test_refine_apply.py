"""Refinement as a whole: which classes compete, at how many pixels, and what the confidences are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import JbuSettings, PamrSettings
from patchword.config.segment import SegmentSettings
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import resize
from patchword.segmentation.pixels import PixelClasses, PostprocessConfig, assign_pixels
from patchword.segmentation.refine import apply
from patchword.segmentation.refine.apply import (
    SampledScores,
    at_size,
    bounded_size,
    pamr,
    patch_scores,
    refine_pixels,
    refine_scores,
)
from patchword.segmentation.refine.jbu import JbuScores
from patchword.segmentation.scores import GridScores, PixelScores, WindowScores
from patchword.segmentation.sliding_window import plan_windows

TEMPERATURE = 0.1
FEW = PamrSettings(iterations=3, dilations=(1, 2), pixels=1024)


def best_class(scores: PixelScores) -> PixelClasses:
    return assign_pixels(scores, decision=PostprocessConfig(np.arange(scores.count), scores.count, TEMPERATURE))


class Opaque:
    """Scores that can only be asked for rows, and remember how much was asked for at once."""

    def __init__(self, scores: GridScores) -> None:
        self._scores = scores
        self.count, self.size, self.grid, self.device = scores.count, scores.size, scores.grid, scores.device
        self.most = 0

    def rows(self, rows: range, *, maps: range | Sequence[int]) -> Tensor:
        self.most = max(self.most, len(rows) * len(maps) * self.size[1])
        return self._scores.rows(rows, maps=maps)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def refine(scores: PixelScores, *, image: np.ndarray, settings: SegmentSettings) -> PixelClasses:
    return refine_pixels(
        scores,
        decision=PostprocessConfig(np.arange(scores.count), scores.count, TEMPERATURE),
        image=image,
        settings=settings,
        proposer=None,
    )


def full_pamr(patches: Tensor, *, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Every class's refined probabilities (n, h, w), refined at `size`; -1 for classes that win nowhere before."""
    full = functional.interpolate(patches[None], size=size, mode="bilinear")[0]
    probabilities = (full / TEMPERATURE).softmax(dim=0)
    guide = resize(image, size=size)[0]
    refined = pamr(probabilities, image=guide, iterations=3, dilations=(1, 2), contrast=0.1)
    loses = torch.ones(len(patches), dtype=torch.bool)
    loses[probabilities.argmax(dim=0).unique()] = False
    refined[loses] = -1
    return functional.interpolate(refined[None], size=image.shape[2:], mode="bilinear")[0]


@pytest.mark.parametrize(
    ("size", "work"), [((25, 40), (25, 40)), ((32, 32), (32, 32)), ((60, 90), (26, 39)), ((200, 20), (101, 10))]
)
def test_pamr_is_that_of_all_classes_at_once(size: tuple[int, int], work: tuple[int, int]) -> None:
    patches, image = random(11, 5, 7, seed=1), photograph(*size)
    found = refine(GridScores(patches, size), image=image, settings=SegmentSettings(refine="pamr", pamr=FEW))
    value, index = full_pamr(patches, image=to_tensor(image), size=work).max(dim=0)
    torch.testing.assert_close(torch.from_numpy(found.confidence), value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.999  # but for ties
    assert found.indices.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 5)])
def test_pamr_of_the_smallest_images(size: tuple[int, int]) -> None:
    patches, image = random(3, 2, 2), photograph(*size)
    settings = SegmentSettings(refine="pamr", pamr=FEW)
    found = refine(GridScores(patches, size), image=image, settings=settings)
    expected = full_pamr(patches, image=to_tensor(image), size=size)
    np.testing.assert_array_equal(found.indices, expected.argmax(dim=0).numpy())
    np.testing.assert_allclose(found.confidence, expected.amax(dim=0).numpy(), atol=1e-5)


def test_pamr_of_words_takes_each_class_by_its_best_word() -> None:
    patches, image = random(6, 4, 4, seed=1), photograph(20, 22)
    class_of = np.array([0, 0, 1, 2, 2, 2])
    decision = PostprocessConfig(class_of, 3, TEMPERATURE)
    found = refine_pixels(
        GridScores(patches, (20, 22)),
        decision=decision,
        image=image,
        settings=SegmentSettings(refine="pamr", pamr=FEW),
        proposer=None,
    )
    words = (functional.interpolate(patches[None], size=(20, 22), mode="bilinear")[0] / TEMPERATURE).softmax(dim=0)
    classes = torch.stack([words[class_of == name].amax(dim=0) for name in range(3)])
    value, index = pamr(classes, image=to_tensor(image)[0], iterations=3, dilations=(1, 2), contrast=0.1).max(dim=0)
    np.testing.assert_allclose(found.confidence, value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.99


@pytest.mark.parametrize(("pixels", "work"), [(4096, (40, 50)), (1024, (29, 36))])
def test_pamr_of_cosines_is_that_of_every_map_before_the_softmax(pixels: int, work: tuple[int, int]) -> None:
    patches, image, size = random(7, 5, 6, seed=1), photograph(40, 50), (40, 50)
    settings = SegmentSettings(refine="pamr", pamr=FEW.model_copy(update={"spreads": "cosines", "pixels": pixels}))
    found = refine(GridScores(patches, size), image=image, settings=settings)
    maps = functional.interpolate(patches[None], size=work, mode="bilinear")[0]
    guide = resize(to_tensor(image), size=work)[0]
    maps = pamr(maps, image=guide, iterations=3, dilations=(1, 2), contrast=0.1)
    maps = functional.interpolate(maps[None], size=size, mode="bilinear")[0]
    value, index = (maps / TEMPERATURE).softmax(dim=0).max(dim=0)
    np.testing.assert_allclose(found.confidence, value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.999  # but for ties


def test_pamr_can_follow_the_image_as_the_model_sees_it() -> None:
    patches, image, seen = random(5, 4, 4, seed=1), photograph(20, 22), random(1, 3, 12, 16, seed=3)
    found = refine_pixels(
        GridScores(patches, (20, 22)),
        decision=PostprocessConfig(np.arange(5), 5, TEMPERATURE),
        image=image,
        seen=seen,
        settings=SegmentSettings(refine="pamr", pamr=FEW.model_copy(update={"spreads": "cosines"})),
        proposer=None,
    )
    guide = functional.interpolate(seen, size=(20, 22), mode="bilinear")[0]
    maps = functional.interpolate(patches[None], size=(20, 22), mode="bilinear")[0]
    maps = pamr(maps, image=guide, iterations=3, dilations=(1, 2), contrast=0.1)
    np.testing.assert_allclose(found.confidence, (maps / TEMPERATURE).softmax(dim=0).amax(dim=0), rtol=1e-4, atol=1e-5)


def test_memory_of_pamr_does_not_grow_with_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    together = []
    original = apply.spread

    def watching(maps: Tensor, **others: object) -> Tensor:
        together.append(len(maps))
        return original(maps, **others)

    monkeypatch.setattr(apply, "spread", watching)
    monkeypatch.setattr("patchword.segmentation.pixels.MOST_VALUES", 500)
    scores = Opaque(GridScores(random(30, 6, 6), (20, 30)))
    refine_pixels(
        scores,
        decision=PostprocessConfig(np.arange(30), 30, TEMPERATURE),
        image=photograph(20, 30),
        settings=SegmentSettings(refine="pamr", pamr=FEW),
        proposer=None,
    )
    assert sum(together) > 8
    assert max(together) == 4
    assert 0 < scores.most <= 500


def test_jbu_is_another_way_to_upsample() -> None:
    patches, image = random(5, 4, 6), photograph(30, 40)
    settings = SegmentSettings(refine="jbu", jbu=JbuSettings(radius=1))
    scores = refine_scores(GridScores(patches, (30, 40)), image=image, settings=settings)
    same = JbuScores(patches, image=to_tensor(image)[0], settings=settings.jbu)
    assert isinstance(scores, JbuScores)
    torch.testing.assert_close(scores.rows(range(30), maps=range(5)), same.rows(range(30), maps=range(5)))
    assert (refine(scores, image=image, settings=settings).indices == best_class(same).indices).all()


@pytest.mark.parametrize("name", ["none", "pamr", "sam"])
def test_scores_of_other_refinements_stay(name: str) -> None:
    scores = GridScores(random(5, 4, 6), (30, 40))
    assert refine_scores(scores, image=photograph(30, 40), settings=SegmentSettings(refine=name)) is scores


def test_none_is_what_was_found() -> None:
    scores = GridScores(random(5, 4, 6), (30, 40))
    found = refine(scores, image=photograph(30, 40), settings=SegmentSettings(refine="none"))
    assert (found.indices == best_class(scores).indices).all()


def test_sam_without_a_mask_proposer_is_refused() -> None:
    with pytest.raises(PatchwordError, match="refine=sam needs a SAM"):
        refine(GridScores(random(2, 2, 2), (8, 8)), image=photograph(8, 8), settings=SegmentSettings(refine="sam"))


def test_sampled_scores_are_those_of_the_middle_pixels() -> None:
    whole = Opaque(GridScores(random(4, 3, 5), (21, 35)))
    everything = whole.rows(range(21), maps=range(4))
    sampled = at_size(whole, (7, 5))
    assert isinstance(sampled, SampledScores)
    assert (sampled.count, sampled.size) == (4, (7, 5))
    torch.testing.assert_close(sampled.rows(range(2, 6), maps=[3, 0]), everything[[3, 0]][:, 1::3, 3::7][:, 2:6])


def test_scores_of_windows_are_taken_once_a_patch() -> None:
    patches = random(4, 3, 5)
    scores = GridScores(patches, (33, 55))
    assert patch_scores(scores) is patches
    assert at_size(scores, (33, 55)) is scores
    torch.testing.assert_close(patch_scores(Opaque(scores)), patches)  # there is a pixel in the middle of each patch
    plan = plan_windows((24, 40), window=16, stride=8)
    windows = WindowScores(random(len(plan), 4, 2, 2), plan=plan, size=(36, 60))
    assert windows.grid == (3, 5)
    assert patch_scores(windows).shape == (4, 3, 5)


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [((100, 100), 20_000, (100, 100)), ((100, 400), 10_000, (50, 200)), ((1, 100_000), 1024, (1, 10_119))],
)
def test_bounded_size(size: tuple[int, int], pixels: int, expected: tuple[int, int]) -> None:
    assert bounded_size(size, pixels=pixels) == expected
