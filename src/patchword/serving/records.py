"""What requests and answers of the API hold, as its description shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(max_length=1000)]
_SETTINGS = (
    "image_size, window, stride, join, temperature, softmax_over, class_prior, threshold, background_threshold and "
    "refine, as `patchword segment --set` takes them"
)


class Reason(BaseModel):
    """Why there is no result."""

    reason: str


class Problem(BaseModel):
    """What every answer with a status of 400 and more holds."""

    error: Reason


class ServedClass(BaseModel):
    """A class, its words and its colour."""

    name: str
    words: list[str]
    colour: str = Field(examples=["#3a86ff"])


class ServedModel(BaseModel):
    """A model of the server."""

    id: str
    name: str
    kind: str = Field(description="aligned, dense (a training-free method) or onnx")
    method: str | None = None
    classes: list[ServedClass] = Field(description="Those that are meant where a request names none")
    image_size: int


class Example(BaseModel):
    """A picture to begin with."""

    id: str
    url: str
    title: str


class Limits(BaseModel):
    """What requests may hold at most."""

    bytes: int
    pixels: int
    side: int
    classes: int


class Models(BaseModel):
    """What the server has."""

    models: list[ServedModel]
    examples: list[Example]
    limits: Limits


class Remembered(BaseModel):
    """An image that can be segmented again and again by its id, until it is forgotten."""

    image: str
    width: int
    height: int


class FoundClass(ServedClass):
    """A class, and how much of the image it is."""

    index: int
    share: float = Field(ge=0, le=1, description="Of the image's pixels")
    confidence: float = Field(ge=0, le=1, description="Mean over the class's pixels; 0 where there are none")


class Mask(BaseModel):
    """A class's pixels as compressed run lengths of COCO."""

    index: int
    name: str
    size: list[int]
    counts: str


class Segmented(BaseModel):
    """What a model found."""

    width: int
    height: int
    classes: list[FoundClass]
    labels: str | None = Field(
        None, description="PNG in base64: class indices, 255 for none; from 255 classes of 16 bits, 65535 for none"
    )
    confidence: str | None = Field(None, description="PNG in base64: 255 times the confidence")
    masks: list[Mask] | None = Field(None, description="Instead of the two, with format=rle")
    milliseconds: float = Field(description="That the model took, without waiting")
    encoded: bool = Field(description="Whether a forward pass was needed")


class SegmentAsk(BaseModel):
    """What to look for in an image."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"model": "default", "classes": ["car", "boat; ship"], "background": ["sky"], "settings": {}}]
        },
    )

    model: str = Field("default", max_length=100, description="Id of a model")
    classes: list[Name] | None = Field(
        None, description="Names, synonyms after ';'; those of the model where there are none"
    )
    background: list[Name] | None = Field(None, description="Words for what is none of the classes")
    settings: dict[str, Any] = Field(default_factory=dict, description=_SETTINGS)


class OneShot(SegmentAsk):
    """An image, and what to look for in it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={})

    image: str = Field(description="An image file in base64")
