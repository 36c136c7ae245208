"""The pictures that show a label map to a person: overlay and legend."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.data.masks import LabelMap

_LONGEST_NAME = 40
_STRIP = 32  # rows that are painted at once, so that all of them stay in a processor's cache
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
    """
    height, width = label_map.indices.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise PatchwordError(f"image is {image.dtype} {image.shape}; the label map needs uint8 {(height, width, 3)}")
    if not 0 <= opacity <= 1:
        raise PatchwordError(f"opacity is {opacity}; it must be 0 to 1")
    colours = label_map.class_colours()
    shares = _shares(label_map)
    below = _legend_below(label_map, colours, shares) if legend else None
    picture = np.full(
        (height + (below.height if below else 0), max(width, below.width if below else 0), 3), 255, np.uint8
    )
    _paint(image, label_map, colours, opacity, present=[value for value, _ in shares], out=picture[:height, :width])
    if below:
        picture[height:] = np.asarray(below)
    return Image.fromarray(picture)


def _paint(
    image: NDArray[np.uint8],
    label_map: LabelMap,
    colours: NDArray[np.uint8],
    opacity: float,
    *,
    present: Sequence[int],
    out: NDArray[np.uint8],
) -> None:
    """Tint the values of each class by a table; what is ignored stays, turns black or turns white."""
    values, ignore = np.arange(256, dtype=np.uint8)[:, None], label_map.ignore
    named = [value for value in present if value != ignore]
    tints = (colours[value] * np.float32(opacity) for value in named)
    tables = [np.rint(values * np.float32(1 - opacity) + tint).astype(np.uint8) for tint in tints]
    tables += [values.repeat(3, axis=1), np.zeros((256, 3), dtype=np.uint8), np.full((256, 3), 255, dtype=np.uint8)]
    channels = np.ascontiguousarray(np.concatenate(tables).T)  # (3, tables * 256)
    first_of = np.zeros(ignore + 1, dtype=np.intp)  # where the table of each class begins
    first_of[[*named, ignore]] = np.arange(len(named) + 1) * 256
    height, width = label_map.indices.shape
    for top in range(0, height, _STRIP):
        rows = slice(top, min(top + _STRIP, height))
        first = first_of[label_map.indices[rows]]
        if ignore in present:
            dark, light = _hatching(height, width, rows=rows)
            first += np.where(label_map.indices[rows] == ignore, 256 * dark + 512 * light, 0)
        for channel, table in enumerate(channels):
            np.take(table, first + image[rows, :, channel], out=out[rows, :, channel], mode="clip")


def mask_layer(label_map: LabelMap, *, opacity: float) -> Image.Image:
    """A label map as an RGBA picture to lie over its photograph; ignore is hatched as in `overlay`."""
    indices = label_map.indices
    layer = np.zeros((*indices.shape, 4), dtype=np.uint8)
    named = indices != label_map.ignore
    layer[named, :3] = label_map.class_colours()[indices[named]]
    layer[named, 3] = round(255 * opacity)
    dark, light = _hatching(*indices.shape)
    layer[~named & dark] = (0, 0, 0, 255)
    layer[~named & light] = 255
    return Image.fromarray(layer)


