"""Pages in headless Chromium on a phone and a desk, light and dark: no overflow; sorting and enlarging work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser, missing, started
from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.segmentation.page import write_page
from patchword.segmentation.records import ResultRecord, SegmentationRecord
from patchword.segmentation.result import class_areas, mask_path

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
NAMES = ("cat", "dog", "a class whose name is rather long and-has-no-good-place-to-break")
LONG = "a_photograph_whose_name_is_much_too_long_for_the_screen_of_any_phone.png"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    vocabulary = Vocabulary.of(list(NAMES))
    results = {"broken.png": ResultRecord(name="broken.png", status="failed", reason="cannot read it " * 9)}
    for number, name in enumerate(("a.png", "b.png", LONG)):
        indices = np.random.default_rng(number).integers(0, 3, (4, 6)).repeat(20, axis=0).repeat(20, axis=1)
        labels = LabelMap(indices, NAMES)
        labels.save(mask_path(folder, name))
        Image.fromarray(indices.astype(np.uint8) * 80).convert("RGB").save(folder / name)
        areas = class_areas(labels, with_runs=False)
        confidence = (0.5, 0.25, 0.75)[number]
        results[name] = ResultRecord(
            name=name, status="ok", size=indices.shape, classes=areas, ignored=0, mean_confidence=confidence
        )
    record = SegmentationRecord(
        complete=True,
        photographs=".",
        vocabulary=vocabulary.to_text(),
        vocabulary_hash=vocabulary.hash,
        names=NAMES,
        segmenter={"kind": "none", "folder": "/a/long/way/" * 20},
        settings=SegmentSettings(),
        folder_settings=FolderSettings(),
        shard=None,
        counts=None,
    )
    write_page(folder, record=record, results=results)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_overflows_and_the_console_is_silent(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.show(page, width=width, dark=dark)
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)"
    )
    assert browser.complaints() == []


def test_a_table_is_sorted_by_its_headings(browser: Browser, page: Path) -> None:
    browser.show(page, width=1280)
    names = "return [...document.querySelectorAll('#images ~ .scroll tbody')][0].innerText.match(/[ab]\\.png|a_ph/g)"
    click = "document.querySelectorAll('#images ~ .scroll thead button')[1].click();"
    aria = "return document.querySelectorAll('#images ~ .scroll th')[1].ariaSort"
    assert browser.run(click + names) == ["b.png", "a.png", "a_ph"]
    assert browser.run(aria) == "ascending"
    assert browser.run(click + names) == ["a_ph", "a.png", "b.png"]
    assert browser.run(aria) == "descending"


def test_a_picture_is_enlarged_and_compared_by_the_keyboard(browser: Browser, page: Path) -> None:
    browser.show(page, width=390)
    browser.run("document.querySelector('.zoom').focus()")
    browser.press("\ue007")  # Enter
    assert browser.run("return document.querySelector('dialog').open")
    assert browser.run("return document.querySelector('dialog .large').offsetWidth") > 300
    browser.press("\ue00c")  # Escape
    assert not browser.run("return document.querySelector('dialog').open")
    browser.run("document.querySelector('.compare input').focus()")
    browser.press("\ue014")  # to the right
    assert browser.run("return document.querySelector('.compare').style.getPropertyValue('--at')") == "51%"
