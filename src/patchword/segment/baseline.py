"""The training-free baseline: an image-text model's own patch features against its own text vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchword.errors import PatchwordError
from patchword.models.protocols import ImageTextEncoder
from patchword.segment.dense import DensePath
from patchword.segment.geometry import AnyImage
from patchword.segment.result import SegmentationResult
from patchword.segment.words import Classes, WordEncoder
from patchword.vocabulary import DEFAULT_TEMPLATES, Vocabulary


class DenseSegmenter:
    """Segments with the dense features of an image-text model, without any training.

    Which variant of its last layer the features come from is the encoder's affair (MaskCLIP's value path by default).

    Args:
        text: the image-text model.
        image_size: side in pixels of the square that has as many pixels as the image that the model sees; None for the
            size that it was trained on.
        temperature: of the softmax that the confidence is taken from [chosen; the inverse of CLIP's logit scale].
        templates: prompt templates of classes that come without templates of their own.

    Raises:
        PatchwordError: when a number is out of range.
    """

    def __init__(
        self,
        text: ImageTextEncoder,
        *,
        image_size: int | None = None,
        temperature: float = 0.01,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
    ) -> None:
        if temperature <= 0:
            raise PatchwordError(f"temperature is {temperature}; allowed is a number above 0")
        self.text = text
        self._path = DensePath(
            encode=text.encode_patches,
            words=WordEncoder(text, templates=templates),
            patch_size=text.record.patch_size,
            image_size=image_size or text.record.input_size,
            temperature=temperature,
            device=text.device,
        )

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes,
        background: Sequence[str] | None = None,
        image_size: int | None = None,
        threshold: float = 0.0,
    ) -> SegmentationResult:
        """Give every pixel one of the classes; arguments, result and errors as of `Segmenter.segment`."""
        return self._path.segment(
            image, classes=classes, background=background, image_size=image_size, threshold=threshold
        )

    def vocabulary_of(self, classes: Classes, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""
        return self._path.words.vocabulary_of(classes, background=background)

    def describe(self) -> dict[str, Any]:
        """The model, the size at which it sees images, and the temperature."""
        return {
            "kind": "dense",
            "text_encoder": {"name": self.text.record.name, "fingerprint": self.text.record.fingerprint},
            "image_size": self._path.image_size,
            "temperature": self._path.temperature,
        }
