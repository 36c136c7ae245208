"""How results show themselves in a notebook: a picture or two, facts and a table, as a piece of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.visualization.overlays import overlay
from patchword.visualization.pages import encoded, render_page

_MOST_ROWS = 20
_SIDE = 720  # of a picture at most, so that a notebook of many stays light


def notebook_html(
    title: str,
    *,
    facts: Sequence[tuple[str, str]] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    colours: Mapping[str, str] | None = None,
) -> str:
    """A result as HTML that needs no other file.

    Args:
        title: what it is.
        facts: name and value of what to know first.
        pictures: caption and PNG or JPEG file of each.
        columns: headings of the table; text in the first, numbers in the others.
        rows: its cells; of more than 20 rows the rest is counted.
        colours: of the first cells, as CSS has them, where they are classes with a colour.
    """
    return render_page(
        "notebook",
        title=title,
        facts=facts,
        pictures=pictures,
        columns=columns,
        rows=rows[:_MOST_ROWS],
        more=max(0, len(rows) - _MOST_ROWS),
        colours=colours or {},
    )


def notebook_picture(image: NDArray[np.uint8], label_map: LabelMap, *, side: int = _SIDE, legend: bool = True) -> bytes:
    """PNG of a label map over its photograph (h, w, 3) uint8, reduced to `side` pixels at most."""
    height, width = label_map.indices.shape
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        height, width = (max(1, round(length * scale)) for length in (height, width))
        indices = Image.fromarray(label_map.indices).resize((width, height), Image.Resampling.NEAREST)
        label_map = LabelMap(np.asarray(indices), label_map.names, label_map.colours)
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    return encoded(overlay(image, label_map, legend=legend), "PNG")
