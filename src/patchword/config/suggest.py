"""Every number of `suggest` that a person may want to change."""

from __future__ import annotations

from pydantic import Field

from patchword.config.base import Settings
from patchword.config.label import LabelSettings


class SuggestSettings(Settings):
    """Settings of the proposal of a class list; every default is chosen by us."""

    sample: int = Field(
        500,
        ge=1,
        description="Photographs that are looked at at most, spread evenly over the folder, 1 or more; more find rarer "
        "classes and take longer",
    )
    minimum_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the photographs that a class has to be seen in, one of them at least, 0 to 1; less finds "
        "rarer classes and lets more mistakes in",
    )
    limit_classes: int = Field(
        60, ge=1, description="Classes that are proposed at most, 1 or more; those in the fewest photographs go first"
    )
    near_margin: float = Field(
        0.02,
        ge=0,
        le=2,
        description="Nouns that a crop likes less than its best by at most this in cosine are near, 0 to 2; a crop "
        "whose noun drops out votes for the next of them; more merges more",
    )
    fold_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="A class whose crops have a plainer or one more frequent class near in at least this share goes "
        "into that class, 0 to 1; less merges more",
    )
    examples: int = Field(6, ge=1, le=50, description="Thumbnails of a class on the page at most, 1 to 50")
    thumbnail_size: int = Field(128, ge=16, le=512, description="Longer side of a thumbnail in pixels, 16 to 512")
    crops: LabelSettings = Field(
        default_factory=LabelSettings,
        description="Settings of the labelling of which `grids`, `overlap`, `crop_size`, `crop_batch`, "
        "`minimum_crops` and `minimum_share` count: the crops, and how many make a class seen in a photograph",
    )
