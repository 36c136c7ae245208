"""Every choice of an export that a person may want to change."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from patchword.settings import Settings


class ExportSettings(Settings):
    """Settings of an export; a format takes the ones that it has a place for.

    Raises:
        PatchwordError: on a value outside its range or an unknown name, naming the value and what is allowed.
    """

    shapes: Literal["masks", "polygons"] = Field(
        "masks",
        description="How coco and label-studio hold an object: run lengths, exact, or the outline as a polygon",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        le=100,
        description="How far in pixels a polygon may stray from the outline to save corners, 0 to 100; 0 = exact",
    )
    own_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A segment is an object of its own when at least this share of it is in no better segment of its "
        "class, 0 to 1; higher = fewer objects",
    )
    photographs: Literal["leave", "copy", "link"] | None = Field(
        None,
        description="Whether photographs stay where they are, are copied, or are linked into the folder; none = what "
        "the format needs: copy for hf, else leave",
    )
    split: str = Field(
        "train",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the list or folder that the photographs go to: letters, digits, - and _",
    )
    image_prefix: str = Field(
        "/data/local-files/?d=",
        description="What stands before a photograph's name in label-studio's tasks, such as the address of a server",
    )
