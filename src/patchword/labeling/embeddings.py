"""What CLIP sees in every mask of an image, named or not: one vector a mask, and where the mask is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor
from torch.nn import functional

from patchword.data.folders import write_bytes
from patchword.data.storage import is_stored
from patchword.errors import PatchwordError
from patchword.models.pixels import resize
from patchword.models.protocols import ImageTextEncoder

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


def masked_crop(image: Tensor, mask: NDArray[np.bool_], *, encoder: ImageTextEncoder, side: int) -> Tensor:
    """The box of a mask and a little around it, stretched to a square, without what is outside the mask.

    Args:
        image: (1, 3, h, w).
        mask: (h, w), not empty.
        encoder: whose mean colour the outside takes, which is zero to it.
        side: of the result in pixels.

    Returns:
        (1, 3, side, side).
    """
    (top, bottom), (left, right), around = _box(mask)
    window = _window(top - around, bottom + around, left - around, right + around)
    inside = torch.from_numpy(np.ascontiguousarray(mask[window])).to(image.device)
    mean = image.new_tensor(encoder.record.mean).view(1, 3, 1, 1)
    return resize(torch.where(inside, image[(..., *window)], mean), size=(side, side))


def plain_crop(image: Tensor, mask: NDArray[np.bool_], *, side: int) -> Tensor:
    """The square around a mask, as far as the image goes, with all that is in it; arguments as of `masked_crop`."""
    (top, bottom), (left, right), around = _box(mask)
    length = max(bottom - top, right - left) + 2 * around
    above, before = top - (length - bottom + top) // 2, left - (length - right + left) // 2
    window = _window(above, above + length, before, before + length)
    return resize(image[(..., *window)], size=(side, side))


def _box(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Rows and columns that a mask lies in, and how much around it is shown, in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (top, bottom), (left, right) = ((int(each[0]), int(each[-1]) + 1) for each in (rows, columns))
    return (top, bottom), (left, right), round(_CONTEXT * max(bottom - top, right - left))


def _window(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(max(top, 0), bottom), slice(max(left, 0), right)
