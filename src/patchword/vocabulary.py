"""Class names, their synonyms, background words and prompt templates: one text format, one hash."""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from patchword.errors import PatchwordError

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

_DIRECTIVES = ("background", "shared", "template")


@dataclass(frozen=True)
class VocabularyClass:
    """One class: the name it is reported under and the other words that mean the same.

    Attributes:
        name: what tables, legends and files call the class.
        synonyms: further words; the name is not repeated among them.
    """

    name: str
    synonyms: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a run, in order, and how they are put into prompts.

    Attributes:
        classes: at least one; the position is the index in every label map.
        background: words that take part in votes and never become a label.
        templates: prompts with exactly one `{}`, the place of the word.
        shared: words that may stand in more than one class; any other repetition is refused.

    Raises:
        PatchwordError: for no classes, empty or repeated words, characters that the text format cannot hold, and
            templates without exactly one `{}`.
    """

    classes: tuple[VocabularyClass, ...]
    background: tuple[str, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    shared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        draft = _Draft(source="vocabulary")
        draft.add_shared("shared words", self.shared)
        for position, entry in enumerate(self.classes, start=1):
            draft.add_class(f"class {position}", entry.words)
        draft.add_background("background words", self.background)
        for position, template in enumerate(self.templates, start=1):
            draft.add_template(f"template {position}", template)
        draft.check()
        for field in ("classes", "background", "templates", "shared"):
            object.__setattr__(self, field, tuple(getattr(draft, field)))

    @classmethod
    def of(
        cls,
        classes: str | Path | Sequence[str] | Vocabulary,
        *,
        background: Sequence[str] = (),
        templates: Sequence[str] | None = None,
        shared: Sequence[str] = (),
    ) -> Vocabulary:
        """Make a vocabulary of anything that a user may pass.

        Args:
            classes: a file in the text format (a path, or a string that names an existing file or ends in `.txt`); text
                in that format (a string of several lines); names separated by commas; a sequence of names. Everywhere
                synonyms follow the name after `;`. A vocabulary is taken as it is.
            background: background words; when given they replace those of the file.
            templates: prompt templates; when given they replace those of the file.
            shared: words allowed in more than one class, beside those that the file allows.

        Raises:
            PatchwordError: for a missing or unreadable file, and for all that `Vocabulary` refuses, with its line.
        """
        base = _read(classes, tuple(shared))
        return replace(
            base,
            background=tuple(_entries(background, "background")) or base.background,
            templates=base.templates if templates is None else tuple(_entries(templates, "templates")),
        )

    @classmethod
    def parse(cls, text: str, *, source: str = "<text>", shared: Sequence[str] = ()) -> Vocabulary:
        """Read the text format: one class a line, synonyms after `;`, `#` starts a comment, blank lines are skipped.

        Lines `@background: sky; wall`, `@template: a photo of a {}.` and `@shared: bed` set the rest.

        Args:
            text: the whole text; any line ending.
            source: what errors call the text, such as its file name.
            shared: words allowed in more than one class, beside those of `@shared` lines.

        Raises:
            PatchwordError: naming source and line.
        """
        draft = _Draft(source=source)
        draft.add_shared(f"{source}: shared words", shared)
        lines = list(_content_lines(text))
        for place, line in lines:
            if line.startswith("@"):
                _add_directive(draft, f"{source}:{place}", line)
        for place, line in lines:
            if not line.startswith("@"):
                draft.add_class(f"{source}:{place}", line.split(";"))
        return draft.build()

    def to_text(self) -> str:
        """The canonical text: `parse` of it gives the same vocabulary."""
        lines = []
        if self.background:
            lines.append(f"@background: {'; '.join(self.background)}")
        if self.shared:
            lines.append(f"@shared: {'; '.join(self.shared)}")
        lines += [f"@template: {template}" for template in self.templates]
        lines += ["; ".join(entry.words) for entry in self.classes]
        return "\n".join(lines) + "\n"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in order."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, 64 hexadecimal digits; comments and white space do not change it."""
        return hashlib.sha256(self.to_text().encode("utf-8")).hexdigest()

    def index(self, name: str) -> int:
        """The position of the class with this name or, failing that, this synonym; letter case does not count.

        Raises:
            PatchwordError: when no class has the word.
        """
        wanted = _key(_clean(name))
        for words_of in (lambda entry: (entry.name,), lambda entry: entry.synonyms):
            for position, entry in enumerate(self.classes):
                if wanted in map(_key, words_of(entry)):
                    return position
        close = difflib.get_close_matches(name, [word for entry in self.classes for word in entry.words], n=3)
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"it has {len(self)} classes"
        raise PatchwordError(f"{name!r} is no class of the vocabulary; {hint}")

    def __len__(self) -> int:
        return len(self.classes)


