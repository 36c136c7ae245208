"""What one step of training the miniature DINOv2 sees: two views each of so many places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tools.miniatures.dino_targets import PATCH, random_masks
from tools.miniatures.places import FIRST_THING
from tools.miniatures.views import Boxes, boxes_about, cut, overlapping_boxes, random_boxes, recolour


@dataclass(frozen=True)
class DinoStep:
    """Views of b places; the second half of them are the other views of the first.

    Attributes:
        clean: (2b, 3, s, s) in [0, 1], as cut.
        coloured: (2b, 3, s, s) in [0, 1], each recoloured.
        boxes: where the two views lie in their picture; None where they show pictures of two visits.
        masks: (2b, n) bool, which patches are hidden from the student.
        regions: (b, n) int64 of either view, which region of which place a patch lies in.
    """

    clean: Tensor
    coloured: Tensor
    boxes: tuple[Boxes, Boxes] | None
    masks: Tensor
    regions: tuple[Tensor, Tensor]


def draw_step(
    pool: Tensor,
    regions: Tensor,
    *,
    batch: int,
    size: int,
    masked: float,
    again: bool,
    generator: torch.Generator,
) -> DinoStep:
    """Choose places and cut two views of each.

    Args:
        pool: (n, 2, h, h, 3) uint8, pictures of two visits to every place.
        regions: (n, 2, h, h) uint8, what every pixel belongs to, the same number at both visits.
        batch: places.
        size: side of a view in pixels, a multiple of the patch.
        masked: mean share of patches hidden where any are.
        again: whether the second view is of the other visit; it then shows a thing that the first shows, if there is
            one. Else both are cut from one picture.
        generator: source of every choice.
    """
    chosen = torch.randint(len(pool), (batch,), generator=generator)
    visits = torch.randint(2, (batch,), generator=generator)
    both = (visits, 1 - visits if again else visits)
    pictures = [pool[chosen, each].permute(0, 3, 1, 2).float() / 255 for each in both]
    numbers = [regions[chosen, each] for each in both]
    native = size / pool.shape[-2]
    low, high = min(native * 0.7, 1.0), min(native * 1.35, 1.0)
    if again:
        first, second = (
            boxes_about(*points.T, smallest=low, largest=high, generator=generator)
            for points in _common_points(*numbers, generator=generator)
        )
    else:
        first = random_boxes(batch, smallest=low, largest=high, generator=generator)
        second = overlapping_boxes(first, smallest=low, largest=high, generator=generator)
    boxes, side = (first, second), size // PATCH
    clean = torch.cat([cut(images, boxes=each, size=size) for images, each in zip(pictures, boxes, strict=True)])
    masks = random_masks(2 * batch, side=side, share=masked, generator=generator)
    here, there = (_patch_regions(part, boxes=each, side=side) for part, each in zip(numbers, boxes, strict=True))
    return DinoStep(clean, recolour(clean, generator=generator), None if again else boxes, masks, (here, there))


def _patch_regions(numbers: Tensor, *, boxes: Boxes, side: int) -> Tensor:
    """Which region every patch's centre lies in, (b, side * side): 256 numbers a place of regions (b, h, h)."""
    places = (boxes.grid(side) * numbers.shape[-1]).long().clamp(max=numbers.shape[-1] - 1)
    rows = torch.arange(len(numbers))[:, None]
    return (rows * 256 + numbers[rows, places[..., 1].flatten(1), places[..., 0].flatten(1)]).long()


def _common_points(here: Tensor, there: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A point of either picture (b, h, h), in one thing that both show, or anywhere: x and y in [0, 1], (b, 2) each."""
    points = []
    for one, other in zip(here[:, ::4, ::4].long(), there[:, ::4, ::4].long(), strict=True):
        areas = torch.stack([torch.bincount(numbers.flatten(), minlength=256) for numbers in (one, other)])
        common = areas.prod(0)
        common[:FIRST_THING] = 0
        chosen = int(torch.multinomial((common > 0).float(), 1, generator=generator)) if common.any() else None
        for numbers in (one, other):
            inside = torch.ones_like(numbers) if chosen is None else numbers == chosen
            place = int(torch.multinomial(inside.flatten().float(), 1, generator=generator))
            points.append([(place % len(one) + 0.5) / len(one), (place // len(one) + 0.5) / len(one)])
    first, second = torch.tensor(points).view(-1, 2, 2).unbind(1)
    return first, second
