"""What CLIP sees in every mask of an image, named or not: one vector a mask, and where the mask is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor
from torch.nn import functional

from patchword.data.folders import write_bytes
from patchword.data.run_lengths import Runs
from patchword.data.storage import is_stored
from patchword.errors import PatchwordError
from patchword.models.mask_pixels import pixels_on
from patchword.models.pixels import resize, resize_bands

CELLS = 64
"""Rows and columns of the raster that a mask's place is kept on."""
_BITS = 8
_CONTEXT = 0.1  # of the longer side of a mask's box, around it in its crops


@dataclass(frozen=True)
class MaskEmbeddings:
    """The masks of one image.

    Attributes:
        vectors: (n, d) float16, unit length: of the crops around the masks, in the image-text model's space.
        cells: (n, 64, 64) bool: cells of a raster over the image of which a mask covers at least half.
    """

    vectors: Tensor
    cells: Tensor

    @classmethod
    def of(cls, vectors: Tensor, *, shares: Tensor) -> MaskEmbeddings:
        """Of unit vectors (n, d), and the share (n, 64, 64) of each cell that lies inside each mask."""
        return cls(vectors.to(torch.float16), shares >= 0.5)

    @classmethod
    def together(cls, parts: Sequence[MaskEmbeddings], *, dim: int) -> MaskEmbeddings:
        """Those of several batches of masks on one image, in their order; none for no parts."""
        vectors = [torch.empty(0, dim, dtype=torch.float16), *(part.vectors for part in parts)]
        cells = [torch.empty(0, CELLS, CELLS, dtype=torch.bool), *(part.cells for part in parts)]
        return cls(torch.cat(vectors), torch.cat(cells))

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all: 512 bytes a mask for its place, 2 for each channel."""
        weights = 2 ** torch.arange(_BITS)
        packed = (self.cells.view(-1, CELLS * CELLS // _BITS, _BITS) * weights).sum(2).to(torch.uint8)
        write_bytes(path, save({"cells": packed, "vectors": self.vectors.contiguous()}))

    @classmethod
    def load(cls, path: Path) -> MaskEmbeddings:
        """Read what `save` wrote."""
        try:
            tensors = load(path.read_bytes()) if is_stored(path) else load_file(path)
            packed, vectors = tensors["cells"], tensors["vectors"]
            bits = (packed[..., None] >> torch.arange(_BITS)) & 1
            return cls(vectors, bits.view(len(vectors), CELLS, CELLS).bool())
        except FileNotFoundError:
            raise PatchwordError(f"mask embeddings {path} are missing; label again") from None
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise PatchwordError(f"mask embeddings {path} are damaged ({error}); label again") from None

    def regions(self, grid: tuple[int, int], *, majority: float) -> Tensor:
        """Which mask each patch belongs to: of those that cover enough of it, the smallest.

        Args:
            grid: (rows, columns) of patches over the image.
            majority: share of a patch in (0, 1] that a mask must cover.

        Returns:
            (rows, columns) int64, positions of masks; -1 for none.
        """
        found = torch.full(grid, -1)
        shares = functional.adaptive_avg_pool2d(self.cells.float(), grid)  # (n, rows, columns)
        for position in self.cells.sum((1, 2)).argsort(descending=True, stable=True).tolist():
            found[shares[position] >= majority] = position
        return found


def masked_crop(image: Tensor, mask: Runs, *, outside: Tensor, side: int) -> Tensor:
    """The box of a mask and a little around it, stretched to a square, without what is outside the mask.

    Args:
        image: (1, 3, h, w).
        mask: of the image, not empty.
        outside: (1, 3, 1, 1), the colour that the outside takes.
        side: of the result in pixels.

    Returns:
        (1, 3, side, side).
    """
    (left, top, wide, high), around = mask.box, _context(mask)
    window = _window(image, top - around, top + high + around, left - around, left + wide + around)
    inside = pixels_on(image.device, mask, rows=window[0], columns=window[1])
    seen = image[(..., *window)]

    def band(rows: slice) -> Tensor:
        shown = inside[rows].to(seen.dtype)
        return (seen[:, :, rows] * shown).add_(outside * (1 - shown))  # `where` takes longer

    return _resized(band, seen, side=side)


def plain_crop(image: Tensor, mask: Runs, *, side: int) -> Tensor:
    """The square around a mask, as far as the image goes, with all that is in it; arguments as of `masked_crop`."""
    left, top, wide, high = mask.box
    length = max(high, wide) + 2 * _context(mask)
    above, before = top - (length - high) // 2, left - (length - wide) // 2
    window = _window(image, above, above + length, before, before + length)
    seen = image[(..., *window)]
    return _resized(lambda rows: seen[:, :, rows], seen, side=side)


def _resized(band: Callable[[slice], Tensor], seen: Tensor, *, side: int) -> Tensor:
    """Rows of a part of an image, brought to a square; on the CPU some at a time."""
    sides = (seen.shape[2], seen.shape[3])
    if seen.device.type != "cpu":
        return resize(band(slice(0, sides[0])), size=(side, side))
    return resize_bands(band, sides=sides, size=(side, side))


def _context(mask: Runs) -> int:
    """How much around a mask is shown, in pixels."""
    return round(_CONTEXT * max(mask.box[2:]))


def _window(image: Tensor, top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    """Rows and columns, as far as the image goes."""
    height, width = image.shape[-2:]
    return slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
