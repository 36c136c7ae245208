"""What a person might write under a scene or a piece of it: the large and the near, not everything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchword.toytown.classes import COLOURS, SYNONYMS
from patchword.toytown.painting import Placed
from patchword.toytown.things import THINGS
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
_KINDS = {thing.name: thing.kind for thing in THINGS if thing.kind}
_IN_THE_SKY = frozenset(thing.name for thing in THINGS if thing.place == "sky")
# How often a person says what: attributes, a looser or another word, and where a thing is.
_COLOUR, _PATTERN, _SIZE, _KIND, _SYNONYM, _PLACE = 0.3, 0.55, 0.1, 0.14, 0.16, 0.2


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
        "the red car, grass and a striped fish in the water"; a thing is likelier mentioned the more of the window it
        fills, and a region of stuff about as often as a thing a fifth of its size. Empty when nothing fills enough.
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
            said = SYNONYMS[name] if name in SYNONYMS and generator.random() < _SYNONYM else name
            phrases.append(f"{colour} {said}" if colour in COLOURS and generator.random() < 0.15 else said)
            weights.append(share / 5)
    for thing in scene.things:
        share = areas[thing.instance] / total
        if areas[thing.instance] < 0.35 * thing.area or share < 0.01:
            continue
        phrases.append(_phrase(thing, share=share, generator=generator))
        weights.append(share)
    return phrases, np.array(weights)


def _phrase(thing: Placed, *, share: float, generator: np.random.Generator) -> str:
    """What a person might call one thing, such as "a small striped ball on the sand", "an animal" or "the ship"."""
    words = [_word(thing.name, generator)]
    if thing.pattern and generator.random() < _PATTERN:
        words.insert(0, thing.pattern)
    if generator.random() < _COLOUR:
        words.insert(0, thing.colour)
    if generator.random() < _SIZE:
        words.insert(0, _SIZES[int(share > 0.12)])
    article = "the" if generator.random() < 0.25 else "an" if words[0][0] in "aeiou" else "a"
    place = ""
    if thing.on and generator.random() < _PLACE:
        place = "in the sky" if thing.name in _IN_THE_SKY else f"{'in' if thing.on == 'water' else 'on'} the {thing.on}"
    return " ".join([article, *words, *([place] if place else [])])


def _word(name: str, generator: np.random.Generator) -> str:
    said = generator.random()
    if name in _KINDS and said < _KIND:
        return _KINDS[name]
    if name in SYNONYMS and said > 1 - _SYNONYM:
        return SYNONYMS[name]
    return name
