"""Scenes drawn ahead of training, so that drawing does not slow the steps down."""

from __future__ import annotations

import numpy as np

from patchword.toytown.world import Scene, draw_scene, scene_seed


def style_of(index: int, *, dusk_every: int) -> str:
    """Day for most scenes, dusk for every so manyth (0 = never)."""
    return "dusk" if dusk_every and index % dusk_every == dusk_every - 1 else "day"


def draw_pool(purpose: str, *, count: int, size: int = 192, dusk_every: int = 4, first: int = 0) -> list[Scene]:
    """Draw scenes of one purpose.

    Args:
        purpose: whose seeds; see `seeds.PURPOSES`.
        count: number of scenes; 192 pixels take about 190 KB each.
        size: side in pixels.
        dusk_every: every so manyth scene is drawn at dusk; 0 for none.
        first: index of the first scene within the purpose.

    Returns:
        the scenes in order.
    """
    return [
        draw_scene(scene_seed(purpose, index=index), size=size, style=style_of(index, dusk_every=dusk_every))
        for index in range(first, first + count)
    ]


def stack_images(scenes: list[Scene]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Stack the pictures of scenes of one size to (n, h, w, 3) uint8."""
    return np.stack([scene.image for scene in scenes])
