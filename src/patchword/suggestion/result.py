"""What `suggest` proposes, as a class list, a record and a page."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchword.config.suggest import SuggestSettings
from patchword.data.vocabulary import Vocabulary, class_lines, directive_lines
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES

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


_STYLE = """
:root { color-scheme: light; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; background: #fff; line-height: 1.5; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
article { display: grid; grid-template-columns: 17rem 1fr; gap: 1rem; padding: .8rem 0; border-top: 1px solid #ddd; }
h3 { margin: 0; overflow-wrap: anywhere; }
h3 i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
p { margin: .3rem 0; } .small { color: #555; font-size: .85rem; overflow-wrap: anywhere; }
.bar { height: .5rem; background: #eee; } .bar div { height: 100%; background: #4a7ab5; }
.crops { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; } figure { margin: 0; }
img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #f5f5f5; }
figcaption { color: #555; font-size: .75rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; } details { margin: 1rem 0; }
table { border-collapse: collapse; } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; }
@media (max-width: 45rem) { article { grid-template-columns: 1fr; } }
"""


def render_page(suggestion: Suggestion, *, command: str = "") -> str:
    """Write the page, pictures embedded.

    Args:
        suggestion: with the examples of its classes.
        command: what the user typed.
    """
    size = suggestion.settings.thumbnail_size
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Proposed classes</title>",
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
        "<h1>Proposed classes</h1>",
        f"<p>{len(suggestion.classes)} classes that {_text(suggestion.model_name)} sees in ",
        f"{suggestion.photographs:,} of {suggestion.found:,} photographs, by {suggestion.crops:,} crops. ",
        "The bar is the share of these photographs; the pictures are the crops that voted most surely. ",
        "A machine proposed this: look whether the pictures show what the name says.</p>",
        *(_article(suggestion, position, size=size) for position in range(len(suggestion.classes))),
        _background(suggestion, size=size),
        _missed(suggestion.missed),
        _failed(suggestion),
        "<h2>The class list</h2><p>Edit it, then <code>patchword label PHOTOS --classes FILE</code>.</p>",
        f"<pre>{_text(suggestion.to_text())}</pre>",
        _settings(suggestion),
        f"<p class='small'>Made by <code>{_text(command)}</code></p>" if command else "",
        "</body></html>\n",
    ]
    return "".join(parts)


def _article(suggestion: Suggestion, position: int, *, size: int) -> str:
    entry, proposed = suggestion.vocabulary.classes[position], suggestion.classes[position]
    red, green, blue = suggestion.vocabulary.colours[position].tolist()
    also = f"<p class='small'>also: {_text(', '.join(entry.synonyms))}</p>" if entry.synonyms else ""
    swatch = f"<i style='background:rgb({red},{green},{blue})'></i>"
    return _row(suggestion, proposed, title=swatch + _text(entry.name), also=also, size=size)


def _background(suggestion: Suggestion, *, size: int) -> str:
    if not suggestion.background:
        return ""
    rows = (_row(suggestion, each, title=_text(each.name), also="", size=size) for each in suggestion.background)
    return f"<h2>Background words</h2><p>They take part in votes and never become a label.</p>{''.join(rows)}"


def _row(suggestion: Suggestion, proposed: Proposed, *, title: str, also: str, size: int) -> str:
    share = 100 * proposed.photographs / suggestion.photographs
    near = f"<p class='small'>near: {_text(', '.join(proposed.near))}</p>" if proposed.near else ""
    pictures = "".join(
        f"<figure style='width:{size}px'><img alt='' src='data:image/jpeg;base64,"
        f"{base64.b64encode(example.jpeg).decode('ascii')}'>"
        f"<figcaption title='{_text(example.photograph)}'>{_text(example.photograph)}</figcaption></figure>"
        for example in proposed.examples
    )
    return (
        f"<article><div><h3>{title}</h3>{also}<p>{proposed.photographs:,} photographs "
        f"({percent(proposed.photographs, of=suggestion.photographs)}), {proposed.crops:,} crops</p>"
        f"<div class='bar'><div style='width:{share:.1f}%'></div></div>{near}</div>"
        f"<div class='crops'>{pictures}</div></article>"
    )


def _missed(missed: Sequence[Proposed]) -> str:
    if not missed:
        return ""
    rows = _table(("noun", "photographs", "crops"), ((each.name, each.photographs, each.crops) for each in missed))
    return (
        "<h2>Not proposed</h2><p>Nouns that were seen, but too rarely, or near a more frequent one. Counts are of the "
        f"first vote. Write those that you know are there into the list yourself.</p><details><summary>{len(missed):,} "
        f"nouns</summary>{rows}</details>"
    )


def _failed(suggestion: Suggestion) -> str:
    if not suggestion.failed:
        return ""
    rows = _table(("photograph", "reason"), suggestion.failed.items())
    return f"<h2>Photographs that could not be looked at</h2>{rows}"


def _settings(suggestion: Suggestion) -> str:
    record = suggestion.settings.model_dump(mode="json")
    record |= {f"crops.{name}": value for name, value in record.pop("crops").items() if name in _CROP_SETTINGS}
    return f"<details><summary>Settings</summary>{_table(('setting', 'value'), record.items())}</details>"


_CROP_SETTINGS = ("grids", "overlap", "crop_size", "crop_batch", "minimum_crops", "minimum_share")


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(text: str) -> str:
    return html.escape(text)
