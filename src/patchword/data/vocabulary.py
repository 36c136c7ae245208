"""Class names, their synonyms, colours, background words and prompt templates: one record, one hash."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from patchword.data.vocabulary_words import (
    COUNTED,
    DEFAULT_TEMPLATES,
    Draft,
    VocabularyClass,
    cleaned,
    colour_text,
    key_of,
    read_words,
    split_commas,
    spoken,
    written,
)
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BACKGROUND_NAME = "background"  # of the class that background words make
_CLASSES = "write one class a line, and synonyms after ';'"
_ENTRIES = "pass one class an entry, and synonyms after ';'"
_SUFFIX = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{0,4}")  # of a file; "St. Bernard" and "3.5 inch" have none


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a run, in order, and how they are put into prompts.

    Attributes:
        classes: at least one; the position is the index in every label map.
        background: words that take part in votes and never become a label.
        templates: prompts with exactly one `{}`, the place of the word, for all words but those of classes that have
            templates of their own.
        shared: words that may stand in more than one class; any other repetition is refused.
    """

    classes: tuple[VocabularyClass, ...]
    background: tuple[str, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    shared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        draft = Draft(source="vocabulary")
        draft.add_shared("shared words", self.shared)
        for position, entry in enumerate(self.classes, start=1):
            _add_class(draft, f"class {position}", entry)
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
            classes: a file in the text format (a path, or a string that names an existing file); text in that format (a
                string of several lines); names separated by commas; a sequence of names. Everywhere synonyms follow the
                name after `;`, and a name with a comma stands in double quotes. A vocabulary is taken as it is.
            background: background words; when given they replace those of the file.
            templates: prompt templates; when given they replace those of the file, but for classes that have their own.
            shared: words allowed in more than one class, beside those that the file allows.
        """
        if isinstance(classes, Vocabulary):
            if not (background or shared or templates is not None):
                return classes
            base = replace(classes, shared=(*classes.shared, *shared))
        else:
            base = cls._of_draft(draft_of(classes, shared=shared))
        if not background and templates is None:
            return base  # every new one is checked anew, word by word
        return replace(
            base,
            background=tuple(background_words(background)) or base.background,
            templates=base.templates if templates is None else tuple(entries_of(templates, "templates")),
        )

    @classmethod
    def parse(cls, text: str, *, source: str = "<text>", shared: Sequence[str] = ()) -> Self:
        """Read the text format (docs/vocabulary.md): one class a line, synonyms after `;`, `#` starts a comment.

        A name with a comma, or one that could be taken for another format, stands in double quotes.

        Lines `@background: sky; wall`, `@template: a photo of a {}.` and `@shared: bed` set the rest; `@colour: c04080`
        and `@own-template: a {} on a plate.` belong to the class above them.

        Args:
            text: the whole text; any line ending.
            source: what errors call the text, such as its file name.
            shared: words allowed in more than one class, beside those of `@shared` lines.
        """
        return cls._of_draft(draft_of_text(text, source=source, shared=shared))

    @classmethod
    def recorded(cls, text: str, *, source: str) -> Self:
        """Read what any version of patchword wrote with `to_text`.

        Args:
            text: the whole text.
            source: what errors call it.
        """
        return cls._of_draft(draft_of_text(text, source=source, recorded=True))

    @classmethod
    def _of_draft(cls, draft: Draft) -> Self:
        return cls(tuple(draft.classes), tuple(draft.background), tuple(draft.templates), tuple(draft.shared))

    def spoken(self) -> str:
        """What the list holds, in one line for a person: "3 classes: cat, dog, sofa (+2 background words)"."""
        return spoken([entry.words for entry in self.classes], background=self.background)

    def to_text(self) -> str:
        """The canonical text: `parse` of it gives the same vocabulary."""
        return canonical_text(self)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in order."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text without quotes, 64 hexadecimal digits; comments and space do not count."""
        return hashlib.sha256(canonical_text(self, write=str).encode("utf-8")).hexdigest()

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """The classes' colours, (n, 3) uint8, all different: those given, and the palette's for the others."""
        from patchword.data.colours import class_colours

        colours = class_colours([entry.colour for entry in self.classes])
        colours.setflags(write=False)  # one array serves every picture
        return colours

    def index(self, name: str) -> int:
        """The position of the class with this name or, failing that, this synonym; letter case does not count."""
        wanted = key_of(cleaned(name))
        for words_of in (lambda entry: (entry.name,), lambda entry: entry.synonyms):
            for position, entry in enumerate(self.classes):
                if wanted in map(key_of, words_of(entry)):
                    return position
        close = difflib.get_close_matches(name, [word for entry in self.classes for word in entry.words], n=3)
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"it has {len(self)} classes"
        raise PatchwordError(f"{name!r} is not in the class list; {hint}")

    def __len__(self) -> int:
        return len(self.classes)


def _add_class(draft: Draft, place: str, entry: VocabularyClass) -> None:
    draft.add_class(place, entry.words)
    if entry.colour is not None:
        draft.set_colour(place, entry.colour)
    for template in entry.templates:
        draft.add_own_template(place, template)


_Apply = Callable[[Draft, str, str], None]  # draft, place, value
_OF_ALL: dict[str, _Apply] = {
    "background": lambda draft, place, value: draft.add_background(place, _words(draft, place, value)),
    "shared": lambda draft, place, value: draft.add_shared(place, _words(draft, place, value)),
    "template": lambda draft, place, value: draft.add_template(place, value),
}
_OF_A_CLASS: dict[str, _Apply] = {
    "colour": lambda draft, place, value: _set_colour(draft, place, value),
    "own-template": lambda draft, place, value: draft.add_own_template(place, value),
}


def draft_of_text(text: str, *, source: str, shared: Sequence[str] = (), recorded: bool = False) -> Draft:
    """Read the text format.

    Args:
        text: the whole text; any line ending.
        source: what errors call the text, such as its file name.
        shared: words allowed in more than one class, beside those of `@shared` lines.
        recorded: whether patchword wrote it, in any version; then nothing is taken for a mistake of form.
    """
    draft = Draft(source=source, recorded=recorded)
    draft.add_shared(f"{source}: shared words", shared)
    lines = [(f"{source}:{number}", line) for number, line in _content_lines(text)]
    for place, line in lines:  # first, since shared words decide what a class may say
        if line.startswith("@"):
            keyword, value = _directive(place, line)
            if keyword in _OF_ALL:
                _OF_ALL[keyword](draft, place, value)
    if not recorded:
        _refuse_numbers(lines)
    for place, line in lines:
        if not line.startswith("@"):
            draft.add_class(place, read_words(line, place=place, separated=_CLASSES, recorded=recorded))
            continue
        keyword, value = _directive(place, line)
        if keyword in _OF_A_CLASS:
            _OF_A_CLASS[keyword](draft, place, value)
    return _finished(draft)


def _refuse_numbers(lines: Sequence[tuple[str, str]]) -> None:
    """Refuse lists such as "0 cat", "1 dog", as other tools write them."""
    classes = [(place, line) for place, line in lines if not line.startswith("@")]
    found = [each for _, line in classes if (each := COUNTED.fullmatch(line))]
    numbers = [int(each[1]) for each in found]
    if len(classes) == len(found) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        place, line = classes[0]
        raise PatchwordError(
            f"{place}: {line!r} starts with a number, as all lines; write the names alone: {found[0][2]}"
        )


def draft_of_file(path: Path, *, shared: Sequence[str] = ()) -> Draft:
    """Read a file in the text format."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PatchwordError(f"no such class list: {path}; pass a text file, or names separated by commas") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PatchwordError(f"{path}:{line}: not UTF-8 text; save the class list as UTF-8") from None
    except OSError as error:
        raise PatchwordError(f"cannot read class list {path}: {error.strerror}") from None
    return draft_of_text(text, source=str(path), shared=shared)


def draft_of(classes: str | Path | Sequence[str], *, shared: Sequence[str] = ()) -> Draft:
    """Read whatever a user passes as classes: a file, text of several lines, names between commas, a list of names."""
    if isinstance(classes, Path):
        return draft_of_file(classes, shared=shared)
    if isinstance(classes, str):
        if "\n" in classes or "\r" in classes:
            return draft_of_text(classes, source="<text>", shared=shared)
        if _names_a_file(classes):
            return draft_of_file(Path(classes.strip()), shared=shared)
        return _draft_of_entries(split_commas(classes) if classes.strip() else [], shared)
    return _draft_of_entries(entries_of(classes, "classes"), shared)


def canonical_text(vocabulary: Vocabulary, *, write: Callable[[str], str] = written) -> str:
    """The text that reads back as the vocabulary; the same vocabulary gives the same text.

    Args:
        vocabulary: what is written.
        write: how a word is; `str` quotes none, which is what hashes are of.
    """
    lines = directive_lines(vocabulary, write=write)
    for entry in vocabulary.classes:
        lines += class_lines(entry, write=write)
    return "\n".join(lines) + "\n"


def directive_lines(
    vocabulary: Vocabulary, *, templates: bool = True, write: Callable[[str], str] = written
) -> list[str]:
    """The lines that are about the whole list, with the templates or without."""
    lines = []
    if vocabulary.background:
        lines.append(f"@background: {'; '.join(map(write, vocabulary.background))}")
    if vocabulary.shared:
        lines.append(f"@shared: {'; '.join(map(write, vocabulary.shared))}")
    return [*lines, *(f"@template: {template}" for template in vocabulary.templates if templates)]


def class_lines(entry: VocabularyClass, *, write: Callable[[str], str] = written) -> list[str]:
    """The lines of a class: its words, then what is its own."""
    colour = [] if entry.colour is None else [f"  @colour: {colour_text(entry.colour)}"]
    words = "; ".join(map(write, entry.words))
    return [words, *colour, *(f"  @own-template: {template}" for template in entry.templates)]


def entries_of(values: Sequence[str], what: str) -> list[str]:
    """The strings of a list."""
    if isinstance(values, str):  # a string is a sequence of letters too, and never meant as one here
        raise PatchwordError(f"{what} must be a list of strings, not the string {values!r}")
    if not isinstance(values, Iterable):
        raise PatchwordError(f'{what} is {values!r}; pass names, such as ["cat", "dog"]')
    entries = list(values)
    for entry in entries:
        if not isinstance(entry, str):
            raise PatchwordError(f"{what} has {entry!r} of type {type(entry).__name__}; it must hold strings")
    return entries


def background_words(words: Sequence[str]) -> list[str]:
    """Background words that a user passes."""
    entries = entries_of(words, "background")
    separated = "pass one word an entry"
    return [word for entry in entries for word in read_words(entry, place="background words", separated=separated)]


def _draft_of_entries(entries: Sequence[str], shared: Sequence[str]) -> Draft:
    draft = Draft(source="class list")
    draft.add_shared("shared words", shared)
    for position, entry in enumerate(entries, start=1):
        place = f"class list, entry {position}"
        draft.add_class(place, read_words(entry, place=place, separated=_ENTRIES))
    return _finished(draft)


def _finished(draft: Draft) -> Draft:
    draft.templates = draft.templates or list(DEFAULT_TEMPLATES)
    draft.check()
    return draft


def _directive(place: str, line: str) -> tuple[str, str]:
    """Keyword and value of a line that starts with @."""
    keyword, colon, value = line[1:].partition(":")
    keyword = keyword.strip().casefold()
    if not colon or (keyword not in _OF_ALL and keyword not in _OF_A_CLASS):
        of_all = ", ".join(f"@{directive}:" for directive in _OF_ALL)
        of_a_class = " and ".join(f"@{directive}:" for directive in _OF_A_CLASS)
        allowed = f"lines that start with @ are {of_all} and, after a class, {of_a_class}"
        raise PatchwordError(f"{place}: {line!r} is not understood; {allowed}")
    return keyword, value.strip()


def _set_colour(draft: Draft, place: str, value: str) -> None:
    if not re.fullmatch("[0-9a-fA-F]{6}", value):
        said = f"{value!r} is not a colour" if value else "the colour is missing"
        raise PatchwordError(
            f"{place}: {said}; write six hexadecimal digits, rrggbb such as c04080, without '#', which starts a comment"
        )
    red, green, blue = bytes.fromhex(value)
    draft.set_colour(place, (red, green, blue))


def _content_lines(text: str) -> Iterable[tuple[int, str]]:
    """(line number, line without comment and surrounding space) of every line that says something."""
    unix = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(unix.split("\n"), start=1):
        content = line.partition("#")[0].strip()
        if content:
            yield number, content


def _words(draft: Draft, place: str, value: str) -> list[str]:
    return read_words(value, place=place, separated="';' stands between words", recorded=draft.recorded)


def _names_a_file(text: str) -> bool:
    """Whether a string is the path of a class list."""
    stripped = text.strip()
    path = Path(stripped)
    try:
        if path.is_file():
            return True
        is_folder = bool(stripped) and path.is_dir()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False
    if is_folder:
        raise PatchwordError(f'classes: {text} is a folder; pass a text file, or names: "{stripped}," for one class')
    if "," in stripped or not (_SUFFIX.fullmatch(stripped) or "/" in stripped):
        return False
    hint = f"; did you mean {close}?" if (close := _close_file(path)) else ""
    quoted = f"; a class of that name stands in double quotes: '\"{stripped}\"'" if not hint else ""
    raise PatchwordError(
        f"no such class list: {text}{hint or '; pass a text file, or names separated by commas'}{quoted}"
    )


def _close_file(path: Path) -> Path | None:
    """The file of nearly that name beside it."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.is_file()]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return path.with_name(close[0]) if close else None
