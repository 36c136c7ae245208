"""HTML pages from the templates beside this file, and the small pictures that they embed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.visualization.overlays import mask_layer

if TYPE_CHECKING:
    from jinja2 import Environment

_MARK = b"name='generator' content='patchword'"


def render_page(template: str, **values: object) -> str:
    """Fill `templates/TEMPLATE.html.jinja`; the same values give the same text.

    Letters that no file can hold, as odd file names have them, become question marks.
    """
    text = _environment().get_template(f"{template}.html.jinja").render(values)
    return text.encode("utf-8", errors="replace").decode("utf-8")


def is_page(path: Path) -> bool:
    """Whether patchword wrote a file as a page."""
    with path.open("rb") as file:
        return _MARK in file.read(2000)


@cache
def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("patchword.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "number": number,
        "percent": percent,
        "points": lambda value: "–" if value is None else f"{100 * value:.1f}",
        "share": share,
        "interval": lambda ends: "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %",
        "thousands": "{:,}".format,
        "counted": lambda count, word: f"{count:,} {word}{'' if count == 1 else 's'}",
        "title_of": lambda name: str(name).replace("_", " "),
        "plain": _plain,
        "data_uri": _data_uri,
        "hex": hex_colour,
    }
    environment.filters |= filters
    return environment


def number(value: float | None) -> str:
    """A score with three digits; a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """A share of one in per cent: whole ones, and below one a digit that is not zero."""
    return f"{100 * share:.1g} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def share(value: float | None) -> str:
    """A share of one in per cent with one decimal, or with the first digit that is not 0; a dash for none."""
    if value is None:
        return "–"
    return f"{100 * value:.1g} %" if 0 < value < 0.00095 else f"{100 * value:.1f} %"


def hex_colour(colour: Iterable[int]) -> str:
    """A colour as CSS has it."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def colours_by_name(vocabulary: Vocabulary) -> dict[str, str]:
    """The classes' colours as CSS has them."""
    return {
        name: hex_colour(colour) for name, colour in zip(vocabulary.names, vocabulary.colours.tolist(), strict=True)
    }


def class_positions(present: Container[str], *, names: Sequence[str]) -> str:
    """Positions of the classes that are there, each between blanks, as the filter of a page wants them."""
    return " ".join(["", *(str(index) for index, name in enumerate(names) if name in present), ""])


def _plain(value: object) -> str:
    if value is None or value == "":
        return "none" if value is None else "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


@dataclass(frozen=True)
class Labelled:
    """A photograph and its labels as small pictures of one size.

    Attributes:
        photograph: JPEG; None where it could not be made.
        labels: PNG that lies over it, half transparent.
        missing: why there are no pictures; empty otherwise.
    """

    photograph: bytes | None = None
    labels: bytes | None = None
    missing: str = ""


def small_pictures(
    photograph: NDArray[np.uint8], labels: LabelMap, *, colours: NDArray[np.uint8], side: int, quality: int
) -> Labelled:
    """Reduce a photograph and its labels.

    Args:
        photograph: (h, w, 3) uint8.
        labels: of the same size.
        colours: (n, 3) uint8, of the labels' classes.
        side: at most so many pixels, the longer side.
        quality: of the JPEG compression, 1 to 95.
    """
    if photograph.shape[:2] != labels.indices.shape:
        raise PatchwordError("the photograph has another size than its labels")
    image = Image.fromarray(photograph)
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), labels.indices.shape, strict=True)
    )
    small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    layer = mask_layer(LabelMap(labels.indices[np.ix_(rows, columns)], labels.names, colours), opacity=0.6)
    return Labelled(encoded(small, "JPEG", quality=quality, optimize=True), encoded(layer, "PNG", optimize=True))


def encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    """A picture as a file."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()
