"""Every choice of an export that a person may want to change."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from patchword.config.base import Settings


class ExportSettings(Settings):
    """Settings of an export; a format takes the ones that it has a place for."""

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
    least_share: float = Field(
        0.0005,
        ge=0,
        le=1,
        description="Least area of an object as a share of the photograph, 0 to 1; a smaller piece joins the object of "
        "its class that it touches, or is no object; higher = fewer objects; 0 = every piece is one",
    )
    least_pixels: int = Field(
        16,
        ge=0,
        description="Least area of an object in pixels, 0 or more; the larger of the two least areas holds",
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

    def least_area(self, size: tuple[int, int]) -> float:
        """Least area in pixels of an object in a photograph of this (height, width)."""
        return max(self.least_pixels, self.least_share * size[0] * size[1])


class ImportSettings(Settings):
    """Settings of an import; each is for one format."""

    image_field: str | None = Field(
        None,
        description="Of label-studio: the field of a task that names the photograph; none = `name` or `image`, else "
        "the only one whose value is the path of a photograph",
    )
    values: Literal["labelmap", "positions"] = Field(
        "labelmap",
        description="Of voc: what the masks' values are: what labelmap.txt says, or, where there is none, 0 = no class "
        "and v = the v-th class of the list",
    )


class OnnxSettings(Settings):
    """How a segmenter becomes an ONNX file. Every default is [chosen]."""

    opset: int = Field(
        20,
        ge=18,
        le=23,
        description="Operator set, 18 to 23. Older ones are read by older runtimes; 18 is the first with all operators "
        "that are needed.",
    )
    int8: bool = Field(
        False,
        description="Whether the weights of matrix products are kept as 8-bit integers and activations rounded to such "
        "while running: a quarter of the size, often faster, a little less exact.",
    )
    tolerance: float = Field(
        1e-4,
        gt=0,
        description="Above 0: largest difference of a patch vector's channel from torch's that a file may have, in "
        "units of the vector's length. A file with a larger one is not written.",
    )
    int8_agreement: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Least share of patches, 0 to 1, that an int8 file must give the class that the float32 file gives "
        "them, on drawn pictures. A file that agrees less is not written; 0 writes every file.",
    )
    values_at_once: int = Field(
        2**22,
        ge=1,
        description="Class scores of pixels in memory at once inside the model, 1 and more (at least a row's are): "
        "fewer need less memory, with the same result.",
    )
