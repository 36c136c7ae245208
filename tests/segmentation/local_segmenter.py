"""A segmenter without a model, whose answer at a pixel depends on what is near it and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.segment import SegmentSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.segmentation.result import SegmentationResult

IGNORED = 77
NAMES = ("dark", "middle", "light")


def near(image: NDArray[np.uint8], *, radius: int) -> NDArray[np.int64]:
    """Sum of all values within `radius` rows and columns of each pixel, (h, w); nothing lies outside of the image."""
    side = 2 * radius + 1
    padded = np.pad(image.astype(np.int64).sum(axis=2), radius)
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).sum(axis=(2, 3))


class LocalSegmenter:
    """Classes by the brightness around a pixel; pixels whose red is `IGNORED` are ignored."""

    def __init__(self, *, radius: int = 2) -> None:
        self.radius = radius
        self.seen: list[tuple[int, int]] = []
        self.settings: list[SegmentSettings] = []
        self.fail_after: int | None = None

    def segment(self, image: Any, *, classes: Any, background: Any = None, settings: Any = None) -> SegmentationResult:
        total = near(image, radius=self.radius)
        share = total / (765 * (2 * self.radius + 1) ** 2)
        indices = np.minimum(share * 3, 2).astype(np.int64)
        names = tuple(Vocabulary.of(classes).names)
        indices[image[:, :, 0] == IGNORED] = 255 if len(names) < 255 else 65535
        return SegmentationResult(LabelMap(indices, names), share.astype(np.float32), image)

    def segment_batch(
        self, images: Sequence[Any], *, classes: Any, background: Any = None, settings: Any = None
    ) -> list[SegmentationResult | PatchwordError]:
        results: list[SegmentationResult | PatchwordError] = []
        for image in images:
            if self.fail_after is not None and len(self.seen) >= self.fail_after:
                raise KeyboardInterrupt
            self.seen.append(image.shape[:2])
            self.settings.append(settings)
            results.append(self.segment(image, classes=classes))
        return results

    def vocabulary_of(self, classes: Any, *, background: Any = None) -> Vocabulary:
        return Vocabulary.of(classes, background=background or ())

    def describe(self) -> dict[str, Any]:
        return {"kind": "local", "image_size": 100}


def picture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random brightness with noise, (height, width, 3), without the value that is ignored."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 226, (-(-height // 7), -(-width // 7), 3), dtype=np.uint8)
    noise = random.integers(0, 30, (height, width, 3), dtype=np.uint8)
    image = blocks.repeat(7, axis=0).repeat(7, axis=1)[:height, :width] + noise
    return np.where(image == IGNORED, IGNORED + 1, image).astype(np.uint8)
