"""Pictures of an evaluation: the images of lowest score side by side with their truth, and the confusion matrix."""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchword.data.folders import write_bytes
from patchword.data.images import read_image
from patchword.data.masks import LabelMap, ignore_index
from patchword.errors import PatchwordError
from patchword.evaluation.confusion import Counts, Indices
from patchword.evaluation.masks import Pair
from patchword.evaluation.records import ImageScore, SetupRecord, colours_of
from patchword.runs.pipeline import why_unwritten
from patchword.visualization.overlays import drawable, overlay

FAILURES_FOLDER = "worst"
PANELS = ("photograph", "mask", "prediction", "errors")
WRONG, MISSED = (214, 39, 40), (255, 191, 0)
GAP = 6  # pixels of white between the panels
_OPACITY, _PALE = 0.6, 0.35


@dataclass(frozen=True)
class FailureCase:
    """One of the images of lowest score; `picture` is a JPEG of the four panels in a row, None where it is gone."""

    record: ImageScore
    picture: bytes | None


class FailureCases:
    """Keeps the pictures of the images that score lowest so far, in a folder of their own.

    An image that is among the lowest of all is among the lowest of any part of them: so its picture is there at the
    end, also after a run that was stopped and resumed, and where shards are put together.
    """

    def __init__(self, folder: Path, *, setup: SetupRecord, known: Iterable[ImageScore] = ()) -> None:
        self._folder = folder
        self._classes = setup.classes
        self._colours = colours_of(setup.classes, vocabulary=setup.vocabulary.text)
        self._scoring = setup.scoring
        self._lowest: list[ImageScore] = []
        for record in known:
            self._admit(record)

    def offer(self, pair: Pair, record: ImageScore, *, maps: tuple[Indices, Indices]) -> None:
        """Draw an image if it is among the lowest so far; `maps` (h, w) are prediction and mask, -1 for none."""
        if not self._admit(record):
            return
        try:
            write_bytes(self.path(self._folder, record.name), self._draw(pair, *maps))
        except PatchwordError as error:
            why_unwritten(error, folder=self._folder)  # a name that no file can have costs the picture, not the score

    def pictures(self) -> tuple[FailureCase, ...]:
        return tuple(FailureCase(record, self._read(record.name)) for record in self._lowest)

    def prune(self) -> None:
        """Remove the pictures of images that were among the lowest only for a while."""
        place = self._folder / FAILURES_FOLDER
        if not place.is_dir():
            return
        wanted = {self.path(self._folder, name) for name in self.names()}
        for path in sorted(place.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in wanted:
                path.unlink()
        if not any(place.iterdir()):
            place.rmdir()

    def names(self) -> list[str]:
        """Of the images, the lowest first."""
        return [record.name for record in self._lowest]

    def _admit(self, record: ImageScore) -> bool:
        """Whether an image is among the lowest so far; the one that it displaces is forgotten."""
        if record.score is None or not self._scoring.worst:
            return False
        if record.name not in self.names():
            bisect.insort(self._lowest, record, key=lambda each: (each.score, each.name))
            del self._lowest[self._scoring.worst :]
        return record.name in self.names()

    @staticmethod
    def path(folder: Path, name: str) -> Path:
        return folder / FAILURES_FOLDER / f"{name}.jpg"

    def _read(self, name: str) -> bytes | None:
        try:
            return self.path(self._folder, name).read_bytes()
        except OSError:
            return None

    def _draw(self, pair: Pair, predicted: Indices, expected: Indices) -> bytes:
        height, width = expected.shape
        scale = min(1.0, self._scoring.picture_side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        photograph = _photograph(pair, size)
        seen, wanted = _reduced(predicted, size), _reduced(expected, size)
        seen[wanted < 0] = -1
        panels = [
            photograph,
            self._painted(photograph, wanted),
            self._painted(photograph, seen),
            _errors(photograph, seen, wanted),
        ]
        strip = np.full((size[0], 4 * size[1] + 3 * GAP, 3), 255, dtype=np.uint8)
        for position, panel in enumerate(panels):
            start = position * (size[1] + GAP)
            strip[:, start : start + size[1]] = panel
        stream = io.BytesIO()
        quality = self._scoring.picture_quality
        Image.fromarray(strip).save(stream, format="JPEG", quality=quality, optimize=True)
        return stream.getvalue()

    def _painted(self, photograph: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.uint8]:
        label_map = LabelMap(
            np.where(labels < 0, ignore_index(len(self._classes)), labels), self._classes, self._colours
        )
        return np.asarray(overlay(photograph, label_map, opacity=_OPACITY, legend=False))


def _photograph(pair: Pair, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w, 3) at the size wanted; grey where it cannot be read, for predictions can be scored without it."""
    try:
        image = Image.fromarray(read_image(pair.photo))
    except PatchwordError:
        return np.full((*size, 3), 128, dtype=np.uint8)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=2.0))


def _reduced(labels: Indices, size: tuple[int, int]) -> NDArray[Any]:
    """The label at the middle of each new pixel."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


def _errors(photograph: NDArray[np.uint8], seen: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.uint8]:
    """The photograph in pale grey, with what is wrong in red and what has no prediction in yellow."""
    grey = photograph.mean(axis=2) * _PALE + 255 * (1 - _PALE)
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    counts = wanted >= 0
    picture[counts & (seen >= 0) & (seen != wanted)] = WRONG
    picture[counts & (seen < 0)] = MISSED
    return picture


CONFUSION_PICTURE = "confusion.png"
_RIGHT, _WRONG, _EMPTY, _LINE = (8, 69, 148), (166, 30, 20), (238, 238, 238), (210, 210, 210)
_LONGEST_NAME = 28
_PAD = 8  # pixels around everything


@dataclass(frozen=True)
class _Layout:
    """Side of a cell and size of letters in pixels, and whether cells are large enough for their percentage."""

    cell: int
    font: int
    numbers: bool

    @classmethod
    def of(cls, count: int) -> _Layout:
        if count <= 32:
            return cls(cell=36, font=15, numbers=True)
        if count <= 80:
            return cls(cell=20, font=14, numbers=False)
        return cls(cell=14, font=12, numbers=False)


def draw_confusion(table: Counts, *, names: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG file: a row a class of the masks, a column a class of the predictions.

    The colour is the share of a row's pixels, on a scale that shows small shares too: blue where right, red where
    wrong. Classes in neither masks nor predictions are left out; a row of grey is a class that no mask has.
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
