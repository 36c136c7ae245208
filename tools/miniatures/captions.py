"""What a person might write under a scene or a piece of it: the large and the near, not everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchword.toytown.world import Scene

_OPENINGS = (
    "a photo of",
    "a picture of",
    "a drawing of",
    "art of",
    "itap of",
    "a bad photo of",
    "a origami",
    "a painting of",
    "an image of",
    "",
)
_SIZES = ("small", "large")


def describe(
    scene: Scene, *, generator: np.random.Generator, window: tuple[int, int, int, int] | None = None, most: int = 3
) -> str:
    """Name some of what a scene, or a window of it, shows.

    Args:
        scene: the scene.
        generator: source of what is mentioned.
        window: left, top, width, height in pixels; the whole scene without it.
        most: at most so many things and regions are mentioned.

    Returns:
        "the red car, grass and a bird"; a thing is likelier mentioned the more of the window it fills, and a region of
        stuff about as often as a thing a fifth of its size. Empty when nothing fills enough of the window.
    """
    instances = scene.instances
    if window is not None:
        left, top, width, height = window
        instances = instances[top : top + height, left : left + width]
    phrases, weights = _candidates(scene, instances, generator)
    if not phrases:
        return ""
    count = min(len(phrases), 1 + int(generator.integers(most)))
    order = generator.choice(len(phrases), count, replace=False, p=weights / weights.sum())
    named = [phrases[int(position)] for position in order]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]


def caption(content: str, *, generator: np.random.Generator) -> str:
    """Put a description into a sentence, such as "a drawing of the red car and grass."."""
    opening = _OPENINGS[int(generator.integers(len(_OPENINGS)))]
    return f"{opening} {content}.".strip()


def _candidates(
    scene: Scene, instances: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[list[str], NDArray[np.float64]]:
    areas = np.bincount(instances.ravel(), minlength=256)
    total = instances.size
    phrases: list[str] = []
    weights: list[float] = []
    for number, (name, colour) in enumerate(scene.stuff, start=1):
        share = areas[number] / total
        if share > 0.05:
            phrases.append(f"{colour} {name}" if generator.random() < 0.2 else name)
            weights.append(share / 5)
    for thing in scene.things:
        share = areas[thing.instance] / total
        if areas[thing.instance] < 0.35 * thing.area or share < 0.01:
            continue
        words = [thing.name]
        if generator.random() < 0.35:
            words.insert(0, thing.colour)
        if generator.random() < 0.12:
            words.insert(0, _SIZES[int(share > 0.12)])
        article = ("a", "the")[int(generator.random() < 0.25)]
        phrases.append(" ".join([article, *words]))
        weights.append(share)
    return phrases, np.array(weights)
