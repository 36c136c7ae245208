"""Random views of a batch of pictures, cut and coloured in one go, and the geometry of which patches see one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Boxes:
    """Square windows of pictures, in fractions of the picture's side.

    Attributes:
        left, top, side: (b,) each.
        flipped: (b,) bool, whether left and right are swapped inside the window.
    """

    left: Tensor
    top: Tensor
    side: Tensor
    flipped: Tensor

    def grid(self, size: int) -> Tensor:
        """Where the centres of a raster of the window lie in the picture: (b, size, size, 2) as x, y in [0, 1]."""
        steps = (torch.arange(size) + 0.5) / size  # (size,)
        across = torch.where(self.flipped[:, None], 1 - steps, steps)  # (b, size)
        x = self.left[:, None] + across * self.side[:, None]
        y = self.top[:, None] + steps * self.side[:, None]
        shape = (len(x), size, size)
        return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Express points of the picture in the window's own coordinates; the inverse of `grid`.

        Args:
            points: (b, h, w, 2) as x, y in [0, 1] of the picture.

        Returns:
            (b, h, w, 2) as x, y, in [0, 1] for what lies inside, and (b, h, w) bool: whether it does.
        """
        x = (points[..., 0] - self.left[:, None, None]) / self.side[:, None, None]
        y = (points[..., 1] - self.top[:, None, None]) / self.side[:, None, None]
        inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        x = torch.where(self.flipped[:, None, None], 1 - x, x)
        return torch.stack([x, y], dim=-1), inside


def random_boxes(count: int, *, smallest: float, largest: float, generator: torch.Generator) -> Boxes:
    """Draw windows that lie within the picture, flipped half of the time.

    Args:
        count: number of windows.
        smallest, largest: their side is uniform between these fractions of the picture's, in (0, 1].
        generator: source of sides, places and flips.
    """
    side = smallest + (largest - smallest) * torch.rand(count, generator=generator)
    left = (1 - side) * torch.rand(count, generator=generator)
    top = (1 - side) * torch.rand(count, generator=generator)
    return Boxes(left, top, side, torch.rand(count, generator=generator) < 0.5)


def overlapping_boxes(boxes: Boxes, *, smallest: float, largest: float, generator: torch.Generator) -> Boxes:
    """Draw for every window another one about a place inside it, pushed back where it would leave the picture.

    Args:
        boxes: the windows.
        smallest, largest: sides of the new ones, as in `random_boxes`.
        generator: source of sides, places and flips.
    """
    count = len(boxes.side)
    shares = 0.15 + 0.7 * torch.rand(2, count, generator=generator)
    x, y = boxes.left + boxes.side * shares[0], boxes.top + boxes.side * shares[1]
    return boxes_about(x, y, smallest=smallest, largest=largest, generator=generator)


def boxes_about(x: Tensor, y: Tensor, *, smallest: float, largest: float, generator: torch.Generator) -> Boxes:
    """Draw a window about every point, pushed back where it would leave the picture.

    Args:
        x, y: (b,) points in fractions of the picture's sides.
        smallest, largest: sides of the windows, as in `random_boxes`.
        generator: source of sides and flips.
    """
    side = smallest + (largest - smallest) * torch.rand(len(x), generator=generator)
    left = torch.minimum((x - side / 2).clamp(min=0), 1 - side)
    top = torch.minimum((y - side / 2).clamp(min=0), 1 - side)
    return Boxes(left, top, side, torch.rand(len(x), generator=generator) < 0.5)


def cut(images: Tensor, *, boxes: Boxes, size: int) -> Tensor:
    """Cut windows out and resize them, one of each picture.

    Args:
        images: (b, c, h, w).
        boxes: b windows.
        size: side of the result in pixels.

    Returns:
        (b, c, size, size), interpolated between pixel centres.
    """
    return functional.grid_sample(
        images, boxes.grid(size) * 2 - 1, mode="bilinear", align_corners=False, padding_mode="border"
    )


def recolour(images: Tensor, *, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Change each picture's colours at random, shapes and textures kept.

    Channels are mixed a little, brightness and contrast changed, a fifth of the pictures made grey, some blurred a
    little, and noise is added: colour stays a hint that no two views agree on.

    Args:
        images: (b, 3, h, w) in [0, 1].
        generator: source of the changes.
        strength: of mixing, brightness and contrast, from 0 (left alone) to 1.

    Returns:
        (b, 3, h, w) in [0, 1].
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    mixing = torch.eye(3) + 0.2 * strength * torch.randn(count, 3, 3, generator=generator)
    images = torch.einsum("bij,bjhw->bihw", mixing / mixing.sum(2, keepdim=True).clamp(min=0.6), images)
    grey = images.mean(1, keepdim=True).expand_as(images)
    images = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.2, grey, images)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * uniform(1 - 0.4 * strength, 1 + 0.4 * strength) + middle
    images = images * uniform(1 - 0.5 * strength, 1 + 0.3 * strength)
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, blurred, uniform(-0.4, 0.4).clamp(min=0))
    images = images + uniform(0, 0.02) * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)
