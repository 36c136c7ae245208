"""The containers of a result: label maps, segments, and the pictures that show them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from patchword.errors import PatchwordError
from patchword.folders import write_bytes

IGNORE_COLOUR = (224, 224, 192)
_MOST_NAMES = 65535


def ignore_index(count: int) -> int:
    """The index that means "nobody says what this is" beside `count` names: 255 for fewer than 255, else 65535."""
    return 255 if count < 255 else 65535


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One class index a pixel.

    Attributes:
        indices: (h, w), each below len(names) or equal to `ignore`; any integer type is taken and kept as uint8 while
            there are fewer than 255 names, else as uint16.
        names: the classes' names, by index; at most 65,535.

    Raises:
        PatchwordError: for another shape or type, or an index that is neither a class nor ignore.
    """

    indices: NDArray[np.uint8] | NDArray[np.uint16]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) > _MOST_NAMES:
            raise PatchwordError(f"label map has {len(self.names)} names; allowed are {_MOST_NAMES} at most")
        _check_indices(self.indices, len(self.names), "label map")
        kind = np.uint8 if len(self.names) < 255 else np.uint16
        object.__setattr__(self, "indices", np.ascontiguousarray(self.indices, dtype=kind))

    @property
    def ignore(self) -> int:
        """The index of pixels without a class: 255 while there are fewer than 255 names, else 65535."""
        return ignore_index(len(self.names))

    def save(self, path: str | Path) -> None:
        """Write as PNG: 8-bit indexed with `palette` below 255 names, else 16-bit greyscale; the same bytes every time.

        Raises:
            PatchwordError: when it cannot be written.
        """
        image = Image.fromarray(self.indices)
        if self.indices.dtype == np.uint8:
            image.putpalette(_png_palette(len(self.names)))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, names: Sequence[str]) -> Self:
        """Read what `save` wrote, or any indexed or greyscale image whose values are class indices.

        Args:
            path: the image.
            names: the classes' names, by index.

        Raises:
            PatchwordError: when the file is not such an image or holds an index without a name, naming file and value.
        """
        indices = _read_indices(Path(path))
        if len(names) >= 255 and indices.dtype == np.uint8:
            raise PatchwordError(f"{path} is an 8-bit label map; {len(names)} names need a 16-bit one")
        _check_indices(indices, len(names), str(path))
        return cls(indices, tuple(names))


class RunLengths(TypedDict):
    """A mask in COCO's compressed run-length form."""

    size: list[int]
    counts: str


