"""What pages are made of: cells, rows and tables, how they look, and the script that sorts and filters them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light; font-family: system-ui, sans-serif; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; color: #1b1b1b; background: #fff; line-height: 1.5; }
h1 { margin: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #bbb; scroll-margin-top: 3rem; }
.where { margin: 0; color: #444; overflow-wrap: anywhere; }
nav a { display: inline-block; margin: .3rem 1rem .3rem 0; } a { color: #0b4fa8; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; }
.facts div { background: #f3f4f6; padding: .5rem .8rem; border-radius: .3rem; }
dt { font-size: .85rem; color: #444; } dd { margin: 0; font-size: 1.3rem; }
figure { margin: 0; } .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 2rem; }
.bars ol { display: flex; align-items: flex-end; height: 9rem; gap: 2px; margin: .5rem 0 0; padding: 0;
  list-style: none; border-bottom: 1px solid #444; }
.bars li { flex: 1; background: #3b6ea8; } .axis { display: flex; justify-content: space-between; margin: 0; }
.filter { position: sticky; top: 0; background: #fff; padding: .5rem 0; margin: 1rem 0 0; z-index: 1; }
select { font: inherit; max-width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); gap: 1rem; }
.card { border: 1px solid #ccc; border-radius: .3rem; padding: .6rem; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; }
.two img { width: 100%; height: auto; display: block; }
.none { background: #f3f4f6; padding: 1rem; margin: 0; overflow-wrap: anywhere; }
figcaption b { overflow-wrap: anywhere; } .score { float: right; } figcaption small { display: block; color: #444; }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9rem; list-style: none; margin: .3rem 0 0; padding: 0;
  font-size: .85rem; }
i { display: inline-block; width: .9em; height: .9em; margin-right: .35em; vertical-align: -.1em;
  border: 1px solid #0006; }
.ignore { background: repeating-linear-gradient(135deg, #000 0 2px, #fff 2px 4px, #888 4px 8px); }
.scroll { overflow-x: auto; max-height: 40rem; overflow-y: auto; border: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th[scope=row], td.words, th.words { text-align: left; font-weight: normal; overflow-wrap: anywhere; min-width: 7rem; }
td.words:last-child { min-width: 15rem; }
thead th, thead th.words { position: sticky; top: 0; background: #eceef1; font-weight: bold; }
thead button { all: unset; cursor: pointer; }
thead button:focus-visible { outline: 2px solid #0b4fa8; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
pre { background: #f3f4f6; padding: .8rem; overflow-x: auto; max-height: 20rem; } code { overflow-wrap: anywhere; }
summary { cursor: pointer; margin-top: 1rem; } [hidden] { display: none !important; }
"""

SORT = """
for (const head of document.querySelectorAll('thead th')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.onclick = () => {
    const rising = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const column = [...head.parentNode.children].indexOf(head);
    const body = head.closest('table').tBodies[0];
    const value = row => row.cells[column].textContent;
    const number = row => parseFloat(value(row).replace(/,/g, ''));
    const rows = [...body.rows];
    const known = rows.filter(row => !/^–?$/.test(value(row)));
    const numeric = known.every(row => /^-?[\\d,.]+( %)?$/.test(value(row)));
    known.sort((a, b) => (rising ? 1 : -1) *
      (numeric ? number(a) - number(b) : value(a).localeCompare(value(b))));
    body.append(...known, ...rows.filter(row => /^–?$/.test(value(row))));
  };
}
"""

FILTER = """
const filter = document.getElementById('class');
filter.closest('p').hidden = false;
filter.onchange = () => {
  let shown = 0;
  for (const part of document.querySelectorAll('[data-classes]')) {
    part.hidden = filter.value !== '' && !part.dataset.classes.includes(` ${filter.value} `);
    if (!part.hidden && part.tagName === 'TR') shown += 1;
  }
  document.getElementById('found').textContent = filter.value === '' ? '' : `${shown} in the table below`;
};
"""


def text(value: object) -> str:
    """Text as HTML; letters that no file can hold, as odd file names have them, become question marks."""
    return html.escape(str(value).encode("utf-8", errors="replace").decode("utf-8"))


def number(value: float | None) -> str:
    """A share or a cosine with three digits; a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """A share of one in per cent: whole ones, and below one a digit that is not zero."""
    return f"{100 * share:.1g} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def head(value: object, *, before: str = "") -> str:
    """The cell that names a row, with what stands before the name."""
    return f"<th scope='row'>{before}{text(value)}</th>"


def cell(value: object) -> str:
    """A cell with a number."""
    return f"<td>{value}</td>"


def words(value: object) -> str:
    """A cell with text."""
    return f"<td class='words'>{text(value)}</td>"


def swatch(colour: str) -> str:
    """A small square of a colour, which the name beside it explains."""
    return f"<i style='background:{colour}'></i>"


def table(caption: str, header: Sequence[str], rows: Iterable[str], *, texts: Sequence[str] = ()) -> str:
    """A table in a frame of its own, which alone scrolls sideways where the window is narrow.

    Args:
        caption: what the table holds, for those who do not see it.
        header: names of the columns.
        rows: the cells of each row, or a whole row.
        texts: columns of text, beside the first; the others hold numbers.
    """
    left = {header[0], *texts}
    cells = "".join(f"<th scope='col'{' class=words' if name in left else ''}>{text(name)}</th>" for name in header)
    body = "".join(row if row.startswith("<tr") else f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div class='scroll' role='region' aria-label='{text(caption)}' tabindex='0'><table>"
        f"<caption>{text(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def embed(data: bytes, *, description: str, kind: str = "jpeg") -> str:
    """A JPEG or PNG file within the page."""
    return f"<img alt='{text(description)}' src='data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}'>"


def bars(title: str, counts: Sequence[int]) -> str:
    """A histogram of photographs over [0, 1] as bars, told in words too."""
    highest = max(counts)
    starts = [position / len(counts) for position in range(len(counts))]
    items = "".join(
        f"<li style='height:{100 * count / highest:.1f}%' title='from {start:.2f}: {count:,} photographs'></li>"
        for start, count in zip(starts, counts, strict=True)
    )
    told = ", ".join(f"{start:.2f}: {count}" for start, count in zip(starts, counts, strict=True) if count)
    return (
        f"<figure class='bars'><figcaption>{title}: photographs in each twentieth, {highest:,} at most</figcaption>"
        f"<ol role='img' aria-label='{title}, photographs from each value on: {told}'>{items}</ol>"
        "<p class='axis' aria-hidden='true'><span>0</span><span>0.5</span><span>1</span></p></figure>"
    )
