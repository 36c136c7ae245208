"""Pixel-adaptive mask refinement against its equation, pixel by pixel."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.segmentation.pamr import neighbour_weights, spread


def pamr(maps: Tensor, *, image: Tensor, iterations: int, dilations: Sequence[int], contrast: float) -> Tensor:
    weights = neighbour_weights(image, dilations=dilations, contrast=contrast)
    return spread(maps, weights=weights, iterations=iterations, dilations=dilations)


def naive(masks: Tensor, *, image: Tensor, iterations: int, dilations: Sequence[int], contrast: float) -> Tensor:
    """The equation as it stands, with loops, in Python's own floats."""
    channels, height, width = image.shape
    colours = image.tolist()

    def clamped(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    values = masks.tolist()
    for _ in range(iterations):
        before = values
        values = [[[0.0] * width for _ in range(height)] for _ in before]
        for y in range(height):
            for x in range(width):
                ring, others = [], []
                for dilation in dilations:
                    for down in (-dilation, 0, dilation):
                        for right in (-dilation, 0, dilation):
                            place = clamped(y + down, x + right)
                            ring.append(place)
                            if down or right:
                                others.append(place)
                likeness = []
                for v, u in others:
                    total = 0.0
                    for colour in colours:
                        deviation = statistics.stdev([colour[b][a] for b, a in ring])
                        total -= abs(colour[y][x] - colour[v][u]) / (contrast * deviation + 1e-8)
                    likeness.append(math.exp(total / channels))
                for number, mask in enumerate(before):
                    mixed = sum(weight * mask[v][u] for weight, (v, u) in zip(likeness, others, strict=True))
                    values[number][y][x] = mixed / sum(likeness)
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "dilations", "iterations", "contrast"),
    [
        ((5, 7), (1,), 1, 0.1),
        ((6, 5), (1, 2), 3, 0.1),
        ((4, 9), (2, 5, 1), 2, 0.4),
        ((1, 6), (1, 3), 2, 0.2),
        ((3, 3), (8, 16), 4, 1.0),
    ],
)
def test_equation(size: tuple[int, int], dilations: tuple[int, ...], iterations: int, contrast: float) -> None:
    masks, image = random(3, *size, seed=1), random(3, *size, seed=2)
    expected = naive(masks, image=image, iterations=iterations, dilations=dilations, contrast=contrast)
    found = pamr(masks, image=image, iterations=iterations, dilations=dilations, contrast=contrast)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    single = pamr(masks.float(), image=image.float(), iterations=iterations, dilations=dilations, contrast=contrast)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


def test_flat_image_averages_neighbours_alike() -> None:
    weights = neighbour_weights(torch.full((3, 4, 4), 0.3), dilations=(1, 2), contrast=0.1)
    torch.testing.assert_close(weights, torch.full((16, 4, 4), 1 / 16))


def test_probabilities_go_on_summing_to_one() -> None:
    probabilities = random(4, 9, 8).softmax(dim=0)
    found = pamr(probabilities, image=random(3, 9, 8, seed=3), iterations=7, dilations=(1, 2), contrast=0.1)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(9, 8, dtype=torch.float64))
    assert (found - probabilities).abs().max() > 0.01


def test_every_class_is_refined_for_itself() -> None:
    probabilities, image = random(5, 8, 6), random(3, 8, 6, seed=3)
    whole = pamr(probabilities, image=image, iterations=3, dilations=(1, 2), contrast=0.1)
    part = pamr(probabilities[2:4], image=image, iterations=3, dilations=(1, 2), contrast=0.1)
    torch.testing.assert_close(part, whole[2:4])


def test_normalisation_of_the_image_does_not_matter() -> None:
    probabilities, image = random(2, 8, 6), random(3, 8, 6, seed=3)
    scaled = image * torch.tensor([4.0, 5.0, 255.0], dtype=torch.float64)[:, None, None] - 7
    first = pamr(probabilities, image=image, iterations=2, dilations=(1, 2), contrast=0.1)
    torch.testing.assert_close(
        pamr(probabilities, image=scaled, iterations=2, dilations=(1, 2), contrast=0.1), first, rtol=1e-5, atol=1e-6
    )


def test_border_moves_to_the_edge_of_the_image() -> None:
    image = torch.zeros(3, 24, 24)
    image[:, :, 12:] = 1
    classes = torch.zeros(2, 24, 24)  # the border of the classes is three pixels beside the edge
    classes[0, :, :15], classes[1, :, 15:] = 1, 1
    found = pamr(classes, image=image, iterations=10, dilations=(1, 2, 4), contrast=0.1)
    assert (found.argmax(dim=0)[:, :12] == 0).all()
    assert (found.argmax(dim=0)[:, 12:] == 1).all()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(PatchwordError, match=r"4 x 5 and the image 6 x 5"):
        pamr(random(1, 4, 5), image=random(3, 6, 5), iterations=1, dilations=(1,), contrast=0.1)
