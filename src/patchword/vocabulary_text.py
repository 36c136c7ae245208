"""The text format of class lists (docs/vocabulary.md): read with line numbers, written in one canonical way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.errors import PatchwordError
from patchword.vocabulary_draft import DEFAULT_TEMPLATES, Draft, VocabularyClass, colour_text

if TYPE_CHECKING:
    from patchword.vocabulary import Vocabulary

_Apply = Callable[[Draft, str, str], None]  # draft, place, value
_OF_ALL: dict[str, _Apply] = {
    "background": lambda draft, place, value: draft.add_background(place, value.split(";")),
    "shared": lambda draft, place, value: draft.add_shared(place, value.split(";")),
    "template": lambda draft, place, value: draft.add_template(place, value),
}
_OF_A_CLASS: dict[str, _Apply] = {
    "colour": lambda draft, place, value: _set_colour(draft, place, value),
    "own-template": lambda draft, place, value: draft.add_own_template(place, value),
}


def draft_of_text(text: str, *, source: str, shared: Sequence[str] = ()) -> Draft:
    """Read the text format.

    Args:
        text: the whole text; any line ending.
        source: what errors call the text, such as its file name.
        shared: words allowed in more than one class, beside those of `@shared` lines.

    Raises:
        PatchwordError: naming source and line.
    """
    draft = Draft(source=source)
    draft.add_shared(f"{source}: shared words", shared)
    lines = [(f"{source}:{number}", line) for number, line in _content_lines(text)]
    for place, line in lines:  # first, since shared words decide what a class may say
        if line.startswith("@"):
            keyword, value = _directive(place, line)
            if keyword in _OF_ALL:
                _OF_ALL[keyword](draft, place, value)
    for place, line in lines:
        if not line.startswith("@"):
            draft.add_class(place, line.split(";"))
            continue
        keyword, value = _directive(place, line)
        if keyword in _OF_A_CLASS:
            _OF_A_CLASS[keyword](draft, place, value)
    return _finished(draft)


def draft_of_file(path: Path, *, shared: Sequence[str] = ()) -> Draft:
    """Read a file in the text format.

    Raises:
        PatchwordError: for a missing or unreadable file, and naming file and line for what it says.
    """
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
    """Read whatever a user passes as classes: a file, text of several lines, names between commas, a list of names.

    Raises:
        PatchwordError: as the two above, and for entries of a list that are no strings.
    """
    if isinstance(classes, Path):
        return draft_of_file(classes, shared=shared)
    if isinstance(classes, str):
        if "\n" in classes or "\r" in classes:
            return draft_of_text(classes, source="<text>", shared=shared)
        if _names_a_file(classes):
            return draft_of_file(Path(classes), shared=shared)
        if "," not in classes and "/" in classes:
            raise PatchwordError(f"no such class list: {classes}; a name with '/' goes into a list or a file")
        return _draft_of_entries(classes.split(",") if classes.strip() else [], shared)
    return _draft_of_entries(entries_of(classes, "classes"), shared)


def canonical_text(vocabulary: Vocabulary) -> str:
    """The text that reads back as the vocabulary; the same vocabulary gives the same text."""
    lines = directive_lines(vocabulary)
    for entry in vocabulary.classes:
        lines += class_lines(entry)
    return "\n".join(lines) + "\n"


def directive_lines(vocabulary: Vocabulary, *, templates: bool = True) -> list[str]:
    """The lines that are about the whole list, with the templates or without."""
    lines = []
    if vocabulary.background:
        lines.append(f"@background: {'; '.join(vocabulary.background)}")
    if vocabulary.shared:
        lines.append(f"@shared: {'; '.join(vocabulary.shared)}")
    return [*lines, *(f"@template: {template}" for template in vocabulary.templates if templates)]


def class_lines(entry: VocabularyClass) -> list[str]:
    """The lines of a class: its words, then what is its own."""
    colour = [] if entry.colour is None else [f"  @colour: {colour_text(entry.colour)}"]
    return ["; ".join(entry.words), *colour, *(f"  @own-template: {template}" for template in entry.templates)]


def entries_of(values: Sequence[str], what: str) -> list[str]:
    """The strings of a list.

    Raises:
        PatchwordError: for a single string, and for anything in the list that is none.
    """
    if isinstance(values, str):  # a string is a sequence of letters too, and never meant as one here
        raise PatchwordError(f"{what} is the string {values!r}; allowed is a list of strings")
    entries = list(values)
    for entry in entries:
        if not isinstance(entry, str):
            raise PatchwordError(f"{what} has {entry!r} of type {type(entry).__name__}; allowed are strings")
    return entries


def _draft_of_entries(entries: Sequence[str], shared: Sequence[str]) -> Draft:
    draft = Draft(source="class list")
    draft.add_shared("shared words", shared)
    for position, entry in enumerate(entries, start=1):
        draft.add_class(f"class list, entry {position}", entry.split(";"))
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
        said = f"{value!r} is no colour" if value else "the colour is missing"
        raise PatchwordError(
            f"{place}: {said}; allowed are six hexadecimal digits, rrggbb such as c04080, without '#', "
            "which starts a comment"
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


def _names_a_file(text: str) -> bool:
    stripped = text.strip()
    if stripped.casefold().endswith(".txt"):
        return True
    try:
        return Path(stripped).is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a null character
        return False
