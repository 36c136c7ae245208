"""What a segmentation gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.segmentation.pixels import class_shares
from patchword.segmentation.scores import PixelScores
from patchword.visualization.overlays import overlay

if TYPE_CHECKING:
    from patchword.config.segment import FolderSettings

MASKS, OVERLAYS = "masks", "overlays"


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """A class for every pixel of an image.

    Attributes:
        label_map: indices of the classes asked for; ignore where the confidence is below the threshold.
        confidence: (h, w) float32 in (0, 1], the share of the pixel's class in a softmax over the classes asked for.
        image: (h, w, 3) uint8, the image as it was segmented.
        scores: of every class, or of every word, at any pixel; None where they were not kept.
        class_of: (maps,) int64, the label map's index that each map of `scores` speaks for.
        temperature: of the softmax over those maps.
    """

    label_map: LabelMap
    confidence: NDArray[np.float32]
    image: NDArray[np.uint8]
    scores: PixelScores | None = None
    class_of: NDArray[np.int64] | None = None
    temperature: float | None = None

    def overlay(self, *, opacity: float = 0.55, legend: bool = True) -> Image.Image:
        """Paint the label map over the image; see `patchword.visualization.overlays.overlay`."""
        return overlay(self.image, self.label_map, opacity=opacity, legend=legend)

    def soft(
        self,
        classes: Sequence[str] | str | None = None,
        *,
        rows: range | None = None,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> NDArray[np.floating[Any]]:
        """Probabilities of classes at every pixel, before any threshold, and before PAMR and masks refine edges.

        What the label map needs of memory does not grow with the number of classes; this does, so it is for some
        classes, or for some rows.

        Args:
            classes: names out of the label map's; None for all of them.
            rows: of the image; None for all.
            dtype: of the result.

        Returns:
            (len(classes), len(rows), width): each class's share in the softmax that the confidence is taken from. Where
            that is over words, it is the share of the class's best word. A class that only a threshold makes has 0.
        """
        if self.scores is None or self.class_of is None or self.temperature is None:
            raise PatchwordError("there are no probabilities: the scores of this segmentation were not kept")
        height = len(self.label_map.indices)
        asked = range(height) if rows is None else rows
        if asked.step != 1 or not 0 <= asked.start <= asked.stop <= height:
            raise PatchwordError(f"rows is {asked}; it must be a range within 0 to {height}, in steps of 1")
        names = self.label_map.names
        named = names if classes is None else [classes] if isinstance(classes, str) else classes
        unknown = [name for name in named if name not in names]
        if unknown:
            raise PatchwordError(f"unknown class {unknown[0]!r} (choose from {', '.join(names)})")
        shares = class_shares(
            self.scores,
            class_of=self.class_of,
            classes=[names.index(name) for name in named],
            temperature=self.temperature,
            rows=asked,
            dtype=getattr(torch, dtype),
        )
        return shares.cpu().numpy()

    def areas(self) -> dict[str, int]:
        """Pixels of each class that is there, largest first."""
        counts = np.bincount(self.label_map.indices.ravel(), minlength=len(self.label_map.names))
        found = [(name, int(counts[index])) for index, name in enumerate(self.label_map.names) if counts[index]]
        return dict(sorted(found, key=lambda entry: -entry[1]))

    def save(
        self, folder: str | Path, *, name: str, settings: FolderSettings | Mapping[str, Any] | None = None
    ) -> Path:
        """Write the mask, and beside it what the settings ask for; each file whole or not at all, the mask last.

        Args:
            folder: made when missing.
            name: of the image, relative, with forward slashes; its suffix is kept, as in `a/b.jpg` ->
                `masks/a/b.jpg.png`.
            settings: which files are written: of `FolderSettings`, `overlays`, `confidence_bits` and `soft`.

        Returns:
            Path of the mask.
        """
        from patchword.config.segment import FolderSettings
        from patchword.segmentation.files import mask_path, write_files

        write_files(self, Path(folder), name=name, settings=FolderSettings.of(settings))
        return mask_path(Path(folder), name)
