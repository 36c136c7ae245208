"""What somebody pointed at in Label Studio: points and rectangles, as the mask generator takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchword.config.base import one_line
from patchword.errors import PatchwordError

_POINT, _BOX = ("keypoint", "keypointlabels"), ("rectangle", "rectanglelabels")
_MOST = 64
Percent = Annotated[float, Field(ge=0, le=100)]


class _Value(BaseModel):
    """Numbers in percent of the picture's sides, and the label under the type's own name."""

    model_config = ConfigDict(allow_inf_nan=False)

    x: Percent
    y: Percent
    width: Percent = 0.0
    height: Percent = 0.0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []


class _Region(BaseModel):
    type: str
    value: _Value
    to_name: str | None = None
    is_positive: bool = True


class _Context(BaseModel):
    result: list[_Region] = Field(min_length=1)


@dataclass(frozen=True)
class Pointed:
    """What was pointed at.

    Attributes:
        label: of the thing.
        image: name of the picture in the interface; none where it is not said.
        points: x, y in shares of the sides, in [0, 1].
        inside: of each point, whether it is in the thing.
        box: x0, y0, x1, y1 in shares of the sides; the last rectangle.
    """

    label: str
    image: str | None
    points: tuple[tuple[float, float], ...]
    inside: tuple[bool, ...]
    box: tuple[float, float, float, float] | None

    def in_pixels(self, size: tuple[int, int]) -> dict[str, Any]:
        """Points, labels and box as `SamMaskGenerator.mask_at` takes them, for a picture of (height, width)."""
        height, width = size
        points = [(x * width, y * height) for x, y in self.points]
        sides = (width, height, width, height)
        box = None if self.box is None else tuple(each * side for each, side in zip(self.box, sides, strict=True))
        return {"points": points, "labels": self.inside, "box": box}


def read_context(context: object) -> Pointed:
    """Read what Label Studio sends with a task when somebody clicks."""
    try:
        regions = _Context.model_validate(context).result
    except ValidationError as error:
        raise PatchwordError(one_line(error, place="context")) from None
    if len(regions) > _MOST:
        raise PatchwordError(f"the context has {len(regions)} regions; {_MOST} is the limit")
    odd = next((each.type for each in regions if each.type not in (*_POINT, *_BOX)), None)
    if odd is not None:
        raise PatchwordError(f"a region of the context is of type {odd!r}; points and rectangles are answered")
    labels = [name for each in regions for name in (*each.value.keypointlabels, *each.value.rectanglelabels)]
    if not labels:
        raise PatchwordError("the click comes without a label; use KeyPointLabels or RectangleLabels")
    clicks = [each for each in regions if each.type in _POINT]
    boxes = [each.value for each in regions if each.type in _BOX]
    return Pointed(
        label=labels[-1],
        image=regions[-1].to_name,
        points=tuple((each.value.x / 100, each.value.y / 100) for each in clicks),
        inside=tuple(each.is_positive for each in clicks),
        box=_corners(boxes[-1]) if boxes else None,
    )


def _corners(box: _Value) -> tuple[float, float, float, float]:
    return box.x / 100, box.y / 100, min(1.0, (box.x + box.width) / 100), min(1.0, (box.y + box.height) / 100)
