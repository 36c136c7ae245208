"""The proposal as a page that works from a file: every class with its counts and the crops that voted most surely."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from patchword.suggestion.result import Proposed, Suggestion, percent

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
