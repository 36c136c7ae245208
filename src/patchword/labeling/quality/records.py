"""What labels are worth, told without ground truth: how far the generators agree, and how sure each step was.

The score of an image is the weighted mean of these parts, each in [0, 1] and high for labels to be trusted; a part that
cannot be known (agreement where one generator ran) is left out, and an image without any label has score 0:

- `class_agreement`: IoU of what the two generators, each fused alone, give to a class; summed over the classes, and
  divided by the number of classes that the vote lets expect. A class that was missed, or named by one generator only,
  counts 0.
- `pixel_agreement`: share of the pixels that both generators, each fused alone, give to the same class.
- `coverage`: share of the pixels that have a label.
- `detection`: classes kept, by the number that the vote lets expect: a class that won too few crops to be kept adds the
  share of the needed crops that it won.

Source: docs/method.md, "What the labels are worth" [chosen]; the formula and its weights are ours [chosen], see
benchmarks/quality_correlation.py.
"""

from __future__ import annotations

from pydantic import Field

from patchword.config.base import Settings
from patchword.runs.records import Record

DIGITS = 4
"""Of every share, so that a line stays short and says no more than it knows."""


class QualitySettings(Settings):
    """Numbers of the assessment; every default is [chosen]."""

    class_agreement_weight: float = Field(
        2.0, ge=0, description="Weight of `class_agreement` in the score; more punishes wrong names and missed classes"
    )
    pixel_agreement_weight: float = Field(
        1.0, ge=0, description="Weight of `pixel_agreement` in the score; more punishes what is wrong over large areas"
    )
    coverage_weight: float = Field(1.0, ge=0, description="Weight of `coverage` in the score; more punishes gaps")
    detection_weight: float = Field(1.0, gt=0, description="Weight of `detection` in the score; above 0")
    image_side: int = Field(
        192,
        ge=8,
        description="Rows and columns of points at which the generators are compared; an image of fewer pixels is "
        "compared pixel by pixel; more is exacter and slower",
    )
    mask_side: int = Field(
        64, ge=8, description="Rows and columns of points in a mask's box at which it is asked what survived of it"
    )


class MaskQuality(Record):
    """One mask, in the order of the segments' file.

    Attributes:
        class_name, generator: as in the segment.
        area: pixels inside.
        agreement: highest IoU of the mask with what the other generator claims for the class: any one of its masks, or
            all of them together that lie inside this one by more than half; 0 where it claims none; none where it did
            not run.
        survived: share of the mask that has its class in the label map.
        predicted_iou, similarity, stability, margin, entropy: as in the segment.
    """

    class_name: str
    generator: str
    area: int
    agreement: float | None
    survived: float
    predicted_iou: float
    similarity: float
    stability: float | None
    margin: float | None
    entropy: float | None


class QualityParts(Record):
    """What the score is made of, each in [0, 1] and high for labels to be trusted; none where it cannot be known."""

    class_agreement: float | None
    pixel_agreement: float | None
    coverage: float
    detection: float


class QualityRecord(Record):
    """One line of `quality.jsonl`.

    Attributes:
        name: of the photograph, as in the manifest.
        score: the parts' weighted mean, in [0, 1].
        parts: see the module.
        contested: share of the claimed pixels that no class got, in [0, 1].
        margin, stability, entropy: means over the masks that have them, weighed by area; none where none has.
        detection_entropy: of the vote, as `Detection` tells it.
        size: [height, width] in pixels.
        pixels: by class, of the label map, in the names' order; classes that have none are left out.
        masks: all claims.
    """

    name: str
    score: float
    parts: QualityParts
    contested: float
    margin: float | None
    stability: float | None
    entropy: float | None
    detection_entropy: float
    size: tuple[int, int]
    pixels: dict[str, int]
    masks: tuple[MaskQuality, ...]


def score_of(parts: QualityParts, *, settings: QualitySettings) -> float:
    """The parts' weighted mean, those left out that are not known; 0 where nothing has a label."""
    if parts.coverage == 0:
        return 0.0
    known = [
        (value, weight)
        for value, weight in (
            (parts.class_agreement, settings.class_agreement_weight),
            (parts.pixel_agreement, settings.pixel_agreement_weight),
            (parts.coverage, settings.coverage_weight),
            (parts.detection, settings.detection_weight),
        )
        if value is not None
    ]
    return round(sum(value * weight for value, weight in known) / sum(weight for _, weight in known), DIGITS)
