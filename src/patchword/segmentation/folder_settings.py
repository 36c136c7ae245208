"""What a run over a folder writes of each photograph, and how it takes photographs and videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from patchword.config.base import Settings

ALL_CLASSES = "all"


class FolderSettings(Settings):
    """The choices of a run over a folder that are not of the segmentation itself."""

    overlays: bool = Field(True, description="Whether to write pictures with the classes painted over the photograph.")
    confidence_bits: Literal[0, 8, 16] = Field(
        0, description="Bits of the grey pictures of confidence: 8, 16 (finer steps, larger files), or 0 for none."
    )
    soft: tuple[str, ...] = Field(
        (),
        description="Names of the classes whose probabilities are written, or all; none by default. Each takes two "
        "bytes a pixel.",
    )
    rle: bool = Field(False, description="Whether results.jsonl has the run lengths of each class that is there.")
    every: int = Field(1, ge=1, description="Frames, 1 and more: of videos every such frame is segmented; 1 takes all.")
    overlay_video: bool = Field(
        False, description="Whether overlays of a video become one video instead of a picture a frame."
    )
    batch_megapixels: float = Field(
        24.0,
        gt=0,
        description="Megapixels, above 0: of photographs that are segmented together, as they are stored; a larger one "
        "is segmented alone. Bounds the memory that results take before they are written.",
    )

    @classmethod
    def of(cls, settings: FolderSettings | Mapping[str, Any] | None) -> FolderSettings:
        """Settings from what a caller may pass: all of them, those that differ from the defaults by name, or none."""
        return settings if isinstance(settings, FolderSettings) else cls(**(settings or {}))

    def of_frames(self) -> FolderSettings:
        """What is written of each frame of a video."""
        return self.model_copy(update={"overlays": self.overlays and not self.overlay_video})
