"""The words of a class list: how people write them, and a list in the making that checks each where it stands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html.entities import html5
from typing import TYPE_CHECKING

from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.data.colours import Colour

QUOTE = '"'
COUNTED = re.compile(r"(\d+) +(\D.*)")  # "0 cat"
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
        word.startswith(QUOTE) or COUNTED.fullmatch(word) or f"{word.rpartition('&')[2]};" in html5
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
    maybe_several = len(classes) == 1 and (" " in classes[0][0] or len(classes[0]) > 1)
    hint = "; commas separate classes" if maybe_several else ""
    return f"{count}: {', '.join(named)}{left_out}{behind}{hint}"


def _read(word: str, *, place: str, separated: str) -> str:
    if word.startswith(QUOTE):
        inside = _unquoted(word)
        if inside is None:
            said = f"has a comma; {separated}" if len(split_commas(word)) > 1 else "has a quote that is not closed"
            raise PatchwordError(f"{place}: {word!r} {said}; a quoted name ends in a quote")
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
    for mark, what in ((",", "a comma"), ("|", "a bar")):
        if mark in word:
            return f"has {what}; {separated}"
    return None


# The seven templates that the CLIP authors found to do nearly as well as all eighty (Radford et al., 2021, notebook
# "Prompt Engineering for ImageNet").
DEFAULT_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

_BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class VocabularyClass:
    """One class: the name it is reported under and the other words that mean the same.

    Attributes:
        name: what tables, legends and files call the class.
        synonyms: further words; the name is not repeated among them.
        templates: prompts for the words of this class, instead of the vocabulary's; none for the vocabulary's.
        colour: red, green and blue, 0 to 255, wherever the class is shown; none where the palette decides.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    colour: Colour | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


class Draft:
    """Collects the parts of a vocabulary and remembers where each word and each colour was first seen.

    Args:
        source: what errors call the whole, such as a file's name.
        recorded: whether it is read from what patchword wrote.
    """

    def __init__(self, *, source: str, recorded: bool = False) -> None:
        self.source = source
        self.recorded = recorded
        self.classes: list[VocabularyClass] = []
        self.background: list[str] = []
        self.templates: list[str] = []
        self.shared: list[str] = []
        self._seen: dict[str, str] = {}
        self._names: set[str] = set()
        self._colours: dict[Colour, str] = {}

    def add_shared(self, place: str, words: Iterable[str]) -> None:
        """Let words stand in more than one class; comes before the classes."""
        known = set(map(key_of, self.shared))
        for word in (_checked_word(word, place) for word in words):
            if key_of(word) not in known:
                self.shared.append(word)
                known.add(key_of(word))

    def add_class(self, place: str, words: Iterable[str]) -> None:
        """Add a class: its name, then its synonyms."""
        checked = [_checked_word(word, place) for word in words]
        own: set[str] = set()
        shared = set(map(key_of, self.shared))
        for word in checked:
            key = key_of(word)
            if key in own:
                raise PatchwordError(f"{place}: {word!r} stands twice in one class; name it once")
            own.add(key)
            if key not in shared:
                self._claim(key, word, place)
        name = key_of(checked[0])
        if name in self._names:
            raise PatchwordError(f"{place}: {checked[0]!r} is already the name of a class; names must differ")
        self._names.add(name)
        self.classes.append(VocabularyClass(checked[0], tuple(checked[1:])))

    def add_own_template(self, place: str, template: str) -> None:
        """Give the last class a template of its own."""
        entry = self._last_class(place, "a template of its own")
        own = _checked_template(template, place, known=entry.templates)
        self.classes[-1] = replace(entry, templates=(*entry.templates, own))

    def set_colour(self, place: str, colour: Colour) -> None:
        """Give the last class its colour."""
        entry = self._last_class(place, "a colour")
        if entry.colour is not None:
            raise PatchwordError(
                f"{place}: class {entry.name!r} already has the colour {colour_text(entry.colour)}; give it once"
            )
        if colour in self._colours:
            raise PatchwordError(
                f"{place}: colour {colour_text(colour)} is already given at {self._colours[colour]}; take another"
            )
        _check_colour(colour, place)
        self._colours[colour] = place
        self.classes[-1] = replace(entry, colour=colour)

    def add_background(self, place: str, words: Iterable[str]) -> None:
        """Add background words."""
        for word in (_checked_word(word, place) for word in words):
            self._claim(key_of(word), word, place)
            self.background.append(word)

    def add_template(self, place: str, template: str) -> None:
        """Add a template for all classes without their own."""
        self.templates.append(_checked_template(template, place, known=self.templates))

    def check(self) -> None:
        """Refuse a vocabulary that lacks something."""
        if not self.classes:
            raise PatchwordError(f"{self.source}: no classes; at least one class name is needed")
        if not self.templates:
            raise PatchwordError(f"{self.source}: no templates; at least one with {{}} is needed")

    def _last_class(self, place: str, what: str) -> VocabularyClass:
        if not self.classes:
            raise PatchwordError(f"{place}: {what} belongs to the class above it, and there is none; put it after one")
        return self.classes[-1]

    def _claim(self, key: str, word: str, place: str) -> None:
        if key in self._seen:
            raise PatchwordError(
                f"{place}: {word!r} is already named at {self._seen[key]}; a word may stand once, "
                f"unless a line '@shared: {word}' says that it is meant"
            )
        self._seen[key] = place


def colour_text(colour: Colour) -> str:
    """The six hexadecimal digits of a colour."""
    return bytes(colour).hex()


def cleaned(text: str) -> str:
    """One spelling for what looks the same: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text.replace("\ufeff", "")).split())


def key_of(word: str) -> str:
    """What two words have in common when a reader would call them the same."""
    return unicodedata.normalize("NFC", word.casefold())


def _checked_word(word: str, place: str) -> str:
    spelled = cleaned(word)
    if not spelled:
        raise PatchwordError(f"{place}: empty name; every class and synonym needs at least one character")
    if spelled.startswith("@"):
        raise PatchwordError(f"{place}: {spelled!r} starts with '@', which is kept for settings")
    _check_characters(spelled, place, forbidden="#;")
    return spelled


def _checked_template(template: str, place: str, *, known: Sequence[str]) -> str:
    spelled = cleaned(template)
    if spelled.count("{}") != 1:
        raise PatchwordError(f"{place}: template {spelled!r} must have exactly one {{}}, the place of the word")
    _check_characters(spelled, place, forbidden="#")
    if spelled in known:
        raise PatchwordError(f"{place}: template {spelled!r} is given twice; name it once")
    return spelled


def _check_colour(colour: Colour, place: str) -> None:
    """Refuse what is no colour, and colours that already mean something else in masks and pictures."""
    from patchword.data.colours import IGNORE_COLOUR, alike

    if len(colour) != 3 or not all(type(channel) is int and 0 <= channel <= 255 for channel in colour):
        raise PatchwordError(f"{place}: colour {colour!r} must be red, green, blue, whole numbers from 0 to 255")
    for taken, meaning in ((IGNORE_COLOUR, "pixels that are ignored"), (_BLACK, "pixels without a class")):
        if alike(colour, taken):
            raise PatchwordError(
                f"{place}: colour {colour_text(colour)} is too like {colour_text(taken)}, which shows {meaning}; "
                "take one that differs from it by more than 10 (hexadecimal) in red, green or blue"
            )


def _check_characters(text: str, place: str, *, forbidden: str) -> None:
    for character in text:
        if character in forbidden or unicodedata.category(character) in ("Cc", "Cs"):
            raise PatchwordError(f"{place}: {text!r} has {character!r}, which a class list cannot hold")