@dataclass(frozen=True)
class Segment:
    """One mask with its name and where it came from.

    Attributes:
        rle: the mask, COCO compressed, size as [height, width].
        class_index, class_name: what it shows.
        score: similarity x predicted IoU.
        predicted_iou: the mask proposer's own estimate, nominally in [0, 1].
        similarity: cosine with the class's text vector.
        generator: which part of labelling made it.
        points: prompt points (x, y) in pixels of the image.
        area: pixels inside.
        box: (x, y, width, height) in pixels; all 0 for an empty mask.
    """

    rle: RunLengths
    class_index: int
    class_name: str
    score: float
    predicted_iou: float
    similarity: float
    generator: str
    points: tuple[tuple[float, float], ...]
    area: int
    box: tuple[int, int, int, int]

    @classmethod
    def from_mask(
        cls,
        mask: NDArray[np.bool_],
        *,
        class_index: int,
        class_name: str,
        score: float,
        predicted_iou: float,
        similarity: float,
        generator: str,
        points: Sequence[tuple[float, float]] = (),
    ) -> Self:
        """Make a segment of a boolean mask (h, w); area and box are computed.

        Raises:
            PatchwordError: when the mask is not a non-empty array of two dimensions.
        """
        if mask.ndim != 2 or mask.size == 0:
            raise PatchwordError(f"mask has shape {mask.shape}; allowed is (height, width), both at least 1")
        encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return cls(
            rle={"size": [int(side) for side in mask.shape], "counts": encoded["counts"].decode("ascii")},
            class_index=int(class_index),
            class_name=class_name,
            score=float(score),
            predicted_iou=float(predicted_iou),
            similarity=float(similarity),
            generator=generator,
            points=tuple((float(x), float(y)) for x, y in points),
            area=int(coco_mask.area(encoded)),
            box=_box(encoded),
        )

    def mask(self) -> NDArray[np.bool_]:
        """The mask, (h, w)."""
        decoded: NDArray[np.bool_] = coco_mask.decode(dict(self.rle)).astype(bool)
        return decoded

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        record = asdict(self)
        record["points"] = [list(point) for point in self.points]
        record["box"] = list(self.box)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            PatchwordError: when a field is missing or is not what it should be.
        """
        try:
            return cls(
                rle={"size": [int(side) for side in record["rle"]["size"]], "counts": str(record["rle"]["counts"])},
                class_index=int(record["class_index"]),
                class_name=str(record["class_name"]),
                score=float(record["score"]),
                predicted_iou=float(record["predicted_iou"]),
                similarity=float(record["similarity"]),
                generator=str(record["generator"]),
                points=tuple((float(x), float(y)) for x, y in record["points"]),
                area=int(record["area"]),
                box=_four(record["box"]),
            )
        except KeyError as error:
            raise PatchwordError(f"segment has no field {error.args[0]!r}") from None
        except (TypeError, ValueError) as error:
            raise PatchwordError(f"segment cannot be read: {error}") from None


def palette(n: int) -> NDArray[np.uint8]:
    """Colours that are easy to tell apart, the same for a position whatever n is.

    Args:
        n: how many, 0 or more.

    Returns:
        (n, 3) uint8 RGB, all different.

    Source: the first 256 by farthest-point choice in CIE Lab (Glasbey et al., 2007); the rest only differ.
    """
    chosen = _distinct_colours()
    if n <= len(chosen):
        return chosen[:n].copy()
    return np.concatenate([chosen, _more_colours(n - len(chosen), chosen)])


def overlay(
    image: NDArray[np.uint8], label_map: LabelMap, *, opacity: float = 0.55, legend: bool = True
) -> Image.Image:
    """Paint a label map over its photograph, with a legend under it.

    Args:
        image: (h, w, 3) uint8.
        label_map: of the same size; ignore is hatched in black and white.
        opacity: of the colours, in [0, 1].
        legend: whether to add the names of the classes present, largest first.

    Returns:
        an RGB picture, (h, w) without legend, larger with one.

    Raises:
        PatchwordError: when sizes differ or the opacity is out of range.
    """
    height, width = label_map.indices.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise PatchwordError(f"image is {image.dtype} {image.shape}; the label map needs uint8 {(height, width, 3)}")
    if not 0 <= opacity <= 1:
        raise PatchwordError(f"opacity is {opacity}; allowed is 0 to 1")
    colours = palette(len(label_map.names))
    painted = _paint(image, label_map, colours, opacity)
    picture = Image.fromarray(painted)
    return _with_legend(picture, label_map, colours) if legend else picture


def _check_indices(indices: NDArray[Any], count: int, place: str) -> None:
    if indices.ndim != 2 or indices.size == 0 or indices.dtype.kind not in "ui":
        raise PatchwordError(
            f"{place} is {indices.dtype} of shape {indices.shape}; allowed are integers (height, width)"
        )
    ignore = ignore_index(count)
    wrong = (indices != ignore) & ((indices < 0) | (indices >= count))
    if wrong.any():
        value = int(indices[wrong][0])
        raise PatchwordError(f"{place} has index {value}; allowed are 0 to {count - 1}, and {ignore} for ignore")


def _read_indices(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I;16", "I;16B", "I"):
                raise PatchwordError(f"{path} is a picture of mode {image.mode}; a label map is indexed or greyscale")
            return np.array(image)
    except PatchwordError:
        raise
    except OSError as error:
        raise PatchwordError(f"cannot read label map {path}: {error.strerror or error}") from None
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        raise PatchwordError(f"cannot read label map {path}: {error}") from None


def _png_palette(count: int) -> bytes:
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[:count] = palette(count)
    colours[255] = IGNORE_COLOUR
    return colours.tobytes()


def _box(encoded: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return _four(coco_mask.toBbox(encoded))


def _four(values: Sequence[float] | NDArray[Any]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(value) for value in values)
    return x, y, width, height


@cache
def _distinct_colours(count: int = 256) -> NDArray[np.uint8]:
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    vivid = (lab[:, 0] > 30) & (lab[:, 0] < 90) & (chroma > 20)
    candidates, lab = candidates[vivid], lab[vivid]
    taken = _to_lab(np.array([(0, 0, 0), (255, 255, 255), IGNORE_COLOUR], dtype=np.uint8))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=2).min(axis=1)
    chosen = []
    for _ in range(count):
        best = int(distance.argmax())
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return np.stack(chosen)


def _more_colours(count: int, taken: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours that are not in `taken`: an odd factor visits every 24-bit colour once before it repeats."""
    order = np.arange(1, count + len(taken) + 1, dtype=np.uint64) * np.uint64(10368889) % np.uint64(1 << 24)
    packed = taken.astype(np.uint64) @ np.array([65536, 256, 1], dtype=np.uint64)
    free = order[~np.isin(order, packed)][:count]
    return np.stack([free >> np.uint64(shift) & np.uint64(255) for shift in (16, 8, 0)], axis=1).astype(np.uint8)


