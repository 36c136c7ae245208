"""Every number that an ONNX file depends on, beside the model."""

from __future__ import annotations

from pydantic import Field

from patchword.config.base import Settings


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
