"""Settings of what sharpens edges: joint bilateral upsampling, PAMR, and snapping to masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from patchword.config.base import Settings


class JbuSettings(Settings):
    """Of joint bilateral upsampling. Source: Kopf et al. 2007; docs/refinement.md."""

    radius: int = Field(
        2,
        ge=1,
        le=8,
        description="Patches, 1 to 8: the patches that speak for a pixel are those at most this many rows and columns "
        "from its own. Larger follows the photograph farther and is slower.",
    )
    distance: float = Field(
        1.0,
        gt=0,
        le=8,
        description="Patches, above 0 to 8: standard deviation of the Gaussian over distance. Larger lets colour "
        "decide more, and blurs where colours are alike.",
    )
    colour: float = Field(
        0.1,
        ge=0.01,
        le=10,
        description="Distance of colours in RGB from 0 to 1, 0.01 to 10: standard deviation of the Gaussian over "
        "colour. Smaller follows fainter edges, also those of shadow and texture; 10 follows none.",
    )


class PamrSettings(Settings):
    """Of pixel-adaptive mask refinement. Source: Araslanov and Roth, arXiv 2005.08104; docs/refinement.md."""

    iterations: int = Field(
        10,
        ge=1,
        le=200,
        description="Rounds of averaging, 1 to 200. More carry a class farther over pixels that look alike; the time "
        "grows with them.",
    )
    dilations: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (1, 2, 4, 8, 12, 24),
        min_length=1,
        max_length=16,
        description="Pixels, each 1 to 256: how far away the rings of eight neighbours lie. Larger reach farther; time "
        "and memory grow with their number.",
    )
    contrast: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Share of the local standard deviation of colour, above 0 to 10, over which a neighbour's weight "
        "falls by a factor e. Smaller stops at fainter edges.",
    )
    spreads: Literal["probabilities", "cosines"] = Field(
        "probabilities",
        description="What is averaged: the probabilities of the classes that are the best somewhere, or the cosines of "
        "every class or word, from which probabilities follow afterwards (as the code of SCLIP and NACLIP does).",
    )
    guide: Literal["photograph", "seen"] = Field(
        "photograph",
        description="Whose colours are followed: the photograph's, or those of the resized image that the model sees, "
        "brought back to the photograph's size (as the code of SCLIP and NACLIP does).",
    )
    pixels: int = Field(
        500_000,
        ge=1_024,
        le=4_000_000,
        description="Pixels, 1024 to 4 million: larger images are refined at this many, proportions kept, and the "
        "result is upsampled. More is finer, and slower; memory is about 300 bytes a pixel.",
    )


class SnapSettings(Settings):
    """Of snapping regions to the masks of a mask generator. Source: docs/refinement.md [chosen]."""

    FORMER: ClassVar[Mapping[str, str]] = {
        "minimum_predicted_iou": "pred_iou_thresh",
        "overlap": "box_nms_thresh",
        "prompt_batch": "points_per_batch",
    }

    cells: int = Field(
        128,
        ge=16,
        le=512,
        description="Cells, 16 to 512: longer side of the map on which regions are found and masks are compared with "
        "them. Finer finds smaller regions and is slower.",
    )
    points: int = Field(
        1,
        ge=1,
        le=16,
        description="Points, 1 to 16: prompts in each connected region, each a query of its own. More find more of a "
        "region of several things; the time grows with them.",
    )
    depth: float = Field(
        0.5,
        ge=0,
        le=1,
        description="0 to 1: how far inside points lie, by the region's greatest depth; 0 allows the border.",
    )
    minimum_area: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of the image, 0 to 1: smaller regions are not asked for, and smaller masks not taken.",
    )
    maximum_prompts: int = Field(
        256,
        ge=1,
        le=4096,
        description="Prompts an image, 1 to 4096; the largest regions come first.",
    )
    pred_iou_thresh: float = Field(
        0.7,
        ge=0,
        le=1,
        description="0 to 1: masks that the mask generator itself expects to be worse are not taken.",
    )
    agreement: float = Field(
        0.3,
        ge=0,
        le=1,
        description="0 to 1: share of the probability inside a mask that one class must have to take the mask. "
        "Higher changes less, and only what is sure.",
    )
    box_nms_thresh: float = Field(
        0.9,
        ge=0,
        le=1,
        description="0 to 1: of two masks whose boxes have a higher IoU than this, only the surer is taken.",
    )
    points_per_batch: int = Field(
        64,
        ge=1,
        description="Prompts in a batch, 1 and more; halves itself where memory runs out. Changes no result.",
    )