def _to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIE Lab (D65) of sRGB colours (n, 3)."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def _paint(
    image: NDArray[np.uint8], label_map: LabelMap, colours: NDArray[np.uint8], opacity: float
) -> NDArray[np.uint8]:
    named = label_map.indices != label_map.ignore
    painted = image.copy()
    tint = colours[label_map.indices[named]] * np.float32(opacity)  # (pixels, 3)
    painted[named] = np.rint(image[named] * np.float32(1 - opacity) + tint).astype(np.uint8)
    dark, light = _hatching(*label_map.indices.shape)
    painted[~named & dark] = 0
    painted[~named & light] = 255
    return painted


def _hatching(height: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Diagonal lines, dark beside light, so that they show on any picture; wider apart on larger ones."""
    line = max(1, round(min(height, width) / 250))
    position = (np.arange(height)[:, None] + np.arange(width)) % (8 * line)
    return position < line, (position >= line) & (position < 2 * line)


def _with_legend(picture: Image.Image, label_map: LabelMap, colours: NDArray[np.uint8]) -> Image.Image:
    """Add the classes present under the picture, in columns, so that nothing of it is hidden."""
    entries = _legend_entries(label_map, colours)
    size = min(28, max(13, round(max(picture.size) / 36)))
    font = ImageFont.load_default(size)
    line = round(size * 1.5)
    cell = 2 * line + max(math.ceil(font.getlength(text)) for text, _ in entries)
    columns = max(1, picture.width // cell)
    rows = math.ceil(len(entries) / columns)
    canvas = Image.new("RGB", (max(picture.width, cell), picture.height + line * rows + line // 2), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for position, (text, swatch) in enumerate(entries):
        x = position % columns * cell + line // 4
        y = picture.height + line // 4 + position // columns * line
        canvas.paste(Image.fromarray(_swatch(line - 6, swatch)), (x, y + 3))
        draw.text((x + line, y + line // 2), text, fill="black", font=font, anchor="lm")
    return canvas


def _legend_entries(label_map: LabelMap, colours: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8] | None]]:
    """(text, colour) of what the map holds, largest first; ignore last, without a colour."""
    values, areas = np.unique(label_map.indices, return_counts=True)
    total = label_map.indices.size
    entries: list[tuple[str, NDArray[np.uint8] | None]] = []
    for order in np.argsort(-areas, kind="stable"):
        value = int(values[order])
        if value != label_map.ignore:
            entries.append((f"{label_map.names[value]} {areas[order] / total:.0%}", colours[value]))
    if label_map.ignore in values:
        share = areas[values == label_map.ignore][0] / total
        entries.append((f"ignore {share:.0%}", None))
    return entries


def _swatch(side: int, colour: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    swatch = np.full((side, side, 3), 128 if colour is None else colour, dtype=np.uint8)
    if colour is None:
        dark, light = _hatching(side, side)
        swatch[dark], swatch[light] = 0, 255
    return swatch
