"""What the server shows where nobody names a model: the demo's segmenter, two methods without training, and scenes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from patchword.data.vocabulary import Vocabulary
from patchword.models.protocols import MaskGenerator
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.opening import open_segmenter
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN, SYNONYMS
from patchword.toytown.world import draw_scene, scene_seed

SETTINGS = {"image_size": 192, "window": 64, "stride": 32}
"""How the miniature CLIP sees best: in windows of its own size."""
EXAMPLES = {
    "toytown-1": "A scene by day",
    "toytown-2": "Another scene by day",
    "toytown-3": "A third scene by day",
    "toytown-4": "A scene at dusk",
}
"""Ids of scenes -> their titles."""
_DUSK = "toytown-4"
_SIZE = (240, 320)


def open_segmenters(
    *, mask_generator: str | Path | MaskGenerator | None, **where: Any
) -> Iterator[tuple[str, AnySegmenter, dict[str, int]]]:
    """Names, segmenters and settings of what the demo trains and of two methods without training, to compare.

    Args:
        mask_generator: SAM; the miniature by default.
        where: `device` and `dtype`, as of `open_segmenter`.
    """
    where["mask_generator"] = mask_generator or miniatures.SAM
    parts: dict[str, Any] = {"encoder": miniatures.DINO, "text_encoder": miniatures.CLIP}
    yield "Toytown", open_segmenter(miniatures.SEGMENTER, **parts, **where), {}
    for method, encoder in (("naclip", None), ("proxyclip", miniatures.DINO)):
        parts = {"image_text": miniatures.CLIP, "encoder": encoder}
        yield f"Toytown {method}", open_segmenter(method=method, **parts, **where), SETTINGS


def vocabulary() -> Vocabulary:
    """The classes of the scenes, with synonyms."""
    return Vocabulary.of([f"{name}; {SYNONYMS[name]}" if name in SYNONYMS else name for name in SEEN])


@cache
def draw_example(name: str) -> bytes:
    """A scene of `EXAMPLES`, drawn when it is first asked for, as a PNG file."""
    style = "dusk" if name == _DUSK else "day"
    scene = draw_scene(scene_seed("test", index=list(EXAMPLES).index(name)), size=_SIZE, style=style)
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, format="PNG")
    return buffer.getvalue()
