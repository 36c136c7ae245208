"""Joint bilateral upsampling against its equation, pixel by pixel, and in pieces against the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchword.config.refine import JbuSettings
from patchword.segmentation import jbu as jbu_module
from patchword.segmentation import pixels as pixels_module
from patchword.segmentation.jbu import JbuScores
from patchword.segmentation.pixels import PostprocessConfig, assign_pixels


def naive(patches: Tensor, *, image: Tensor, radius: int, distance: float, colour: float) -> Tensor:
    """The equation as it stands, with loops."""
    count, rows, columns = patches.shape
    _, height, width = image.shape
    means = torch.nn.functional.adaptive_avg_pool2d(image, (rows, columns)).tolist()
    colours, scores = image.tolist(), patches.tolist()
    found = torch.zeros(count, height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * rows / height, (x + 0.5) * columns / width  # 0.5 is the middle of the first patch
            total, mixed = 0.0, [0.0] * count
            for row in range(max(0, int(v) - radius), min(rows, int(v) + radius + 1)):
                for column in range(max(0, int(u) - radius), min(columns, int(u) + radius + 1)):
                    far = (v - row - 0.5) ** 2 + (u - column - 0.5) ** 2
                    apart = sum((colours[c][y][x] - means[c][row][column]) ** 2 for c in range(3))
                    weight = math.exp(-far / (2 * distance**2)) * math.exp(-apart / (2 * colour**2))
                    total += weight
                    for number in range(count):
                        mixed[number] += weight * scores[number][row][column]
            found[:, y, x] = torch.tensor(mixed, dtype=torch.float64) / total
    return found


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize(
    ("grid", "size"), [((3, 4), (9, 13)), ((1, 5), (8, 11)), ((4, 2), (4, 3)), ((5, 5), (3, 12)), ((2, 2), (7, 7))]
)
def test_equation(grid: tuple[int, int], size: tuple[int, int], radius: int) -> None:
    patches, image = random(3, *grid, seed=1), random(3, *size, seed=2)
    numbers = JbuSettings(radius=radius, distance=0.8, colour=0.4)
    expected = naive(patches, image=image, radius=radius, distance=0.8, colour=0.4)
    scores = JbuScores(patches, image=image, settings=numbers)
    torch.testing.assert_close(scores.rows(range(size[0]), maps=range(3)).double(), expected, rtol=0, atol=1e-5)
    assert (scores.count, scores.size) == (3, size)


@settings(deadline=None, max_examples=40)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    at_once=st.integers(1, 2000),
    data=st.data(),
)
def test_any_part_is_a_part_of_the_whole(
    grid: tuple[int, int], size: tuple[int, int], at_once: int, data: st.DataObject
) -> None:
    scores = JbuScores(random(4, *grid), image=random(3, *size, seed=5), settings=JbuSettings(colour=0.3))
    whole = scores.rows(range(size[0]), maps=range(4))
    first = data.draw(st.integers(0, size[0] - 1))
    rows = range(first, data.draw(st.integers(first, size[0])))
    maps = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jbu_module, "_WEIGHTS_AT_ONCE", at_once)
        part = scores.rows(rows, maps=maps)
        again = scores.rows(rows, maps=maps[::-1])  # weights may be known by now
    torch.testing.assert_close(part, whole[maps][:, rows.start : rows.stop])
    torch.testing.assert_close(again, part.flip(0))


def test_classes_follow_the_edge_of_the_photograph() -> None:
    image = torch.zeros(3, 24, 24)
    image[:, :, 9:] = 1  # not where the patches of 8 pixels end
    patches = torch.zeros(2, 3, 3)
    patches[0, :, 0], patches[1, :, 1:] = 1, 1
    found = JbuScores(patches, image=image, settings=JbuSettings()).rows(range(24), maps=range(2))
    assert (found.argmax(dim=0)[:, :9] == 0).all()
    assert (found.argmax(dim=0)[:, 9:] == 1).all()


def test_no_colour_is_near_and_still_there_is_an_answer() -> None:
    image = torch.zeros(3, 8, 8)
    image[:, 3, 3] = 1  # like no patch's mean
    scores = JbuScores(random(2, 2, 2), image=image, settings=JbuSettings(colour=0.01))
    assert scores.rows(range(8), maps=range(2)).isfinite().all()


class Asked:
    """Rows that equal the first that they are compared with, once another thread has asked for other rows."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.meanwhile = meanwhile
        self.compared = 0

    def __eq__(self, other: object) -> bool:
        self.compared += 1
        if self.compared > 1:
            return False
        thread = Thread(target=self.meanwhile)
        thread.start()
        thread.join()
        return True

    __hash__ = None  # type: ignore[assignment]


