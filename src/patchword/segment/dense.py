"""Segmentation with whatever gives unit patch vectors in a text space: the way that all segmenters here share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.images import to_tensor
from patchword.maps import LabelMap
from patchword.models.pixels import model_size, resize
from patchword.segment.geometry import AnyImage, as_rgb
from patchword.segment.pixels import assign_pixels
from patchword.segment.result import SegmentationResult
from patchword.segment.words import Classes, WordEncoder
from patchword.vocabulary import Vocabulary


class AnySegmenter(Protocol):
    """`Segmenter` and `DenseSegmenter`."""

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes,
        background: Sequence[str] | None = None,
        image_size: int | None = None,
        threshold: float = 0.0,
    ) -> SegmentationResult:
        """Give every pixel one of the classes."""

    def vocabulary_of(self, classes: Classes, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""

    def describe(self) -> dict[str, Any]:
        """What a person must know to repeat a segmentation, as JSON can hold it."""


@dataclass(frozen=True)
class DensePath:
    """Everything that turns an image and class names into a label map.

    Attributes:
        encode: images (1, 3, h, w), sides multiples of the patch -> unit patch vectors (1, d, h/patch, w/patch).
        words: class names -> text vectors.
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the square that has as many pixels as the image that `encode` sees; the default.
        temperature: of the softmax that the confidence is taken from.
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
        image_size: int | None,
        threshold: float,
    ) -> SegmentationResult:
        """Segment one image; arguments and result as `Segmenter.segment` has them."""
        check_segment_options(image_size=image_size, threshold=threshold)
        words = self.words(classes, background=background)
        pixels = as_rgb(image)
        size = (pixels.shape[0], pixels.shape[1])
        seen = model_size(size, image_size=image_size or self.image_size, patch_size=self.patch_size)
        patches = self.encode(resize(to_tensor(pixels).to(self.device), size=seen))[0]  # (d, h, w)
        found = assign_pixels(words.scores(patches), size=size, temperature=self.temperature, threshold=threshold)
        return SegmentationResult(LabelMap(found.indices, words.names, words.colours), found.confidence, pixels)


def check_segment_options(*, image_size: int | None, threshold: float) -> None:
    """Refuse numbers that no segmentation can use.

    Raises:
        PatchwordError: naming the number and what is allowed.
    """
    if image_size is not None and image_size < 1:
        raise PatchwordError(f"image size is {image_size}; allowed is 1 pixel or more")
    if not 0 <= threshold <= 1:
        raise PatchwordError(f"threshold is {threshold}; allowed is a confidence from 0 to 1")
