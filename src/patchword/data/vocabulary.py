"""Class names, their synonyms, colours, background words and prompt templates: one record, one hash."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from patchword.data.vocabulary_draft import DEFAULT_TEMPLATES, Draft, VocabularyClass, cleaned, key_of
from patchword.data.vocabulary_text import background_words, canonical_text, draft_of, draft_of_text, entries_of
from patchword.errors import PatchwordError
from patchword.vocabulary_words import spoken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BACKGROUND_NAME", "DEFAULT_TEMPLATES", "Vocabulary", "VocabularyClass"]

BACKGROUND_NAME = "background"  # of the class that background words make


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
            base = replace(classes, shared=(*classes.shared, *shared))
        else:
            base = cls._of_draft(draft_of(classes, shared=shared))
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
