"""Masks that are brought to an image's pixels where they lie alone equal those that are made whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fake_device import fake_device
from patchword.data.run_lengths import run_lengths
from patchword.models.mask_pixels import encode_masks, pixels_on
from patchword.models.pixels import MaskFrame, full_logits, longest_side_size


def blobs(side: tuple[int, int], *, seed: int) -> Tensor:
    """Logits (4, h, w): a few smooth regions, one of noise, one of nothing, one that is inside all over."""
    height, width = side
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    y, x, size = (torch.rand(3, generator=random) * torch.tensor([height, width, max(side)]) / 4 + 1).tolist()
    smooth = size - ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
    noise = torch.randn(side, generator=random) - 2.5
    return torch.stack([smooth, noise, noise - 20, noise + 20])


@pytest.mark.parametrize(
    ("size", "box", "frame_side"),
    [
        ((700, 900), (0, 0, 900, 700), 1024),
        ((900, 300), (0, 0, 300, 900), 256),
        ((400, 1300), (200, 50, 1300, 400), 512),
        ((257, 600), (0, 0, 600, 257), 64),  # a model's input of few pixels
        ((100, 90), (0, 0, 90, 100), 256),  # a small image
        ((600, 700), (3, 0, 700, 599), None),
    ],
)
def test_masks_are_those_of_the_whole_image(
    size: tuple[int, int], box: tuple[int, int, int, int], frame_side: int | None
) -> None:
    x0, y0, x1, y1 = box
    part = (y1 - y0, x1 - x0)
    frame = None if frame_side is None else MaskFrame(frame_side, longest_side_size(part, target=frame_side))
    for seed in range(3):
        logits = blobs((64, 64) if frame else (48, 56), seed=seed)
        whole = np.zeros((len(logits), *size), dtype=bool)
        whole[:, y0:y1, x0:x1] = (full_logits(logits, size=part, frame=frame) > 0).numpy()
        found = encode_masks(logits, 0, len(logits), box=box, image_size=size, frame=frame)
        assert [runs.run_lengths() for runs in found] == [run_lengths(mask) for mask in whole]
        with fake_device("cuda") as device:
            there = encode_masks(logits.to(device), 0, len(logits), box=box, image_size=size, frame=frame)
            rows, columns = slice(0, size[0]), slice(0, size[1])
            pixels = [pixels_on(device, runs, rows=rows, columns=columns).cpu() for runs in there]
        assert there == found
        np.testing.assert_array_equal(torch.stack(pixels).numpy(), whole)
        assert whole[0].any()
        assert not whole[2].any()
