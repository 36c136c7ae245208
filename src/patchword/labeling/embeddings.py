"""What CLIP sees in every mask of an image, named or not: one vector a mask, and where the mask is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from patchword.data.folders import write_bytes
from patchword.errors import PatchwordError

CELLS = 64
"""Rows and columns of the raster that a mask's place is kept on."""
_BITS = 8


@dataclass(frozen=True)
class MaskEmbeddings:
    """The masks of one image.

    Attributes:
        vectors: (n, d) float16, unit length: of the masked crops, in the image-text model's space.
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
            tensors = load_file(path)
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
