"""Every number that scoring depends on, beside the masks and the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from patchword.config.base import Settings
from patchword.evaluation.contours import DILATION


class ScoringSettings(Settings):
    """What is measured beside IoU, how sure the numbers are, and what the report shows."""

    boundary: bool = Field(True, description="Whether Boundary IoU is measured; without it counting is faster.")
    boundary_dilation: float = Field(
        DILATION,
        gt=0,
        le=1,
        description="Share of the image's diagonal, above 0 to 1: how far from a contour a boundary reaches. Larger "
        "forgives more.",
    )
    resamples: int = Field(
        1000,
        ge=0,
        description="Resamples of the bootstrap over images, 0 and more; 0 gives no intervals. More makes the "
        "intervals themselves steadier.",
    )
    level: float = Field(
        0.95, gt=0, lt=1, description="Share of the resamples that an interval holds, between 0 and 1; higher is wider."
    )
    seed: int = Field(0, ge=0, description="Of the resamples, 0 and more; the same seed gives the same intervals.")
    most_failures: int = Field(
        20,
        ge=1,
        description="Images that cannot be scored before a run ends early, 1 and more: what is wrong with so many is "
        "as a rule wrong with all.",
    )
    worst: int = Field(
        30, ge=0, le=500, description="Images of lowest score that the report shows as pictures, 0 to 500."
    )
    picture_side: int = Field(
        420,
        ge=64,
        le=2048,
        description="Pixels, 64 to 2048: longer side of such a picture; larger makes larger reports.",
    )
    picture_quality: int = Field(
        75, ge=1, le=95, description="Of its JPEG compression, 1 to 95; more is sharper and larger."
    )

    @classmethod
    def of(cls, settings: ScoringSettings | Mapping[str, Any] | None) -> Self:
        """Settings from what a user may pass: all of them, or by name those that differ from the defaults."""
        return settings if isinstance(settings, cls) else cls(**dict(settings or {}))
