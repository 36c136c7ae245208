"""Random views: where they lie, what they show, and that colours change but places do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tools.miniatures.dino_targets import matched
from tools.miniatures.views import Boxes, cut, overlapping_boxes, random_boxes, recolour

COUNT = 64


def coordinates(count: int, *, size: int = 128) -> Tensor:
    """Pictures (count, 3, size, size) whose first two channels are the x and y of every pixel's centre in [0, 1]."""
    centres = (torch.arange(size) + 0.5) / size
    x, y = centres.expand(size, size), centres[:, None].expand(size, size)
    return torch.stack([x, y, torch.zeros(size, size)]).expand(count, 3, size, size)


@pytest.fixture
def pair() -> tuple[Boxes, Boxes]:
    generator = torch.Generator().manual_seed(5)
    first = random_boxes(COUNT, smallest=0.35, largest=0.7, generator=generator)
    return first, overlapping_boxes(first, smallest=0.3, largest=0.75, generator=generator)


def test_the_pairs_flip_in_every_combination(pair: tuple[Boxes, Boxes]) -> None:
    assert len(set(zip(*(boxes.flipped.tolist() for boxes in pair), strict=True))) == 4


def test_windows_lie_within_the_picture_and_have_the_sides_asked_for(pair: tuple[Boxes, Boxes]) -> None:
    for boxes, low, high in ((pair[0], 0.35, 0.7), (pair[1], 0.3, 0.75)):
        assert boxes.side.min() >= low
        assert boxes.side.max() <= high
        assert boxes.side.max() - boxes.side.min() > 0.8 * (high - low)
        for edge in (boxes.left, boxes.top):
            assert edge.min() >= 0
            assert (edge + boxes.side).max() <= 1 + 1e-6


def test_the_second_window_overlaps_the_first(pair: tuple[Boxes, Boxes]) -> None:
    first, second = pair
    for one, other in ((first.left, second.left), (first.top, second.top)):
        shared = torch.minimum(one + first.side, other + second.side) - torch.maximum(one, other)
        assert shared.min() > 0
    assert not torch.equal(first.left, second.left)


def test_a_whole_picture_is_itself() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    zero, one = torch.zeros(2), torch.ones(2)
    boxes = Boxes(zero, zero, one, torch.tensor([False, True]))
    expected = torch.stack([images[0], images[1].flip(-1)])
    torch.testing.assert_close(cut(images, boxes=boxes, size=16), expected, atol=1e-5, rtol=0)


def test_a_cut_shows_the_place_that_the_grid_names(pair: tuple[Boxes, Boxes]) -> None:
    for boxes in pair:
        seen = cut(coordinates(COUNT), boxes=boxes, size=48)
        places = boxes.grid(48).permute(0, 3, 1, 2)
        # Half a pixel of the picture at its border, nothing elsewhere.
        assert (seen[:, :2] - places).abs().max() <= 0.5 / 128 + 1e-5
        inside = ((places > 0.5 / 128) & (places < 1 - 0.5 / 128)).all(1, keepdim=True).expand(-1, 2, -1, -1)
        torch.testing.assert_close(seen[:, :2][inside], places[inside], atol=1e-5, rtol=0)


def test_locating_undoes_the_grid(pair: tuple[Boxes, Boxes]) -> None:
    for boxes in pair:
        points, inside = boxes.locate(boxes.grid(7))
        steps = (torch.arange(7) + 0.5) / 7
        expected = torch.stack([steps.expand(7, 7), steps[:, None].expand(7, 7)], dim=-1).expand(COUNT, 7, 7, 2)
        torch.testing.assert_close(points, expected, atol=1e-5, rtol=0)
        assert inside.all()


def test_outside_is_outside() -> None:
    boxes = Boxes(torch.tensor([0.25]), torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([True]))
    points = torch.tensor([[0.3, 0.6], [0.2, 0.6], [0.51, 0.6], [0.3, 0.49], [0.3, 0.76]]).view(1, 1, 5, 2)
    found, inside = boxes.locate(points)
    assert inside.flatten().tolist() == [True, False, False, False, False]
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.8, 0.4]))


def patch_places(boxes: Boxes, *, side: int) -> Tensor:
    """The picture coordinates that each patch of a view shows on average: (b, side * side, 2)."""
    views = cut(coordinates(len(boxes.side)), boxes=boxes, size=8 * side)
    return functional.avg_pool2d(views, 8)[:, :2].flatten(2).transpose(1, 2)


def test_matched_patches_show_the_same_place(pair: tuple[Boxes, Boxes]) -> None:
    side = 6
    for here, there in (pair, pair[::-1]):
        found, inside = matched(patch_places(there, side=side), here=here, there=there, side=side)
        wanted = patch_places(here, side=side)
        error = (found - wanted).abs().amax(-1)
        # Beyond the centre of the other view's outermost patches there is nothing to interpolate with.
        half_patch = there.side[:, None] / side / 2
        assert (error <= half_patch + 0.005)[inside].all()
        points, _ = there.locate(here.grid(side))
        between = ((points > 0.5 / side) & (points < 1 - 0.5 / side)).all(-1).flatten(1)
        assert between.sum() > 300
        assert error[between].max() < 0.005
        edges = (there.left, there.top)
        for axis in (0, 1):
            low, high = edges[axis][:, None], (edges[axis] + there.side)[:, None]
            assert (wanted[..., axis][inside] >= (low - 0.005).expand_as(inside)[inside]).all()
            assert (wanted[..., axis][inside] <= (high + 0.005).expand_as(inside)[inside]).all()
        assert 0.2 < inside.float().mean() < 0.95


def test_recolouring_stays_in_range_and_repeats() -> None:
    images = torch.rand(200, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    images[:20] = images[:20].round()
    once, again = (recolour(images, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert once.shape == images.shape
    assert 0 <= once.min() <= once.max() <= 1
    torch.testing.assert_close(once, again, atol=0, rtol=0)
    assert not torch.equal(once, recolour(images, generator=torch.Generator().manual_seed(3)))


def test_recolouring_changes_colours_but_not_places() -> None:
    left_red = torch.zeros(300, 3, 16, 16)
    left_red[:, 0, :, :8], left_red[:, 1:, :, 8:] = 0.9, 0.6
    seen = recolour(left_red, generator=torch.Generator().manual_seed(4))
    hues = seen[:, :, :, 2:6].mean((2, 3))
    assert hues.std(0).min() > 0.1
    # Two flat halves stay two flat halves, whatever their colours become.
    for half in (seen[..., 1:6], seen[..., 10:15]):
        assert half.std((2, 3)).max() < 0.04
    apart = (seen[..., 2:6].mean((2, 3)) - seen[..., 10:14].mean((2, 3))).abs().amax(1)
    assert (apart > 0.03).float().mean() > 0.85


def test_about_a_fifth_is_grey() -> None:
    images = torch.rand(400, 3, 4, 4, generator=torch.Generator().manual_seed(6)).expand(-1, -1, 4, 4)
    seen = recolour(images, generator=torch.Generator().manual_seed(7))
    grey = (seen.amax(1) - seen.amin(1)).mean((1, 2)) < 0.05
    assert 0.12 < grey.float().mean() < 0.3
