"""Masks of low resolution at the pixels of an image, only where anything can be inside, as runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patchword.data.run_lengths import Runs
from patchword.models.pixels import MaskFrame, full_logits

Box = tuple[int, int, int, int]

ENCODED_AT_ONCE = 16
"""Masks of full size that are in memory together."""
_AT_ONCE = 64  # rows or columns
_MOST = 2**31 - 1  # places that CUDA looks for edges in at once
_LEAST_SIDE = 256  # torch enlarges to fewer pixels in another way, of which a part has other last bits than the whole


def encode_masks(
    logits: Tensor, start: int, stop: int, *, box: Box, image_size: tuple[int, int], frame: MaskFrame | None = None
) -> list[Runs]:
    """Bring masks `start` to `stop` - 1 to an image's pixels; of these only the ends of runs leave a device.

    Args:
        logits: (n, h', w') of a part of the image, above 0 = inside.
        box: the part as x0, y0, x1, y1 in pixels of the image, x1 and y1 outside.
        image_size: (height, width) in pixels of the image.
        frame: where the part lies in what the logits cover, where that is more than the part.

    Returns:
        the masks, of the image's size, nothing inside beyond the part.
    """
    x0, y0, x1, y1 = box
    size = (y1 - y0, x1 - x0)
    if logits.device.type != "cpu":
        full = full_logits(logits[start:stop], size=size, frame=frame) > 0
        some = torch.split(full, max(1, _MOST // (size[0] * size[1] + 2 * size[1])))
        return [runs for each in some for runs in _edges(each, top=y0, left=x0, size=image_size)]
    if min(size) >= _LEAST_SIDE:
        parts = [enlarged_mask(one, size=size, frame=frame) for one in logits[start:stop].float()]
    else:
        full = full_logits(logits[start:stop], size=size, frame=frame) > 0
        parts = [Part(one, 0, 0, size) for one in full]
    return [Runs.within(part.values.numpy(), top=y0 + part.top, left=x0 + part.left, size=image_size) for part in parts]


def _edges(masks: Tensor, *, top: int, left: int, size: tuple[int, int]) -> list[Runs]:
    """Runs of masks (n, h, w), found where they are; the host waits and copies once for all."""
    count, high, wide = masks.shape
    columns = masks.new_zeros(count, wide, high + 2)
    columns[..., 1:-1] = masks.mT
    owners, column, row = torch.nonzero(columns[..., 1:] != columns[..., :-1]).cpu().numpy().T
    places = (left + column) * size[0] + top + row
    return [Runs.between(own, size=size) for own in np.split(places, np.searchsorted(owners, np.arange(1, count)))]


def pixels_on(device: torch.device, mask: Runs, *, rows: slice, columns: slice) -> Tensor:
    """A mask in rows and columns of the image around it, (h', w') bool; a device is sent the ends of runs."""
    if device.type == "cpu":
        return torch.from_numpy(mask.part(rows, columns))
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    turns = torch.zeros(high * wide + 1, dtype=torch.uint8, device=device)
    turns[torch.from_numpy(mask.edges(rows, columns)).to(device)] = 1
    return (turns[:-1].cumsum(0, dtype=torch.uint8) & 1).bool().view(wide, high).T


@dataclass(frozen=True, eq=False)
class Part:
    """A part (r, c) of a map of `size`, which begins at row `top` and column `left`; nothing else is above 0."""

    values: Tensor
    top: int
    left: int
    size: tuple[int, int]


def enlarged_mask(logits: Tensor, *, size: tuple[int, int], frame: MaskFrame | None) -> Part:
    """Where `full_logits` is above 0, of one mask (h', w') on the CPU, bit for bit, in boolean.

    Bilinear enlarging mixes neighbours, so that nothing is inside farther than a cell from what is.
    """
    part = Part(logits, 0, 0, (logits.shape[0], logits.shape[1]))
    if frame is not None:
        part = _enlarged(part, size=(frame.side, frame.side))
        height, width = frame.input_size
        seen = part.values[: max(0, height - part.top), : max(0, width - part.left)]
        part = Part(seen, part.top, part.left, frame.input_size)
    return _enlarged(part, size=size, above=True)


def _enlarged(part: Part, *, size: tuple[int, int], above: bool = False) -> Part:
    """Bilinearly; whether that is `above` 0. torch mixes columns, then rows, which a step along one side alone repeats
    bit for bit; some rows or columns at a time stay in a processor's cache."""
    if part.size == size:
        return Part(part.values > 0, part.top, part.left, size) if above else part
    if min(size) < _LEAST_SIDE:  # of the first step alone, whose map is whole
        return Part(_bilinear(part.values, size), 0, 0, size)
    inside = part.values > 0
    rows, columns = (torch.nonzero(inside.any(dim))[:, 0].tolist() for dim in (1, 0))
    if not rows:
        return Part(part.values.new_zeros(0, 0), 0, 0, size)
    known = slice(max(0, rows[0] - 2), rows[-1] + 3)
    lines = part.values[known]
    whole = lines.new_zeros(len(lines), part.size[1])
    whole[:, part.left : part.left + lines.shape[1]] = lines
    across = _reach(part.left + columns[0], part.left + columns[-1], cells=part.size[1], pixels=size[1])
    top = part.top + known.start
    wide = lines.new_zeros(part.size[0], across.stop - across.start)
    for some, place in zip(
        *(torch.split(each, _AT_ONCE) for each in (whole, wide[top : top + len(lines)])), strict=True
    ):
        place.copy_(_bilinear(some, (len(some), size[1]))[:, across])
    down = _reach(part.top + rows[0], part.top + rows[-1], cells=part.size[0], pixels=size[0])
    high = (_bilinear(some.contiguous(), (size[0], some.shape[1]))[down] for some in torch.split(wide, _AT_ONCE, dim=1))
    values = torch.cat([some > 0 if above else some for some in high], dim=1)
    return Part(values, down.start, across.start, size)


def _reach(first: int, last: int, *, cells: int, pixels: int) -> slice:
    """The pixels of a side that some neighbouring cells are mixed into, and a few around them."""
    scale = pixels / cells
    return slice(max(0, math.floor((first - 1) * scale) - 3), min(pixels, math.ceil((last + 2) * scale) + 3))


def _bilinear(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a map (h, w) to a size."""
    if tuple(values.shape) == size:
        return values
    return functional.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
