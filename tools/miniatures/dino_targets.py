"""What the patches of the miniature DINOv2 are taught: other views' and hidden patches, surroundings, local spectra."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tools.miniatures.views import Boxes

PATCH = 8
SPECTRUM = 41
SURROUNDINGS = (3, 5)
"""Sides, in patches, of the squares whose mean a patch has to tell."""


def contrast(students: Tensor, teachers: Tensor, *, temperature: float) -> Tensor:
    """How badly each student vector's own teacher vector is told from all others (InfoNCE, arXiv 1807.03748).

    Args:
        students, teachers: (n, d), unit length; row by row they belong together.
        temperature: divides the cosines, above 0.

    Returns:
        the mean cross entropy, a scalar.
    """
    return functional.cross_entropy(students @ teachers.T / temperature, torch.arange(len(students)))


def region_contrast(
    students: Tensor,
    teachers: Tensor,
    *,
    regions: tuple[Tensor, Tensor],
    temperature: float,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """How badly a patch tells the region it lies in, as the other view shows it, from the other regions (DetCon, 2021).

    Args:
        students: (b, n, d), unit length, patches of one view.
        teachers: (b, n, d), unit length, patches of the other; a region is the mean over its patches.
        regions: (b, n) int64 of either view, which region of the batch a patch lies in, the same number in both.
        temperature: divides the cosines, above 0.
        count: patches sampled, small regions as often as large ones.
        generator: source of the sample.

    Returns:
        the mean cross entropy, a scalar.
    """
    known, column = torch.unique(regions[1], return_inverse=True)
    sums = torch.zeros(len(known), teachers.shape[-1]).index_add_(0, column.flatten(), teachers.flatten(0, 1))
    means = functional.normalize(sums, dim=-1)  # (regions, d)
    here = regions[0].flatten()
    target = torch.searchsorted(known, here).clamp(max=len(known) - 1)
    seen = known[target] == here
    sizes = torch.bincount(target, minlength=len(known))[target]
    rows = torch.multinomial(seen / sizes, min(count, int(seen.sum())), generator=generator)
    return functional.cross_entropy(students.flatten(0, 1)[rows] @ means.T / temperature, target[rows])


def local_spectrum(images: Tensor) -> Tensor:
    """Log shares of spatial frequencies around every patch, blind to colour and to where in the patch a wave begins.

    Args:
        images: (b, 3, h, w) in [0, 1], sides multiples of the patch.

    Returns:
        (b, h/8 * w/8, 41): forty frequency bands of the grey 16 x 16 window about the patch, and the log of its energy.
    """
    grey = functional.pad(images.mean(1, keepdim=True), (4, 4, 4, 4), mode="reflect")
    windows = grey.unfold(2, 16, PATCH).unfold(3, 16, PATCH)[:, 0].flatten(1, 2)  # (b, n, 16, 16)
    fade = torch.hann_window(18)[1:-1]
    windows = (windows - windows.mean((-1, -2), keepdim=True)) * fade[:, None] * fade
    energy = torch.fft.fftshift(torch.fft.rfft2(windows).abs().square(), dim=-2)[..., 1:, :]  # (b, n, 15, 9)
    bands = functional.avg_pool2d(functional.pad(energy, (0, 1, 1, 0)), 2).flatten(-2)  # (b, n, 40)
    total = bands.sum(-1, keepdim=True)
    return torch.cat([(bands / (total + 0.02) + 1e-3).log(), (total + 0.01).log()], dim=-1)


def surroundings(features: Tensor, *, side: int) -> Tensor:
    """What lies around every patch: mean features over squares about it, standardised over the batch.

    Args:
        features: (b, side * side, d).
        side: patches along a view.

    Returns:
        (b, side * side, len(SURROUNDINGS) * d); what lies outside the view counts for nothing.
    """
    maps = features.transpose(1, 2).reshape(len(features), -1, side, side)  # (b, d, side, side)
    means = [
        functional.avg_pool2d(maps, length, stride=1, padding=length // 2, count_include_pad=False)
        for length in SURROUNDINGS
    ]
    rows = torch.cat(means, dim=1).flatten(2).transpose(1, 2)  # (b, n, k * d)
    flat = rows.flatten(0, 1)
    return (rows - flat.mean(0)) / flat.std(0).clamp(min=1e-4)


def random_masks(count: int, *, side: int, share: float, generator: torch.Generator) -> Tensor:
    """Hide blocks of patches, as iBOT does.

    Args:
        count: number of views; every other one is left whole.
        side: patches along a view.
        share: mean share of patches hidden in the others, each view's own share being uniform from 0 to twice that.
        generator: source of shares and blocks.

    Returns:
        (count, side * side) bool, true where a patch is hidden.
    """
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for row in range(0, count, 2):
        goal = share * 2 * float(torch.rand(1, generator=generator)) * side * side
        while int(masks[row].sum()) < goal:
            high, wide = (int(value) for value in torch.randint(1, max(side // 2, 2), (2,), generator=generator))
            top = int(torch.randint(0, side - high + 1, (1,), generator=generator))
            left = int(torch.randint(0, side - wide + 1, (1,), generator=generator))
            masks[row, top : top + high, left : left + wide] = True
    return masks.flatten(1)


def matched(features: Tensor, *, here: Boxes, there: Boxes, side: int) -> tuple[Tensor, Tensor]:
    """Carry a view's patch features over to another view's patches.

    Args:
        features: (b, side * side, k) of the view `there`.
        here, there: where the two views lie in the picture.
        side: patches along a view.

    Returns:
        the features seen at this view's patches (b, side * side, k), between patches interpolated, and
        (b, side * side) bool: whether the other view sees that place.
    """
    points, inside = there.locate(here.grid(side))
    maps = features.transpose(1, 2).reshape(len(features), -1, side, side)
    targets = functional.grid_sample(maps, points * 2 - 1, mode="bilinear", align_corners=False, padding_mode="border")
    return targets.flatten(2).transpose(1, 2), inside.flatten(1)
