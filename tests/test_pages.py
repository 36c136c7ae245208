"""Every page in headless Chromium, on a phone and a desk, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, missing, started
from page_site import make_site

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
PAGES = ("demo", "labels", "quality", "masks", "evaluation", "suggest", "suite")
PHONE, DESK = 390, 1280
ENTER, ESCAPE, RIGHT, SPACE = "\ue007", "\ue00c", "\ue014", " "

# Text whose contrast with what lies behind it is below 4.5, as WCAG 2 computes it; each with the contrast.
PALE = """
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = colour => {
  const [r, g, b] = colour.map(value => value / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = element => {
  for (let each = element; each; each = each.parentElement) {
    const [r, g, b, alpha = 1] = channels(getComputedStyle(each).backgroundColor);
    if (alpha === 1) return [r, g, b];
    if (alpha !== 0) return [NaN, NaN, NaN];
  }
  return [255, 255, 255];
};
for (const each of document.querySelectorAll('details')) each.open = true;
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; node = texts.nextNode();) {
  const element = node.parentElement;
  if (!node.data.trim() || !element.checkVisibility() || element.closest('option, script, style')) continue;
  for (const pseudo of [null, '::before', '::after']) {
    const [low, high] = [channels(getComputedStyle(element, pseudo).color).slice(0, 3), behind(element)]
      .map(luminance).sort((a, b) => a - b);
    const contrast = (high + .05) / (low + .05);
    if (!(contrast >= 4.5)) found.push(`${contrast.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
}
return [texts.root.innerText.length, found];
"""
CUT = """
return [...document.querySelectorAll('.scroll, pre')].filter(e => e.scrollWidth > e.clientWidth)
  .map(e => e.ariaLabel ?? e.innerText)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable(browser: Browser, site: dict[str, Path], name: str, width: int, dark: bool) -> None:
    browser.show(site[name], width=width, dark=dark)
    letters, pale = browser.run(PALE)
    assert letters > 500
    assert pale == []
    assert browser.run("return [innerWidth, document.scrollingElement.scrollWidth]") == [width, width]
    assert browser.run(CUT) == []
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)"
    )
    assert browser.complaints() == []


@pytest.mark.parametrize("name", PAGES)
def test_tables_fit_every_width(browser: Browser, site: dict[str, Path], name: str) -> None:
    browser.show(site[name], width=DESK)
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    stacked = []
    for width in (2000, 1024, 768, 320):
        browser.resize(width)
        assert browser.run("return document.scrollingElement.scrollWidth") == width
        assert browser.run(CUT) == []
        stacked.append(browser.run("return document.querySelectorAll('.stacked').length"))
    assert stacked[0] == 0
    assert stacked == sorted(stacked)
    assert stacked[-1] > 0


@pytest.mark.parametrize("name", PAGES)
def test_anchors_and_names_are_there(browser: Browser, site: dict[str, Path], name: str) -> None:
    browser.show(site[name], width=DESK)
    anchors = "return [...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash)"
    assert browser.run(f"{anchors}.filter(hash => !document.querySelector(hash))") == []
    assert browser.run("return [...document.images].filter(image => !image.alt || !image.naturalWidth).length") == 0
    assert browser.run("return document.title") == browser.run("return document.querySelector('h1').textContent")


@pytest.mark.parametrize("name", [name for name in PAGES if name != "suite"])
def test_a_picture_is_enlarged_by_a_click_and_by_keys(browser: Browser, site: dict[str, Path], name: str) -> None:
    browser.show(site[name], width=PHONE)
    shown = "const d = document.querySelector('dialog'); return d.open && d.querySelector('img').offsetWidth"
    small = browser.run("return Math.min(...[...document.querySelectorAll('main img')].map(i => i.offsetWidth))")
    browser.run("document.querySelector('.zoom').click()")
    assert browser.run(shown) > small
    browser.press(ESCAPE)
    assert browser.run(shown) is False
    for key in (ENTER, SPACE):
        browser.run("document.querySelector('.zoom').focus()")
        browser.press(key)
        assert browser.run(shown) > small
        assert browser.run("return document.scrollingElement.scrollWidth") == PHONE
        browser.press(ESCAPE)
    assert browser.run("return document.activeElement.className") == "zoom"


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_every_table_is_sorted_by_its_headings(browser: Browser, site: dict[str, Path], name: str, width: int) -> None:
    browser.show(site[name], width=width)
    wrong = browser.run("""
      const wrong = [];
      for (const details of document.querySelectorAll('details')) details.open = true;
      for (const table of document.querySelectorAll('table')) {
        const [heading] = table.tHead.rows[0].cells;
        const texts = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent.trim());
        const rising = texts().sort((a, b) => a.localeCompare(b, 'en', {numeric: true}));
        heading.querySelector('button').click();
        if (heading.ariaSort !== 'ascending' || texts().join() !== rising.join()) wrong.push(table.caption.textContent);
        heading.querySelector('button').click();
        if (heading.ariaSort !== 'descending' || texts().join() !== rising.reverse().join()) wrong.push('falling');
      }
      return [document.querySelectorAll('table').length, wrong]""")
    assert wrong[0] > 0
    assert wrong[1] == []


def test_numbers_are_sorted_as_numbers_and_unknown_ones_last(browser: Browser, site: dict[str, Path]) -> None:
    browser.show(site["suite"], width=DESK)
    column = "return [...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[1].textContent)"
    click = "document.querySelectorAll('thead button')[1].click();"
    assert browser.run(click + column) == ["0.1 %", "50.0 %", "–"]
    assert browser.run(click + column) == ["50.0 %", "0.1 %", "–"]


@pytest.mark.parametrize(("name", "right"), [("demo", "exact"), ("evaluation", "prediction"), ("masks", "mask")])
def test_two_pictures_are_compared_by_a_slider(browser: Browser, site: dict[str, Path], name: str, right: str) -> None:
    browser.show(site[name], width=PHONE)
    assert browser.run("return document.querySelector('.compare span + span').textContent") == right
    browser.run("document.querySelector('.compare input').focus()")
    browser.press(RIGHT)
    assert browser.run("return document.querySelector('.compare').style.getPropertyValue('--at')") == "51%"
    sizes = "return [...document.querySelectorAll('.compare')].map(c => [...c.querySelectorAll('img')]"
    assert browser.run(f"{sizes}.map(i => i.naturalWidth / i.naturalHeight)).every(([a, b]) => a === b)")


def test_only_photographs_with_a_class_are_shown(browser: Browser, site: dict[str, Path]) -> None:
    browser.show(site["labels"], width=DESK)
    cards = "return [...document.querySelectorAll('figure.card')].filter(card => card.checkVisibility()).length"
    assert browser.run(cards) == 4
    choose = "const s = document.getElementById('class'); s.value = '0'; s.dispatchEvent(new Event('change'));"
    assert browser.run(choose + cards) == 3
    assert browser.run("return document.getElementById('found').textContent") == "3 in the table below"


@pytest.mark.parametrize(
    ("page", "links"),
    [("demo", ("labels", "labels-dusk", "masks", "evaluation")), ("suite", ("voc",))],
)
def test_links_lead_to_the_other_pages_and_back(
    browser: Browser, site: dict[str, Path], page: str, links: tuple[str, ...]
) -> None:
    for folder in links:
        browser.show(site[page], width=DESK)
        browser.run(f"document.querySelector('a[href^=\"{folder}/\"]').click()")
        assert browser.address().split("?")[0] == (site[page].parent / folder / "report.html").as_uri()
        assert browser.run("return document.querySelector('nav a').textContent") == "Overview"
        browser.run("document.querySelector('nav a').click()")
        assert browser.address() == site[page].as_uri()


@pytest.mark.parametrize("up", ["", "javascript:alert(1).html", "//elsewhere/a.html", "/a.html", "a.exe"])
def test_a_way_back_that_is_no_page_beside_it_is_not_offered(browser: Browser, site: dict[str, Path], up: str) -> None:
    browser.show(site["labels"], width=DESK, query=f"?up={up}")
    assert browser.run("return document.querySelector('nav a').textContent") == "Worst"