class _Draft:
    """Collects the parts of a vocabulary and remembers where each word was first seen."""

    def __init__(self, *, source: str) -> None:
        self.source = source
        self.classes: list[VocabularyClass] = []
        self.background: list[str] = []
        self.templates: list[str] = []
        self.shared: list[str] = []
        self._seen: dict[str, str] = {}

    def add_shared(self, place: str, words: Iterable[str]) -> None:
        known = set(map(_key, self.shared))
        for word in (_checked_word(word, place) for word in words):
            if _key(word) not in known:
                self.shared.append(word)
                known.add(_key(word))

    def add_class(self, place: str, words: Iterable[str]) -> None:
        checked = [_checked_word(word, place) for word in words]
        own: set[str] = set()
        shared = set(map(_key, self.shared))
        for word in checked:
            key = _key(word)
            if key in own:
                raise PatchwordError(f"{place}: {word!r} stands twice in one class; name it once")
            own.add(key)
            if key not in shared:
                self._claim(key, word, place)
        name = _key(checked[0])
        if any(_key(entry.name) == name for entry in self.classes):
            raise PatchwordError(f"{place}: {checked[0]!r} is already the name of a class; names must differ")
        self.classes.append(VocabularyClass(checked[0], tuple(checked[1:])))

    def add_background(self, place: str, words: Iterable[str]) -> None:
        for word in (_checked_word(word, place) for word in words):
            self._claim(_key(word), word, place)
            self.background.append(word)

    def add_template(self, place: str, template: str) -> None:
        cleaned = _clean(template)
        if cleaned.count("{}") != 1:
            raise PatchwordError(f"{place}: template {cleaned!r} must have exactly one {{}}, the place of the word")
        _check_characters(cleaned, place, forbidden="#")
        if cleaned in self.templates:
            raise PatchwordError(f"{place}: template {cleaned!r} is given twice; name it once")
        self.templates.append(cleaned)

    def check(self) -> None:
        if not self.classes:
            raise PatchwordError(f"{self.source}: no classes; at least one class name is needed")
        if not self.templates:
            raise PatchwordError(f"{self.source}: no templates; at least one with {{}} is needed")

    def build(self) -> Vocabulary:
        self.templates = self.templates or list(DEFAULT_TEMPLATES)
        self.check()
        return Vocabulary(tuple(self.classes), tuple(self.background), tuple(self.templates), tuple(self.shared))

    def _claim(self, key: str, word: str, place: str) -> None:
        if key in self._seen:
            raise PatchwordError(
                f"{place}: {word!r} is already named at {self._seen[key]}; a word may stand once, "
                f"unless a line '@shared: {word}' says that it is meant"
            )
        self._seen[key] = place


def _add_directive(draft: _Draft, place: str, line: str) -> None:
    keyword, colon, value = line[1:].partition(":")
    keyword = keyword.strip().casefold()
    if not colon or keyword not in _DIRECTIVES:
        allowed = ", ".join(f"@{directive}:" for directive in _DIRECTIVES)
        raise PatchwordError(f"{place}: {line!r} is not understood; lines that start with @ are {allowed}")
    if keyword == "template":
        draft.add_template(place, value)
    elif keyword == "background":
        draft.add_background(place, value.split(";"))
    else:
        draft.add_shared(place, value.split(";"))


def _content_lines(text: str) -> Iterable[tuple[int, str]]:
    """(line number, line without comment and surrounding space) of every line that says something."""
    unix = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(unix.split("\n"), start=1):
        content = line.partition("#")[0].strip()
        if content:
            yield number, content


def _read(classes: str | Path | Sequence[str] | Vocabulary, shared: tuple[str, ...]) -> Vocabulary:
    if isinstance(classes, Vocabulary):
        return replace(classes, shared=(*classes.shared, *shared))
    if isinstance(classes, Path):
        return _read_file(classes, shared)
    if isinstance(classes, str):
        if "\n" in classes or "\r" in classes:
            return Vocabulary.parse(classes, shared=shared)
        if _names_a_file(classes):
            return _read_file(Path(classes), shared)
        if "," not in classes and "/" in classes:
            raise PatchwordError(f"no such class list: {classes}; a name with '/' goes into a list or a file")
        return _from_entries(classes.split(",") if classes.strip() else [], shared)
    return _from_entries(_entries(classes, "classes"), shared)


def _from_entries(entries: Sequence[str], shared: tuple[str, ...]) -> Vocabulary:
    draft = _Draft(source="class list")
    draft.add_shared("shared words", shared)
    for position, entry in enumerate(entries, start=1):
        draft.add_class(f"class list, entry {position}", entry.split(";"))
    return draft.build()


def _names_a_file(text: str) -> bool:
    stripped = text.strip()
    if stripped.casefold().endswith(".txt"):
        return True
    try:
        return Path(stripped).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False


def _read_file(path: Path, shared: tuple[str, ...]) -> Vocabulary:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PatchwordError(f"no such class list: {path}; pass a text file, or names separated by commas") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PatchwordError(f"{path}:{line}: not UTF-8 text; save the class list as UTF-8") from None
    except OSError as error:
        raise PatchwordError(f"cannot read class list {path}: {error.strerror}") from None
    return Vocabulary.parse(text, source=str(path), shared=shared)


def _entries(values: Sequence[str], what: str) -> list[str]:
    if isinstance(values, str):  # a string is a sequence of letters too, and never meant as one here
        raise PatchwordError(f"{what} is the string {values!r}; allowed is a list of strings")
    entries = list(values)
    for entry in entries:
        if not isinstance(entry, str):
            raise PatchwordError(f"{what} has {entry!r} of type {type(entry).__name__}; allowed are strings")
    return entries


def _checked_word(word: str, place: str) -> str:
    cleaned = _clean(word)
    if not cleaned:
        raise PatchwordError(f"{place}: empty name; every class and synonym needs at least one character")
    if cleaned.startswith("@"):
        raise PatchwordError(f"{place}: {cleaned!r} starts with '@', which is kept for settings")
    _check_characters(cleaned, place, forbidden="#;")
    return cleaned


def _check_characters(text: str, place: str, *, forbidden: str) -> None:
    for character in text:
        if character in forbidden or unicodedata.category(character) in ("Cc", "Cs"):
            raise PatchwordError(f"{place}: {text!r} has {character!r}, which a class list cannot hold")


def _clean(text: str) -> str:
    """One spelling for what looks the same: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text.replace("\ufeff", "")).split())


def _key(word: str) -> str:
    """What two words have in common when a reader would call them the same."""
    return unicodedata.normalize("NFC", word.casefold())
