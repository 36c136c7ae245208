"""What `suggest` proposes, as a class list, a record and a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchword.config.suggest import SuggestSettings
from patchword.data.vocabulary import Vocabulary, class_lines, directive_lines
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.visualization.notebook import notebook_html
from patchword.visualization.pages import colours_by_name, render_page

_MOST_NEAR = 5


@dataclass(frozen=True)
class Example:
    """A crop that voted for a noun.

    Attributes:
        photograph: its name.
        lead: of the noun over the second, in cosine.
        jpeg: a thumbnail.
    """

    photograph: str
    lead: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class Proposed:
    """A noun and what speaks for it.

    Attributes:
        name: as the list of nouns has it.
        photographs: in which it won enough crops to be seen.
        crops: that it won.
        near: nouns that lost their crops to it, most crops first.
        examples: the crops that voted for it most surely, one a photograph.
    """

    name: str
    photographs: int
    crops: int
    near: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold; the pictures are left out."""
        return {"name": self.name, "photographs": self.photographs, "crops": self.crops, "near": list(self.near)}


@dataclass(frozen=True)
class Suggestion:
    """A proposed class list.

    Attributes:
        vocabulary: the list: classes, most frequent first, and background words.
        classes: what speaks for each class, in the list's order.
        background: likewise for each background word.
        missed: nouns that were seen somewhere, and not often enough for a class of their own; most frequent first.
        photographs: that were looked at.
        found: photographs that there are.
        crops: that voted.
        failed: photograph -> why it could not be looked at.
        model: the image-text model that voted.
        settings: all numbers.
    """

    vocabulary: Vocabulary
    classes: tuple[Proposed, ...]
    background: tuple[Proposed, ...]
    missed: tuple[Proposed, ...]
    photographs: int
    found: int
    crops: int
    failed: Mapping[str, str]
    model: str
    settings: SuggestSettings

    def __repr__(self) -> str:
        return f"Suggestion({_photographs(self.photographs)}: {self.vocabulary.spoken()})"

    def _repr_html_(self) -> str:
        return notebook_html(
            f"Proposed classes, from {_photographs(self.photographs)}",
            columns=("class", "photographs", "share", "crops", "near"),
            rows=[
                (
                    entry.name,
                    f"{found.photographs:,}",
                    percent(found.photographs, of=self.photographs),
                    f"{found.crops:,}",
                    ", ".join(found.near[:_MOST_NEAR]),
                )
                for entry, found in zip(self.vocabulary.classes, self.classes, strict=True)
            ],
            colours=colours_by_name(self.vocabulary),
        )

    @property
    def model_name(self) -> str:
        """The model's hub name, or its folder without the way there."""
        return _one_line(Path(self.model).name if Path(self.model).is_absolute() else self.model)

    def to_text(self) -> str:
        """The class list with counts as comments; `Vocabulary.parse` of it gives `vocabulary`."""
        lines = [
            f"# Nouns that {self.model_name} sees in {_photographs(self.photographs)} of {self.found:,}, "
            "the most frequent first.",
            "# Take out what you do not want, add what is missing, rename, write synonyms behind ';'.",
            "# The comments are for you; `patchword label PHOTOS --classes FILE` takes the file as it is.",
            "",
        ]
        lines += [f"# {proposed.name}: {_counts(proposed, self.photographs)}" for proposed in self.background]
        lines += directive_lines(self.vocabulary, templates=self.vocabulary.templates != DEFAULT_TEMPLATES)
        entries = [class_lines(entry) for entry in self.vocabulary.classes]
        width = min(40, max(len(words) for words, *_ in entries))
        for (words, *own), proposed in zip(entries, self.classes, strict=True):
            near = f"; near: {', '.join(proposed.near[:_MOST_NEAR])}" if proposed.near else ""
            lines.append(f"{words:<{width}}  # {_counts(proposed, self.photographs)}{near}")
            lines += own
        if self.failed:
            lines += ["", f"# {_photographs(len(self.failed))} could not be looked at:"]
            lines += [f"#   {_one_line(name)}: {_one_line(reason)}" for name, reason in self.failed.items()]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold; the pictures are left out."""
        return {
            "classes": [
                proposed.to_json() | {"synonyms": list(entry.synonyms)}
                for proposed, entry in zip(self.classes, self.vocabulary.classes, strict=True)
            ],
            "background": [proposed.to_json() for proposed in self.background],
            "missed": [proposed.to_json() for proposed in self.missed],
            "photographs": self.photographs,
            "found": self.found,
            "crops": self.crops,
            "failed": dict(self.failed),
            "model": self.model,
            "settings": self.settings.model_dump(mode="json"),
            "vocabulary": self.vocabulary.to_text(),
        }


def narrowed(nouns: Vocabulary, *, classes: list[int], background: list[str]) -> Vocabulary:
    """The nouns that were chosen, in the order of `classes`, with their synonyms, colours and templates."""
    entries = tuple(nouns.classes[position] for position in classes)
    used = {word for entry in entries for word in entry.words}
    shared = tuple(word for word in nouns.shared if word in used)
    return replace(nouns, classes=entries, background=tuple(background), shared=shared)


def percent(photographs: int, *, of: int) -> str:
    """A share for a person."""
    share = photographs / of
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _counts(proposed: Proposed, looked: int) -> str:
    return (
        f"{_photographs(proposed.photographs)} ({percent(proposed.photographs, of=looked)}), {proposed.crops:,} crops"
    )


def _photographs(count: int) -> str:
    return f"{count:,} photograph{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


_CROP_SETTINGS = ("grids", "overlap", "crop_size", "crop_batch", "minimum_crops", "minimum_share")


def render(suggestion: Suggestion, *, command: str = "") -> str:
    """Write the page, pictures embedded.

    Args:
        suggestion: with the examples of its classes.
        command: what the user typed.
    """
    settings = suggestion.settings.model_dump(mode="json")
    settings |= {f"crops.{name}": value for name, value in settings.pop("crops").items() if name in _CROP_SETTINGS}
    colours = colours_by_name(suggestion.vocabulary)
    return render_page("suggestion", suggestion=suggestion, colours=colours, settings=settings, command=command)
