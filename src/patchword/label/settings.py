"""Every number of stage 1 that a person may want to change."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from patchword.settings import Settings

Grid = Annotated[int, Field(ge=1, le=16)]


class LabelSettings(Settings):
    """Settings of the labelling; every default is a [chosen] value of docs/method.md, stage 1.

    Raises:
        PatchwordError: on a value outside its range or an unknown name, naming the value and what is allowed.
    """

    # Crops
    grids: tuple[Grid, ...] = Field(
        (1, 2, 3), min_length=1, description="Crops are 1/g of the image's sides for each g of these, from 1 to 16"
    )
    overlap: float = Field(
        0.5,
        ge=0,
        le=0.9,
        description="Share of a crop's side that it has in common with the next crop of its grid, 0 to 0.9",
    )
    crop_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Side in pixels that crops are resized to, a multiple of the patch; none = the model's own",
    )
    crop_batch: int = Field(16, ge=1, description="Crops that the image-text encoder sees at once, 1 or more")
    dense: Literal["value", "sclip", "clearclip", "naclip"] = Field(
        "value", description="Path of the image-text encoder that its patch features come from"
    )

    # Detection
    minimum_crops: int = Field(2, ge=1, description="Crops that a class has to win to be kept, 1 or more")
    minimum_share: float = Field(
        0.04,
        ge=0,
        le=1,
        description="Share of all crops that a class has to win if that is more than `minimum_crops`, 0 to 1",
    )

    # Prompts
    peaks: int = Field(
        4, ge=1, le=64, description="Patches of highest similarity that become point prompts of a class, 1 to 64"
    )
    peak_distance: float = Field(
        1.0,
        ge=0,
        description="A peak rules out patches up to this far from it along both axes, in patches of the finest crop",
    )
    minimum_predicted_iou: float = Field(
        0.7, ge=0, le=1, description="Masks whose predicted IoU is below this are dropped, 0 to 1"
    )

    # Fusion
    margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="A pixel is ignored where scores (0 to 1) of two classes differ by less than this, 0 to 1",
    )

    @model_validator(mode="after")
    def _check_grids(self) -> Self:
        if len(set(self.grids)) != len(self.grids):
            raise ValueError("a grid is named twice; allowed are distinct grids")
        crops = sum(self.crops_a_side(grid) ** 2 for grid in self.grids)
        if crops < self.minimum_crops:
            raise ValueError(
                f"minimum_crops is {self.minimum_crops}, but the grids give {crops} crops; allowed is up to {crops}"
            )
        return self

    def crops_a_side(self, grid: int) -> int:
        """How many crops of 1/grid of a side cover the side with the overlap."""
        steps = (grid - 1) / (1 - self.overlap)
        return 1 + int(-((1e-9 - steps) // 1))
