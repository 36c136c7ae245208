"""What there is in Toytown and what it is called: classes, kinds, synonyms, colours, patterns, styles."""

from __future__ import annotations

from patchword.toytown.surfaces import STUFF
from patchword.toytown.things import THINGS

STYLES = ("day", "dusk")
PATTERNS = ("plain", "striped", "spotted")
CLASSES: tuple[str, ...] = tuple(stuff.name for stuff in STUFF) + tuple(thing.name for thing in THINGS)
UNSEEN: tuple[str, ...] = ("pine", "moon", "kite", "windmill", "sheep")
"""Thing classes that no vocabulary names before evaluation."""
SEEN: tuple[str, ...] = tuple(name for name in CLASSES if name not in UNSEEN)
KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(thing.name for thing in THINGS if thing.kind == kind)
    for kind in ("animal", "building", "plant", "vehicle")
}
"""What people call several classes, with the classes."""
SYNONYMS: dict[str, str] = {
    **{stuff.name: stuff.synonym for stuff in STUFF if stuff.synonym},
    **{thing.name: thing.synonym for thing in THINGS if thing.synonym},
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (203, 62, 56),
    "orange": (232, 140, 60),
    "yellow": (240, 205, 85),
    "green": (98, 165, 82),
    "blue": (78, 140, 205),
    "purple": (142, 96, 172),
    "pink": (236, 152, 178),
    "brown": (139, 98, 66),
    "white": (240, 238, 232),
    "grey": (150, 152, 158),
    "black": (58, 56, 62),
}
SHADES: dict[str, tuple[int, int, int]] = {
    **COLOURS,
    "cream": (245, 230, 200),
    "lit": (255, 226, 130),
    "glass": (176, 214, 232),
    "dark": (70, 62, 66),
    "dark green": (58, 118, 80),
    "snow white": (246, 248, 252),
    "pale": (170, 200, 225),
    "water": (62, 128, 178),
    "sand": (234, 208, 148),
    "road": (112, 114, 122),
    "rock": (132, 136, 146),
    "brown rock": (142, 118, 102),
    "purple rock": (128, 120, 152),
    "earth": (150, 108, 72),
    "light earth": (190, 150, 84),
}
SAID = {"cream": "white", "lit": "yellow", "dark": "black", "dark green": "green", "snow white": "white"}
