"""What became of an image that was segmented tile by tile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class OnEarth:
    """What is known of a result with a georeference.

    Attributes:
        crs: the system's name, or its text where it has none; None where the file names no system.
        transform: the six numbers from pixels to its coordinates, row by row.
        pixel_square_metres: area of a pixel on the map plane; None in degrees or without a system.
        value_range: values of the file that were shown as 0 and 255; None for 8 bits as they are.
    """

    crs: str | None
    transform: tuple[float, ...]
    pixel_square_metres: float | None
    value_range: tuple[float, float] | None


@dataclass(frozen=True)
class LargeFacts:
    """What became of a large image.

    Attributes:
        size: (height, width) in pixels.
        names: of the mask's values, from 0.
        pixels: of each class that is there, in the order of the classes.
        ignored: pixels of no class.
        mean_confidence: over the pixels that are valid; None when none is.
        tiles: how many there are.
        mask: its path in the folder, with forward slashes.
        on_earth: where it lies; None without a georeference.
    """

    size: tuple[int, int]
    names: tuple[str, ...]
    pixels: dict[str, int]
    ignored: int
    mean_confidence: float | None
    tiles: int
    mask: str
    on_earth: OnEarth | None

    @property
    def square_metres(self) -> dict[str, float] | None:
        """Of each class that is there; None where areas are not known."""
        area = None if self.on_earth is None else self.on_earth.pixel_square_metres
        return None if area is None else {name: round(count * area, 3) for name, count in self.pixels.items()}

    def sidecar(self) -> dict[str, Any]:
        """For the JSON file beside a mask with a georeference."""
        values = asdict(self)
        return {**values, **(values.pop("on_earth") or {}), "square_metres": self.square_metres}