def _hatching(height: int, width: int, *, rows: slice | None = None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Diagonal lines, dark beside light, so that they show on any picture; wider apart on larger ones."""
    line = max(1, round(min(height, width) / 250))
    position = (np.arange(height)[rows or slice(None), None] + np.arange(width)) % (8 * line)
    return position < line, (position >= line) & (position < 2 * line)


def legend(classes: Sequence[tuple[str, NDArray[np.uint8] | None]], *, width: int, height: int) -> Image.Image:
    """Names beside their colours, in columns, to stand under a picture.

    Args:
        classes: name and colour (3,) of each; no colour for what is hatched.
        width, height: of the picture in pixels.

    Returns:
        an RGB picture of that width, or wider where a name needs it.
    """
    size = _letter_size(width, height)
    entries = [drawable(_shortened(name), f"class {number}", size) for number, (name, _) in enumerate(classes)]
    return _drawn_legend(entries, [colour for _, colour in classes], width=width, size=size)


def _letter_size(width: int, height: int) -> int:
    side = max(width, height)
    return round(max(13, min(28, side / 36), side / 90))  # of a large photograph too, on a screen that shows all of it


def _drawn_legend(
    entries: Sequence[tuple[str, _Font]], colours: Sequence[NDArray[np.uint8] | None], *, width: int, size: int
) -> Image.Image:
    line = round(size * 1.5)
    cell = 2 * line + max((math.ceil(font.getlength(text)) for text, font in entries), default=0)
    columns = max(1, width // cell)
    rows = math.ceil(len(entries) / columns)
    canvas = Image.new("RGB", (max(width, cell), line * rows + line // 2), "white")
    draw = ImageDraw.Draw(canvas)
    for position, ((text, font), colour) in enumerate(zip(entries, colours, strict=True)):
        x = line // 4 + position % columns * cell
        y = line // 4 + position // columns * line
        canvas.paste(Image.fromarray(_swatch(line - 6, colour)), (x, y + 3))
        draw.text((x + line, y + line // 2), text, fill="black", font=font, anchor="lm")
    return canvas


def _legend_below(label_map: LabelMap, colours: NDArray[np.uint8], shares: Sequence[tuple[int, float]]) -> Image.Image:
    """The classes present, to stand under the picture, so that nothing of it is hidden."""
    height, width = label_map.indices.shape
    size = _letter_size(width, height)
    entries = [_legend_entry(label_map, value, share, size) for value, share in shares]
    shown = [None if value == label_map.ignore else colours[value] for value, _ in shares]
    return _drawn_legend(entries, shown, width=width, size=size)


def _shares(label_map: LabelMap) -> list[tuple[int, float]]:
    """(index, share of the pixels) of what the map holds, largest first, ignore last."""
    counts = label_map.counts()
    found = [(value, int(counts[value])) for value in np.flatnonzero(counts).tolist()]
    found.sort(key=lambda entry: (entry[0] == label_map.ignore, -entry[1], entry[0]))
    return [(value, area / label_map.indices.size) for value, area in found]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def _legend_entry(label_map: LabelMap, value: int, share: float, size: int) -> tuple[str, _Font]:
    name = _shortened("ignore" if value == label_map.ignore else label_map.names[value])
    percent = "<1%" if share < 0.005 else f"{share:.0%}"
    text, font = drawable(name, f"class {value}", size)
    return f"{text}, {percent}", font


def drawable(name: str, stand_in: str, size: int) -> tuple[str, _Font]:
    """The name and a font that has all its letters; failing that without accents; failing that the stand-in."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    for text in (name, plain):
        for font in _fonts(size):
            if all(_has_glyph(font, letter) for letter in set(text)):
                return text, font
    return stand_in, _fonts(size)[0]


@cache
def _fonts(size: int) -> list[_Font]:
    """Pillow's own font, the same everywhere, then those of the system that cover more alphabets."""
    fonts: list[_Font] = [ImageFont.load_default(size)]
    for file_name in _SYSTEM_FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(file_name, size))
    return fonts


def _has_glyph(font: _Font, letter: str) -> bool:
    """Whether a font draws a letter otherwise than one that no font has."""
    if letter.isspace():
        return True
    drawn, missing = font.getmask(letter), font.getmask("\U0010ffff")
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _swatch(side: int, colour: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A square of the colour; without one, of the hatching that marks ignore."""
    swatch = np.full((side, side, 3), 128 if colour is None else colour, dtype=np.uint8)
    if colour is None:
        dark, light = _hatching(side, side)
        swatch[dark], swatch[light] = 0, 255
    return swatch
