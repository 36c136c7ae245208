"""The confusion matrix as a picture: which classes are taken for which."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.evaluation.confusion import Counts
from patchword.visualization.overlays import drawable

CONFUSION_PICTURE = "confusion.png"
_RIGHT, _WRONG, _EMPTY, _LINE = (8, 69, 148), (166, 30, 20), (238, 238, 238), (210, 210, 210)
_LONGEST_NAME = 28
_PAD = 8  # pixels around everything


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels.

    Attributes:
        cell: side of a cell.
        font: size of letters.
        numbers: whether cells are large enough for their percentage.
    """

    cell: int
    font: int
    numbers: bool

    @classmethod
    def of(cls, count: int) -> _Layout:
        """Sizes at which `count` classes can be read."""
        if count <= 32:
            return cls(cell=36, font=15, numbers=True)
        if count <= 80:
            return cls(cell=20, font=14, numbers=False)
        return cls(cell=14, font=12, numbers=False)


def draw_confusion(table: Counts, *, names: Sequence[str]) -> bytes:
    """Draw a confusion matrix: a row a class of the masks, a column a class of the predictions.

    The colour is the share of a row's pixels, on a scale that shows small shares too: blue where right, red where
    wrong. Classes in neither masks nor predictions are left out; a row of grey is a class that no mask has.

    Args:
        table: (n, n + 1) pixels, rows truth, columns prediction, the last column no prediction.
        names: of the n classes.

    Returns:
        a PNG file.
    """
    present = np.flatnonzero(table.any(axis=1) | table[:, :-1].any(axis=0))
    columns = [*present.tolist(), *([len(names)] if table[:, -1].any() else [])]
    counts = table[present][:, columns].astype(np.float64)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)  # (classes, columns)
    layout = _Layout.of(len(present))
    labels = [*names, "no prediction"]
    picture = _assemble(
        shares, layout, down=[labels[row] for row in present], across=[labels[column] for column in columns]
    )
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _assemble(shares: NDArray[np.float64], layout: _Layout, *, down: list[str], across: list[str]) -> Image.Image:
    """The matrix with its title above, names on the left and above, and on large ones on the right and below too."""
    left = [_name(name, layout) for name in down]
    above = [_name(name, layout).rotate(90, expand=True) for name in across]
    margin = max((name.width for name in left), default=0) + _PAD
    head = max((name.height for name in above), default=0) + _PAD
    both = len(down) > 32
    title = _title(layout)
    top = _PAD + title.height + _PAD + head
    width = _PAD + margin + layout.cell * len(across) + (margin if both else 0) + _PAD
    height = top + layout.cell * len(down) + (head if both else 0) + _PAD
    canvas = Image.new("RGB", (max(width, title.width + 2 * _PAD), height), "white")
    canvas.paste(title, (_PAD, _PAD))
    origin = (_PAD + margin, top)
    if shares.size:
        canvas.paste(_cells(shares, layout), origin)
    for position, name in enumerate(left):
        middle = origin[1] + position * layout.cell + (layout.cell - name.height) // 2
        canvas.paste(name, (origin[0] - _PAD // 2 - name.width, middle))
        if both:
            canvas.paste(name, (origin[0] + layout.cell * len(across) + _PAD // 2, middle))
    for position, name in enumerate(above):
        middle = origin[0] + position * layout.cell + (layout.cell - name.width) // 2
        canvas.paste(name, (middle, origin[1] - _PAD // 2 - name.height))
        if both:
            canvas.paste(name, (middle, origin[1] + layout.cell * len(down) + _PAD // 2))
    return canvas


def _cells(shares: NDArray[np.float64], layout: _Layout) -> Image.Image:
    rows, columns = shares.shape
    known = ~np.isnan(shares)
    strength = np.sqrt(np.where(known, shares, 0))[..., None]
    ink = np.where(np.eye(rows, columns, dtype=bool)[..., None], _RIGHT, _WRONG)
    colours = np.where(known[..., None], 255 + (ink - 255) * strength, _EMPTY).round().astype(np.uint8)
    pixels = colours.repeat(layout.cell, axis=0).repeat(layout.cell, axis=1)
    pixels[:: layout.cell] = _LINE
    pixels[:, :: layout.cell] = _LINE
    picture = Image.fromarray(pixels)
    if layout.numbers:
        _write_numbers(picture, shares, layout)
    return picture


def _write_numbers(picture: Image.Image, shares: NDArray[np.float64], layout: _Layout) -> None:
    """Whole percentages, where they are not 0."""
    draw = ImageDraw.Draw(picture)
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.005).tolist():
        share = shares[row, column]
        text, font = drawable(f"{100 * share:.0f}", "", layout.font - 2)
        middle = ((column + 0.5) * layout.cell, (row + 0.5) * layout.cell)
        draw.text(middle, text, fill="white" if share > 0.2 else "black", font=font, anchor="mm")


def _name(name: str, layout: _Layout) -> Image.Image:
    """A class's name on white."""
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
    return _text(short, layout.font)


def _title(layout: _Layout) -> Image.Image:
    return _text("rows: masks, columns: predictions, in % of the row's pixels", layout.font)


def _text(words: str, size: int) -> Image.Image:
    text, font = drawable(words, "?", size)
    width = int(np.ceil(font.getlength(text)))
    picture = Image.new("RGB", (max(1, width), round(size * 1.2)), "white")
    ImageDraw.Draw(picture).text((0, picture.height // 2), text, fill="black", font=font, anchor="lm")
    return picture