def test_weights_that_are_kept_are_those_of_the_rows_asked_for() -> None:
    scores = JbuScores(random(2, 3, 4), image=random(3, 9, 13), settings=JbuSettings())
    first, other = range(2), range(4, 6)
    expected = scores.rows(first, maps=range(2))
    scores._known = (Asked(lambda: scores.rows(other, maps=range(2))), scores._known[1])  # type: ignore[assignment]
    assert torch.equal(scores.rows(first, maps=range(2)), expected)


@settings(deadline=None, max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    classes=st.integers(1, 9),
    most_values=st.integers(1, 3000) | st.none(),
    kind=st.sampled_from(["random", "near", "equal", "far"]),
)
def test_classes_are_those_of_the_scores_of_all_pixels(
    grid: tuple[int, int], size: tuple[int, int], classes: int, most_values: int | None, kind: str
) -> None:
    """Also of scores that are nearly equal, equal, or so far apart that shares vanish."""
    spread = {"random": 0.1, "near": 1e-7, "equal": 0.0, "far": 50.0}[kind]
    patches = 0.2 + spread * random(classes, *grid)
    scores = JbuScores(patches, image=random(3, *size, seed=5), settings=JbuSettings())
    decision = PostprocessConfig(np.arange(classes), classes, temperature=0.07)
    found = assign_pixels(scores, decision=decision, most_values=most_values)
    full = scores.rows(range(size[0]), maps=range(classes))
    chosen = torch.from_numpy(found.indices.astype(np.int64))
    assert (full.amax(dim=0) - full.gather(0, chosen[None])[0]).max() <= 2e-6 * max(1, spread)
    shares = (full.double() / 0.07).softmax(dim=0).amax(dim=0)
    torch.testing.assert_close(
        torch.from_numpy(found.confidence).double(), shares, rtol=2e-3 if kind == "far" else 2e-5, atol=0
    )


def far_apart(kind: str, *, maps: int, seed: int) -> Tensor:
    """Scores of patches of which many maps cannot win."""
    if kind == "random":
        return random(maps, 7, 24, seed=seed)
    if kind == "regions":  # a best map in each of two, and a border between
        found = 0.2 * random(maps, 7, 24, seed=seed)
        found[3, :, :11] += 0.5
        found[7, :, 11:] += 0.5
        return found
    if kind == "levels":  # maps that are far below others everywhere, two of them equal
        levels = torch.linspace(1, 0, maps).index_select(0, torch.tensor([*range(1, maps), 1]))
        return levels[:, None, None] + 0.02 * random(1, 7, 24, seed=seed)
    return random(maps, 1, 1, seed=seed) + 0.1 * random(maps, 7, 24, seed=seed).cumsum(2)  # ramps that cross


@pytest.mark.parametrize("temperature", [0.003, 0.01, 0.07])
@pytest.mark.parametrize("kind", ["random", "regions", "levels", "ramps"])
def test_maps_that_cannot_show_are_left_out_of_blocks_and_of_nothing_else(
    kind: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, taken = 40, []
    best_of_group = pixels_module._best_of_group

    def counted(part: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        taken.append(len(part))
        return best_of_group(part, scale)

    monkeypatch.setattr(pixels_module, "_best_of_group", counted)
    decision = PostprocessConfig(np.arange(maps), maps, temperature=temperature)
    for seed in range(3):
        image = (255 * random(3, 37, 99, seed=seed)).to(torch.uint8)
        scores = JbuScores(far_apart(kind, maps=maps, seed=seed), image=image, settings=JbuSettings())
        found = assign_pixels(scores, decision=decision, most_values=2**12)
        with monkeypatch.context() as patch:
            patch.setattr(pixels_module, "_shown", lambda *_: None)
            few = sum(taken)
            whole = assign_pixels(scores, decision=decision, most_values=2**12)
        np.testing.assert_array_equal(found.indices, whole.indices)
        np.testing.assert_allclose(found.confidence, whole.confidence, rtol=1e-6)
        full = scores.rows(range(37), maps=range(maps)).double()
        two = full.topk(2, dim=0).values
        clear = (two[0] - two[1] > 1e-6).numpy()
        np.testing.assert_array_equal(found.indices[clear], full.argmax(dim=0).numpy()[clear])
        expected = (full / temperature).softmax(dim=0).amax(dim=0).numpy()
        np.testing.assert_allclose(found.confidence, expected, rtol=2e-6 / temperature)
        assert kind == "levels" or clear.mean() > 0.99
        if temperature == 0.003 and kind != "random":
            assert few < 0.9 * (sum(taken) - few)
        taken.clear()
