"""Segmentation with whatever gives unit patch vectors in a text space: the way that all segmenters here share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.images import to_tensor
from patchword.maps import LabelMap
from patchword.models.pixels import model_size, resize
from patchword.segment.geometry import AnyImage, as_rgb
from patchword.segment.pixels import assign_pixels
from patchword.segment.result import SegmentationResult
from patchword.segment.scores import GridScores
from patchword.segment.settings import SegmentSettings
from patchword.segment.words import Classes, WordEncoder
from patchword.vocabulary import Vocabulary


class AnySegmenter(Protocol):
    """`Segmenter`, `DenseSegmenter`, and whatever else answers in the same way."""

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> SegmentationResult:
        """Give every pixel one of the classes."""

    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; in place of one that cannot be, its error."""

    def vocabulary_of(self, classes: Classes, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""

    def describe(self) -> dict[str, Any]:
        """What a person must know to repeat a segmentation, as JSON can hold it."""


class DenseFeatures(Protocol):
    """Whatever turns images into patch vectors in a text space.

    Attributes:
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the square that has as many pixels as the image that it sees by default.
        device: that images are resized on.
    """

    @property
    def patch_size(self) -> int: ...

    @property
    def image_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w), sides whole patches -> unit patch vectors (b, d, h/patch, w/patch)."""

    def describe(self) -> dict[str, Any]:
        """The models and numbers that the vectors depend on, as JSON can hold them."""


@dataclass(frozen=True)
class DensePath:
    """Everything that turns an image and class names into a label map.

    Attributes:
        encode: images (1, 3, h, w), sides multiples of the patch -> unit patch vectors (1, d, h/patch, w/patch).
        words: class names -> text vectors.
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the square that has as many pixels as the image that `encode` sees; the default.
        temperature: of the softmax that the confidence is taken from; the default.
        device: that images are resized on.
    """

    encode: Callable[[Tensor], Tensor]
    words: WordEncoder
    patch_size: int
    image_size: int
    temperature: float
    device: torch.device

    @torch.no_grad()
    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes,
        background: Sequence[str] | None,
        settings: SegmentSettings | Mapping[str, Any] | None,
    ) -> SegmentationResult:
        """Segment one image; arguments and result as `Segmenter.segment` has them."""
        chosen = SegmentSettings.of(settings)
        words = self.words(classes, background=background)
        pixels = as_rgb(image)
        size = (pixels.shape[0], pixels.shape[1])
        seen = model_size(size, image_size=chosen.image_size or self.image_size, patch_size=self.patch_size)
        patches = self.encode(resize(to_tensor(pixels).to(self.device), size=seen))[0]  # (d, h, w)
        scores = GridScores(words.scores(patches), size)
        found = assign_pixels(scores, temperature=chosen.temperature or self.temperature, threshold=chosen.threshold)
        return SegmentationResult(
            LabelMap(found.indices, words.names, words.colours),
            found.confidence,
            pixels,
            scores=scores,
            class_of=np.arange(scores.count),
        )

    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes,
        background: Sequence[str] | None,
        settings: SegmentSettings | Mapping[str, Any] | None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; arguments and result as `Segmenter.segment_batch` has them."""
        chosen = SegmentSettings.of(settings)
        vocabulary = self.words.vocabulary_of(classes, background=background)
        return [self._attempt(image, vocabulary=vocabulary, settings=chosen) for image in images]

    def _attempt(
        self, image: AnyImage, *, vocabulary: Vocabulary, settings: SegmentSettings
    ) -> SegmentationResult | PatchwordError:
        try:
            return self.segment(image, classes=vocabulary, background=None, settings=settings)
        except PatchwordError as error:
            return error
