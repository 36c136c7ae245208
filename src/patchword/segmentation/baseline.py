"""Segmentation without any training: dense features of frozen models against a text tower's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.data.vocabulary import DEFAULT_TEMPLATES, Vocabulary
from patchword.errors import PatchwordError
from patchword.models.common import compute_type
from patchword.models.protocols import ImageTextEncoder, MaskProposer
from patchword.segmentation.dense import DenseFeatures, DensePath
from patchword.segmentation.geometry import AnyImage
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.settings import SegmentSettings
from patchword.segmentation.words import Classes, WordEncoder


class OwnPatches:
    """The image-text model's own patch features; which variant of its last layer they come from is the encoder's
    affair (MaskCLIP's value path by default)."""

    def __init__(self, text: ImageTextEncoder) -> None:
        self._text = text
        self.patch_size = text.record.patch_size
        self.image_size = text.record.input_size
        self.device: torch.device = text.device

    def __call__(self, images: Tensor) -> Tensor:
        """As of `DenseFeatures`."""
        return self._text.encode_patches(images)

    def describe(self) -> dict[str, Any]:
        """Nothing beyond the text encoder, which `DenseSegmenter.describe` names."""
        return {"kind": "dense"}


class DenseSegmenter:
    """Segments with dense features that are in the text space already, without any training.

    As with `Segmenter`, several threads may call one at the same time.

    Args:
        text: the image-text model, whose text tower gives the words' vectors.
        features: images to patch vectors in its text space; None for its own patches.
        image_size: side in pixels of the square that has as many pixels as the image that the model sees; None for the
            features' own.
        temperature: of the softmax that the confidence is taken from [chosen; the inverse of CLIP's logit scale].
        templates: prompt templates of classes that come without templates of their own.
        mask_proposer: what snaps edges where the setting `refine` is "sam".
        trained: the classes that the features were trained on, which are segmented where none are named; None for none.
    """

    def __init__(
        self,
        text: ImageTextEncoder,
        *,
        features: DenseFeatures | None = None,
        image_size: int | None = None,
        temperature: float = 0.01,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        mask_proposer: MaskProposer | None = None,
        trained: Vocabulary | None = None,
    ) -> None:
        if not temperature > 0:
            raise PatchwordError(f"temperature is {temperature}; allowed is a number above 0")
        self.text = text
        self.trained = trained
        self.features: DenseFeatures = OwnPatches(text) if features is None else features
        self._path = DensePath(
            encode=self.features,
            words=WordEncoder(text, templates=templates, trained=trained),
            patch_size=self.features.patch_size,
            image_size=image_size or self.features.image_size,
            temperature=temperature,
            device=self.features.device,
            mask_proposer=mask_proposer,
        )

    @property
    def refiner(self) -> MaskProposer | None:
        """The mask proposer that snaps edges where the setting `refine` is "sam"; may be set."""
        return self._path.refiner

    @refiner.setter
    def refiner(self, mask_proposer: MaskProposer | None) -> None:
        self._path.refiner = mask_proposer

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> SegmentationResult:
        """Give every pixel one of the classes; arguments, result and errors as of `Segmenter.segment`."""
        return self._path.segment(image, classes=classes, background=background, settings=settings)

    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; arguments, result and errors as of `Segmenter.segment_batch`."""
        return self._path.segment_batch(images, classes=classes, background=background, settings=settings)

    def vocabulary_of(self, classes: Classes | None = None, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""
        return self._path.words.vocabulary_of(classes, background=background)

    def describe(self) -> dict[str, Any]:
        """The models and the numbers that a segmentation depends on."""
        return {
            **self.features.describe(),
            "text_encoder": self.text.record.identity(),
            **({} if self.refiner is None else {"mask_proposer": self.refiner.record.identity()}),
            "computed_in": str(compute_type(self.text)).removeprefix("torch."),
            **self._path.describe(),
        }
