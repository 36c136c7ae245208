"""Refinement as a whole: which classes compete, at how many pixels, and what the confidences are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.refine import PamrSettings
from patchword.data.images import to_tensor
from patchword.models.pixels import resize
from patchword.segmentation import pamr as module
from patchword.segmentation.pamr import bounded_size, neighbour_weights, refine_by_pamr, spread
from patchword.segmentation.pixels import PixelClasses, PostprocessConfig
from patchword.segmentation.scores import GridScores, PixelScores, SampledScores, WindowScores, at_size, patch_scores
from patchword.segmentation.sliding_window import plan_windows

TEMPERATURE = 0.1
FEW = PamrSettings(iterations=3, dilations=(1, 2), pixels=1024)


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


def refine(
    scores: PixelScores,
    *,
    image: np.ndarray,
    settings: PamrSettings = FEW,
    class_of: np.ndarray | None = None,
    seen: Tensor | None = None,
) -> PixelClasses:
    owners = np.arange(scores.count) if class_of is None else class_of
    decision = PostprocessConfig(owners, int(owners.max()) + 1, TEMPERATURE)
    return refine_by_pamr(scores, decision=decision, image=image, seen=seen, settings=settings)


def pamr(maps: Tensor, *, image: Tensor) -> Tensor:
    weights = neighbour_weights(image, dilations=(1, 2), contrast=0.1)
    return spread(maps, weights=weights, iterations=3, dilations=(1, 2))


def full_pamr(patches: Tensor, *, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Every class's refined probabilities (n, h, w), refined at `size`; -1 for classes that win nowhere before."""
    full = functional.interpolate(patches[None], size=size, mode="bilinear")[0]
    probabilities = (full / TEMPERATURE).softmax(dim=0)
    guide = resize(image, size=size)[0]
    refined = pamr(probabilities, image=guide)
    loses = torch.ones(len(patches), dtype=torch.bool)
    loses[probabilities.argmax(dim=0).unique()] = False
    refined[loses] = -1
    return functional.interpolate(refined[None], size=image.shape[2:], mode="bilinear")[0]


@pytest.mark.parametrize(
    ("size", "work"), [((25, 40), (25, 40)), ((32, 32), (32, 32)), ((60, 90), (26, 39)), ((200, 20), (101, 10))]
)
def test_pamr_is_that_of_all_classes_at_once(size: tuple[int, int], work: tuple[int, int]) -> None:
    patches, image = random(11, 5, 7, seed=1), photograph(*size)
    found = refine(GridScores(patches, size), image=image)
    value, index = full_pamr(patches, image=to_tensor(image), size=work).max(dim=0)
    torch.testing.assert_close(torch.from_numpy(found.confidence), value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.999  # but for ties
    assert found.indices.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 5)])
def test_pamr_of_the_smallest_images(size: tuple[int, int]) -> None:
    patches, image = random(3, 2, 2), photograph(*size)
    found = refine(GridScores(patches, size), image=image)
    expected = full_pamr(patches, image=to_tensor(image), size=size)
    np.testing.assert_array_equal(found.indices, expected.argmax(dim=0).numpy())
    np.testing.assert_allclose(found.confidence, expected.amax(dim=0).numpy(), atol=1e-5)


def test_pamr_of_words_takes_each_class_by_its_best_word() -> None:
    patches, image = random(6, 4, 4, seed=1), photograph(20, 22)
    class_of = np.array([0, 0, 1, 2, 2, 2])
    found = refine(GridScores(patches, (20, 22)), image=image, class_of=class_of)
    words = (functional.interpolate(patches[None], size=(20, 22), mode="bilinear")[0] / TEMPERATURE).softmax(dim=0)
    classes = torch.stack([words[class_of == name].amax(dim=0) for name in range(3)])
    value, index = pamr(classes, image=to_tensor(image)[0]).max(dim=0)
    np.testing.assert_allclose(found.confidence, value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.99


@pytest.mark.parametrize(("pixels", "work"), [(4096, (40, 50)), (1024, (29, 36))])
def test_pamr_of_cosines_is_that_of_every_map_before_the_softmax(pixels: int, work: tuple[int, int]) -> None:
    patches, image, size = random(7, 5, 6, seed=1), photograph(40, 50), (40, 50)
    settings = FEW.model_copy(update={"spreads": "cosines", "pixels": pixels})
    found = refine(GridScores(patches, size), image=image, settings=settings)
    maps = functional.interpolate(patches[None], size=work, mode="bilinear")[0]
    guide = resize(to_tensor(image), size=work)[0]
    maps = pamr(maps, image=guide)
    maps = functional.interpolate(maps[None], size=size, mode="bilinear")[0]
    value, index = (maps / TEMPERATURE).softmax(dim=0).max(dim=0)
    np.testing.assert_allclose(found.confidence, value, rtol=1e-4, atol=1e-5)
    assert (found.indices == index.numpy()).mean() > 0.999  # but for ties


def test_pamr_can_follow_the_image_as_the_model_sees_it() -> None:
    patches, image, seen = random(5, 4, 4, seed=1), photograph(20, 22), random(1, 3, 12, 16, seed=3)
    settings = FEW.model_copy(update={"spreads": "cosines"})
    found = refine(GridScores(patches, (20, 22)), image=image, seen=seen, settings=settings)
    guide = functional.interpolate(seen, size=(20, 22), mode="bilinear")[0]
    maps = functional.interpolate(patches[None], size=(20, 22), mode="bilinear")[0]
    maps = pamr(maps, image=guide)
    np.testing.assert_allclose(found.confidence, (maps / TEMPERATURE).softmax(dim=0).amax(dim=0), rtol=1e-4, atol=1e-5)


def test_memory_of_pamr_does_not_grow_with_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    together = []
    original = module.spread

    def watching(maps: Tensor, **others: object) -> Tensor:
        together.append(len(maps))
        return original(maps, **others)

    monkeypatch.setattr(module, "spread", watching)
    monkeypatch.setattr("patchword.segmentation.pixels.MOST_VALUES", 500)
    scores = Opaque(GridScores(random(30, 6, 6), (20, 30)))
    refine(scores, image=photograph(20, 30))
    assert sum(together) > 8
    assert max(together) == 4
    assert 0 < scores.most <= 500


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
