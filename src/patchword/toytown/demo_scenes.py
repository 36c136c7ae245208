"""The demo's scenes on disk: photographs, and exact masks beside them that only evaluation and the oracle open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.toytown.classes import CLASSES, SEEN, UNSEEN
from patchword.toytown.world import Scene, draw_scene, scene_seed

SIZE = 192
ALL = SEEN + UNSEEN
"""Every class, the ones that labelling and alignment never hear of last."""


@dataclass(frozen=True)
class Place:
    """One set of scenes.

    Attributes:
        photos: folder of the pictures.
        seen: folder of masks whose values are positions in `SEEN`; other pixels are ignored.
        every: folder of masks whose values are positions in `ALL`.
    """

    photos: Path
    seen: Path
    every: Path


def draw(
    folder: Path, name: str, *, purpose: str, count: int, first: int, style: str, part: range | None = None
) -> Place:
    """Draw scenes and their masks.

    Args:
        folder: of the demo.
        name: of the set.
        purpose: whose range of seeds is drawn from.
        count: scenes.
        first: index of the first one's seed in that range.
        style: "day" or "dusk".
        part: which of them are drawn now; all without it.
    """
    place = Place(folder / name, folder / "truth" / name / "seen", folder / "truth" / name / "all")
    for path in (place.photos, place.seen, place.every):
        path.mkdir(parents=True, exist_ok=True)
    for index in part or range(count):
        scene = draw_scene(scene_seed(purpose, index=first + index), size=SIZE, style=style)
        file = f"{index:05d}.png"
        Image.fromarray(scene.image).save(place.photos / file)
        every = _positions(scene)
        LabelMap(every, ALL).save(place.every / f"{file}.png")
        LabelMap(np.where(every < len(SEEN), every, np.uint8(255)), SEEN).save(place.seen / f"{file}.png")
    return place


def _positions(scene: Scene) -> NDArray[np.uint8]:
    """Exact classes as positions in `ALL`."""
    order = np.array([ALL.index(name) for name in CLASSES], dtype=np.uint8)
    positions: NDArray[np.uint8] = order[scene.classes]
    return positions
