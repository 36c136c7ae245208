"""A photograph that a model has seen already: any words can be asked of it, without the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError
from patchword.segmentation.sliding_window import SeenImage, WindowPlan

# What the model saw depends on these; everything else is decided afterwards.
_OF_ENCODING = (
    "image_size",
    "shorter_side",
    "longest_side",
    "resize",
    "partial_patches",
    "window",
    "stride",
    "join",
)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedImage(SeenImage):
    """A photograph and its features, as `DenseSegmenter.encode` makes it; several threads may use one.

    Attributes:
        pixels: (h, w, 3) uint8, the photograph.
        plan: size and windows that the model saw.
        features: unit patch vectors (d, rows, columns), of the whole; of each window where logits are joined.
        geometry: the settings that the features depend on, by name.
        encoder: what made the features.
    """

    features: tuple[Tensor, ...]
    geometry: Mapping[str, Any]
    encoder: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.uint8],
        *,
        plan: WindowPlan,
        features: tuple[Tensor, ...],
        settings: SegmentSettings,
        encoder: Callable[[Tensor], Tensor],
    ) -> EncodedImage:
        """Features of an image, and what of the settings they depend on."""
        geometry = MappingProxyType({name: getattr(settings, name) for name in _OF_ENCODING})
        return cls(pixels, plan, features, geometry, encoder)

    @property
    def nbytes(self) -> int:
        """Memory of the features and of the pixels, in bytes."""
        return self.pixels.nbytes + sum(one.numel() * one.element_size() for one in self.features)

    def settings_for(self, settings: SegmentSettings) -> SegmentSettings:
        """The settings that were asked for, with the geometry of the encoding; contradictions are refused."""
        for name, value in self.geometry.items():
            asked = getattr(settings, name)
            if name in settings.model_fields_set and asked != value:
                raise PatchwordError(
                    f"{name} is {asked}, but the image was encoded with {value}; leave it out, or encode the image anew"
                )
        return settings.model_copy(update=dict(self.geometry))

    def __repr__(self) -> str:
        height, width = self.size
        return f"EncodedImage({height} x {width} pixels, seen at {self.plan.size[0]} x {self.plan.size[1]})"
