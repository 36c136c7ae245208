"""Words as people write them in class lists: what is taken as it stands, and what is another format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html.entities import html5

from patchword.errors import PatchwordError

QUOTE = '"'
_LABELMAP = re.compile(r"([^:]+):\d+,\s*\d+,\s*\d+(:.*)?")
_NUMBERED = re.compile(r"\d+(?::\s*|[.)]\s+|\t\s*)(?=[^\d\s])(.+)")
_LISTED = re.compile(r"[-*•]\s+(.+)")
_FILE = re.compile(r"\S+\.(txt|json|ya?ml|csv)", re.IGNORECASE)
_OTHER_QUOTES = ("''", "‘’", "“”", "``")
_ENTITY = re.compile(r"&(#?\w+);")


def read_words(text: str, *, place: str, separated: str, recorded: bool = False) -> list[str]:
    """The words between semicolons, out of their quotes.

    Args:
        text: such as `sofa; couch; "screen, crt screen"`.
        place: what errors call it.
        separated: how to write several of what this is, for errors, such as "one class a line".
        recorded: whether patchword wrote it, in any version: earlier ones quoted nothing.
    """
    parts = text.split(";")
    if recorded:
        return [_recorded(part.strip()) for part in parts]
    entity = next((found[0] for found in _ENTITY.finditer(text) if f"{found[1]};" in html5 or found[1][0] == "#"), None)
    if entity is not None:
        raise PatchwordError(f"{place}: {entity!r} is an HTML entity; write the character itself")
    return [_read(part.strip(), place=place, separated=separated) for part in parts]


def written(word: str) -> str:
    """A word as `read_words` reads it: in quotes where it could be taken for something else."""
    plain = _trouble(word, separated="") is None and not (
        word.startswith(QUOTE) or f"{word.rpartition('&')[2]};" in html5
    )
    return word if plain else QUOTE + word.replace(QUOTE, 2 * QUOTE) + QUOTE


def split_commas(text: str) -> list[str]:
    """The parts between commas that are not in quotes; a comma at the end is not followed by a part."""
    parts, part, quoted = [], "", False
    for character in text:
        if character == QUOTE and (quoted or part.rpartition(";")[2].strip() == ""):
            quoted = not quoted
        if character == "," and not quoted:
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part] if part.strip() or not parts else parts


def spoken(words: Iterable[Sequence[str]], *, background: Sequence[str] = (), most: int = 12) -> str:
    """What a class list holds in one line: "3 classes: cat, dog, sofa (+2 background words)".

    Args:
        words: of each class, its name first.
        background: background words.
        most: classes that are named.
    """
    classes = list(words)
    named = [name if not more else f"{name} (or {', '.join(more)})" for name, *more in classes[:most]]
    left_out = f" and {len(classes) - most:,} more" if len(classes) > most else ""
    count = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
    behind = f" (+{len(background)} background word{'' if len(background) == 1 else 's'})" if background else ""
    return f"{count}: {', '.join(named)}{left_out}{behind}"


def _read(word: str, *, place: str, separated: str) -> str:
    if word.startswith(QUOTE):
        inside = _unquoted(word)
        if inside is None:
            raise PatchwordError(f"{place}: {word!r} has a quote that is not closed; a quoted name ends in a quote")
        return inside
    trouble = _trouble(word, separated=separated)
    if trouble is not None:
        raise PatchwordError(f"{place}: {word!r} {trouble}; a name that is meant so stands in double quotes")
    return word


def _recorded(word: str) -> str:
    inside = _unquoted(word)
    return inside if inside is not None and written(inside) == word else word


def _unquoted(word: str) -> str | None:
    """What stands between quotes; None for what is not quoted."""
    inside = word[1:-1].replace(2 * QUOTE, "\0")
    if len(word) < 2 or not (word.startswith(QUOTE) and word.endswith(QUOTE)) or QUOTE in inside:
        return None
    return inside.replace("\0", QUOTE)


def _trouble(word: str, *, separated: str) -> str | None:
    """What a word looks like instead of a name, and the right form; None for a name."""
    if word[:1] in tuple("[]{}<"):
        return "looks like JSON or XML; a class list is plain text, one name a line"
    if _FILE.fullmatch(word):
        return "looks like a file; pass its path alone"
    for pattern, what in (
        (_LABELMAP, "looks like a line of labelmap.txt"),
        (_NUMBERED, "starts with a number"),
        (_LISTED, "starts as a list item"),
    ):
        if found := pattern.fullmatch(word):
            return f"{what}; write the name alone: {found[1].strip()}"
    if len(word) > 2 and word[0] + word[-1] in _OTHER_QUOTES:
        return f"is in quotes; write the name alone: {word[1:-1]}"
    if re.search(r":(\s|$)", word) or re.fullmatch("-{3,}", word):
        return "looks like YAML; a class list is plain text, one name a line"
    if "\t" in word:
        return "has a tab; write the name alone"
    if "," in word:
        return f"has a comma; {separated}"
    return None
