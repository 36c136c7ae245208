"""Random crops, mirror images and colours of a photograph, with its label map moved along pixel for pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.config.align import AlignSettings
from patchword.models.pixels import resize

_GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)


@dataclass(frozen=True)
class Augmentation:
    """What is done to one photograph.

    Attributes:
        top, left, height, width: of the crop, in whole pixels of the photograph.
        flipped: whether left and right are exchanged, after the crop.
        brightness, contrast, saturation: factors, 1 = as it is.
    """

    top: int
    left: int
    height: int
    width: int
    flipped: bool
    brightness: float
    contrast: float
    saturation: float


def draw_augmentation(size: tuple[int, int], *, settings: AlignSettings, generator: torch.Generator) -> Augmentation:
    """Draw what is done to a photograph.

    Args:
        size: (height, width) of the photograph in pixels.
        settings: `crop_scale`, `crop_ratio`, `flip` and `colour`.
        generator: on the CPU.
    """
    scale, ratio, down, right, mirror, *colours = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    area = settings.crop_scale + scale * (1 - settings.crop_scale)
    stretch = math.exp((2 * ratio - 1) * math.log(settings.crop_ratio) / 2)
    height = min(size[0], max(1, round(size[0] * math.sqrt(area) / stretch)))
    width = min(size[1], max(1, round(size[1] * math.sqrt(area) * stretch)))
    brightness, contrast, saturation = (1 + settings.colour * (2 * colour - 1) for colour in colours)
    return Augmentation(
        top=int(down * (size[0] - height + 1)),
        left=int(right * (size[1] - width + 1)),
        height=height,
        width=width,
        flipped=mirror < settings.flip,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
    )


def augment_photograph(pixels: Tensor, augmentation: Augmentation, *, side: int) -> Tensor:
    """Do it to a photograph.

    Args:
        pixels: (1, 3, h, w) in [0, 1].
        augmentation: drawn for its size.
        side: of the result in pixels.

    Returns:
        (1, 3, side, side) in [0, 1].
    """
    resized = resize(_move(pixels, augmentation), size=(side, side))  # (1, 3, side, side)
    bright = resized * augmentation.brightness
    grey = (bright * bright.new_tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)  # (1, 1, side, side)
    contrasted = torch.lerp(grey.mean(), bright, augmentation.contrast)
    grey = torch.lerp(grey.mean(), grey, augmentation.contrast)
    return torch.lerp(grey, contrasted, augmentation.saturation).clamp(0, 1)


def augment_labels(indices: Tensor, augmentation: Augmentation) -> Tensor:
    """Do the same to its label map (h, w).

    Returns:
        the values of the crop's pixels, (height, width) of the crop: nothing is resized, so no label is ever mixed.
    """
    return _move(indices, augmentation)


def _move(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """Cut out the crop of (..., h, w) and exchange left and right where it is to be."""
    rows = slice(augmentation.top, augmentation.top + augmentation.height)
    columns = slice(augmentation.left, augmentation.left + augmentation.width)
    moved = pixels[..., rows, columns]
    return moved.flip(-1) if augmentation.flipped else moved
