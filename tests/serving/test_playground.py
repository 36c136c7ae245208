"""The playground in headless Chromium, against a real server with two training-free methods on Toytown's miniatures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from served import Served, served

from browser import Browser, missing, started
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene, scene_seed

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
PHONE, DESK = 360, 1400
MOST = 20_000  # pixels of a picture that the server takes
WORDS = ("sky", "grass; meadow", "water", "house")
LINK = "#" + "&".join(f"classes={word.replace(' ', '+')}" for word in WORDS)
ENTER, BACKSPACE, DELETE, ESCAPE = "\ue007", "\ue003", "\ue017", "\ue00c"
LEFT, RIGHT, DOWN, HOME = "\ue012", "\ue014", "\ue015", "\ue011"
CALM = "document.querySelector('#stage')?.ariaBusy === 'false'"
ROWS = (
    "return [...document.querySelectorAll('#legend tbody tr:not([hidden])')]"
    ".map(row => [...row.cells].slice(0, -1).map(cell => cell.innerText))"
)
LAYER = "return document.querySelectorAll('#stage canvas')[arguments[0] ?? 0].toDataURL()"
CHIPS = "return [...document.querySelectorAll('#classes .word')].map(chip => chip.innerText)"
TIP = "return document.querySelector('#tip:not([hidden])')?.innerText"
FIELD = "document.querySelector('#classes > input').focus()"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    methods = ("--method", "naclip", "--method", "proxyclip")
    with served(
        *methods, "--set", f"megapixels={MOST / 1e6}", "--image-text", miniatures.CLIP, "--encoder", miniatures.DINO
    ) as running:
        yield running


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "a scene.png"
    Image.fromarray(draw_scene(scene_seed("test", index=1), size=(96, 128), style="day").image).save(path)
    return path


@pytest.fixture
def page(window: Browser, server: Served, scene: Path) -> Browser:
    """The playground with a picture and four classes."""
    visit(window, server.address + "/" + LINK)
    window.upload("#file", scene)
    window.until(f"document.querySelector('#stage img').alt.includes('a scene') && {CALM}")
    return window


def visit(window: Browser, address: str, *, width: int = DESK, dark: bool = False) -> None:
    window.show("about:blank", width=width)  # an address that differs only behind # would not be loaded again
    window.complaints()
    window.show(address, width=width, dark=dark)
    window.until("document.querySelector('#model')?.options.length")


def forward_passes(server: Served) -> float:
    text = httpx.get(f"{server.address}/metrics").text
    return sum(map(float, re.findall(r"^patchword_forward_passes_total(?:\{.*\})? (\S+)$", text, re.MULTILINE)))


def answer(server: Served, scene: Path, *, model: str = "default") -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """What the API says of the picture: names, labels (h, w) and confidence (h, w) in 0 to 255."""
    image = httpx.post(f"{server.address}/v1/images", files={"file": scene.read_bytes()}).json()["image"]
    asked = {"model": model, "classes": WORDS, "background": []}
    found = httpx.post(f"{server.address}/v1/images/{image}/segment", json=asked, timeout=60).json()
    labels, confidence = (
        np.array(Image.open(io.BytesIO(base64.b64decode(found[name])))) for name in ("labels", "confidence")
    )
    return [each["name"] for each in found["classes"]], labels, confidence


def choose(page: Browser, selector: str, value: object) -> None:
    """Give a field a value, as a person does who drags or picks it."""
    page.run(
        "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {bubbles: true}))",
        selector,
        value,
    )
    page.settle()


def compare(page: Browser) -> None:
    choose(page, "#compare", "model-2")
    page.until(f"{CALM} && !document.querySelector('.divider').hidden")


def test_a_picture_that_is_too_large_is_made_smaller_and_says_so(page: Browser, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.fromarray(draw_scene(scene_seed("test", index=2), size=(240, 320), style="day").image).save(large)
    assert page.run("return document.querySelector('#shrunk').hidden")
    page.upload("#file", large)
    page.until(f"document.querySelector('#stage img').alt.includes('large') && {CALM}")
    page.until("document.querySelector('#stage canvas').width < 320")
    width, height = page.run("const {width, height} = document.querySelector('#stage canvas'); return [width, height]")
    assert 0.9 * MOST < width * height <= MOST
    assert abs(width / height - 320 / 240) < 0.02
    assert f"to {width} × {height} pixels" in page.run("return document.querySelector('#shrunk').innerText")
    assert page.run("return document.querySelector('#problem').hidden")


def test_new_words_change_overlay_and_legend_without_a_forward_pass(page: Browser, server: Served, scene: Path) -> None:
    names, labels, confidence = answer(server, scene)
    rows = page.run(ROWS)
    shown = {name: (np.mean(labels == index), confidence[labels == index].mean()) for index, name in enumerate(names)}
    expected = sorted((name for name in names if shown[name][0]), key=lambda name: -shown[name][0])
    assert [row[0] for row in rows] == expected
    for name, share, mean in rows:
        assert float(share.split()[0].strip("<")) == pytest.approx(100 * shown[name][0], abs=0.1)
        assert float(mean) == pytest.approx(shown[name][1] / 255, abs=0.006)
    before, passes = page.run(LAYER), forward_passes(server)
    assert passes > 0
    page.run(FIELD)
    page.press(*"tree, road; street", ENTER)
    page.until(CALM)
    assert page.run(CHIPS) == [*WORDS, "tree", "road; street"]
    assert {"tree", "road"} & {row[0] for row in page.run(ROWS)}
    assert page.run(LAYER) != before
    assert forward_passes(server) == passes
    assert "features kept" in page.run("return document.querySelector('#status').innerText")
    assert page.complaints() == []


def test_chips_are_edited_and_removed_by_keys(page: Browser) -> None:
    page.run(FIELD)
    page.press(BACKSPACE)  # in an empty field: to the last chip
    page.press(LEFT, DELETE)
    assert page.run(CHIPS) == ["sky", "grass; meadow", "house"]
    page.press(HOME, ENTER, *"dawn; heaven", ENTER)
    assert page.run(CHIPS) == ["dawn; heaven", "grass; meadow", "house"]
    page.press(ENTER, *"night", ESCAPE, RIGHT, RIGHT, RIGHT, *"house; home", ENTER)  # one of that name is there
    assert page.run(CHIPS) == ["dawn; heaven", "grass; meadow", "house"]
    page.until(CALM)
    assert {row[0] for row in page.run(ROWS)} <= {"dawn", "grass", "house"}


def test_the_pointer_and_the_cursor_tell_class_and_score(page: Browser, server: Served, scene: Path) -> None:
    names, labels, confidence = answer(server, scene)
    height, width = labels.shape
    for x, y in ((0.1, 0.2), (0.5, 0.55), (0.8, 0.9)):
        page.point("#stage", (x, y))
        near = [
            (f"{names[labels[row, column]]} {confidence[row, column] / 255:.2f}")
            for row in range(int(y * height) - 1, int(y * height) + 2)
            for column in range(int(x * width) - 1, int(x * width) + 2)
        ]
        assert page.run(TIP) in near
    page.run("document.querySelector('#stage').focus()")
    page.press(RIGHT, DOWN)
    row, column = int(0.51 * height), int(0.51 * width)
    told = f"{names[labels[row, column]]} {confidence[row, column] / 255:.2f}"
    assert page.run("return document.querySelector('#pointed').innerText") == told


def test_the_threshold_needs_no_request(page: Browser, server: Served, scene: Path) -> None:
    _, _, confidence = answer(server, scene)
    before, passes = page.run(LAYER), forward_passes(server)
    asked = page.run("return performance.getEntriesByType('resource').length")
    middle = float(np.median(confidence)) / 255
    choose(page, "#threshold", round(middle, 2))
    assert page.run(LAYER) != before
    name, share, _ = page.run(ROWS)[-1]
    assert name == "no class"
    below = float(np.mean(confidence / 255 < round(middle, 2)))
    assert float(share.split()[0]) == pytest.approx(100 * below, abs=0.1)
    assert page.run("return performance.getEntriesByType('resource').length") == asked
    assert forward_passes(server) == passes


def test_a_class_is_isolated_hidden_and_recoloured(page: Browser) -> None:
    def colours() -> set[tuple[int, ...]]:
        data = base64.b64decode(page.run(LAYER).split(",")[1])
        pixels = np.array(Image.open(io.BytesIO(data))).reshape(-1, 4)
        return {tuple(map(int, pixel)) for pixel in np.unique(pixels, axis=0)}

    def press(row: int, button: str) -> None:
        page.run(
            f"document.querySelectorAll('#legend tbody tr')[{row}].querySelector('[aria-label^={button}]').click()"
        )
        page.settle()

    choose(page, "#opacity", 1)
    everything = colours()
    assert len(everything) == len(page.run(ROWS))
    press(0, "Show")
    assert len(colours()) == 2
    assert (0, 0, 0, 0) in colours()
    press(0, "Show")
    press(1, "Hide")
    assert len(colours() & everything) == len(everything) - 1
    choose(page, "#legend input[type=color]", "#010203")
    assert (1, 2, 3, 255) in colours()
    choose(page, "#opacity", 0.2)
    assert {alpha for *_, alpha in colours()} == {0, 51}


def test_two_models_are_compared_across_a_divider(page: Browser, server: Served, scene: Path) -> None:
    compare(page)
    assert page.run(LAYER, 0) != page.run(LAYER, 1)
    assert page.run("return [...document.querySelectorAll('.side')].map(each => each.innerText)") == [
        "naclip",
        "proxyclip",
    ]
    assert [len(row) for row in page.run(ROWS)] == [3] * len(page.run(ROWS))
    place = "return Number(document.querySelector('.divider').ariaValueNow)"
    assert page.run(place) == 50
    page.point("#stage", (0.5, 0.5), (0.6, 0.5), (0.25, 0.5), drag=True)
    assert page.run(place) == pytest.approx(25, abs=1)
    page.run("document.querySelector('.divider').focus()")
    page.press(HOME)
    assert page.run(place) == 0
    page.press(RIGHT, RIGHT)
    assert page.run(place) == 4
    assert "96%" in page.run("return getComputedStyle(document.querySelector('#stage canvas')).clipPath")
    for model, x in (("model-2", 0.3), ("default", 0.02)):
        names, labels, _ = answer(server, scene, model=model)
        page.point("#stage", (x, 0.3))
        row, column = int(0.3 * labels.shape[0]), int(x * labels.shape[1])
        around = labels[row - 1 : row + 2, max(0, column - 1) : column + 2]
        assert page.run(TIP).rsplit(" ", 1)[0] in {names[index] for index in np.unique(around)}


def test_a_link_brings_the_view_back(page: Browser, server: Served, scene: Path) -> None:
    page.run(FIELD)
    page.press(*"tree", ENTER)
    choose(page, "#threshold", 0.4)
    page.run("document.querySelectorAll('#legend tbody tr')[1].querySelector('[aria-label^=Hide]').click()")
    page.until(f"{CALM} && location.hash.includes('hidden')")
    link, rows, layer = page.address(), page.run(ROWS), page.run(LAYER)
    visit(page, link)
    assert page.run(CHIPS) == [*WORDS, "tree"]
    page.upload("#file", scene)
    page.until(f"document.querySelector('#stage img').alt && {CALM}")
    assert page.run(ROWS) == rows
    assert page.run(LAYER) == layer


def test_a_picture_is_pasted_or_dropped_and_uploaded_again_when_forgotten(
    page: Browser, server: Served, scene: Path
) -> None:
    for kind in ("paste", "drop"):
        page.run(
            "const data = new DataTransfer(); const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));"
            "data.items.add(new File([bytes], `${arguments[1]}.png`, {type: 'image/png'}));"
            "document.body.dispatchEvent(arguments[1] === 'paste'"
            " ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})"
            " : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))",
            base64.b64encode(scene.read_bytes()).decode(),
            kind,
        )
        page.until(f"document.querySelector('#stage img').alt === 'Picture {kind}.png' && {CALM}")
    with httpx.Client() as client:
        for _ in range(33):  # more than the server remembers
            client.post(f"{server.address}/v1/images", files={"file": scene.read_bytes()})
    page.run(FIELD)
    page.press(*"tree", ENTER)
    page.until(CALM)
    assert "tree" in page.run(CHIPS)
    assert page.run("return document.querySelector('#problem').hidden")


def test_what_is_saved_is_what_is_shown(
    page: Browser, server: Served, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, labels, confidence = answer(server, scene)
    choose(page, "#threshold", 0.5)
    expected = np.where(confidence / 255 < 0.5, 255, labels)
    saved = {}
    for kind in ("mask", "overlay", "json"):
        saved[kind] = base64.b64decode(
            page.run(
                "return new Promise(done => { URL.createObjectURL = blob => { const reader = new FileReader();"
                " reader.onload = () => done(reader.result.split(',')[1]); reader.readAsDataURL(blob); return '#'; };"
                " document.getElementById(`save-${arguments[0]}`).click(); })",
                kind,
            )
        )
    assert (np.array(Image.open(io.BytesIO(saved["mask"]))) == expected).all()
    assert Image.open(io.BytesIO(saved["overlay"])).size == labels.shape[::-1]
    record = json.loads(saved["json"])
    for index, entry in enumerate(record["classes"]):
        runs = coco_mask.frPyObjects(entry["rle"], *entry["rle"]["size"])
        assert entry["name"] == names[index]
        assert (coco_mask.decode(runs).astype(bool) == (expected == index)).all()
    python = page.run("return document.querySelector('#python').innerText")
    assert len(python.splitlines()) == 3
    monkeypatch.chdir(scene.parent)
    told: dict[str, Any] = {}
    exec(python, told)
    assert np.mean(told["result"].mask != expected) < 0.01  # the page has confidences of 8 bits


def test_a_file_that_is_no_picture_is_refused_in_words(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    page.upload("#file", path)
    page.until("!document.querySelector('#problem').hidden")
    assert "notes.txt" in page.run("return document.querySelector('#problem').innerText")


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_everybody_can_use_it(page: Browser, width: int) -> None:
    compare(page)
    page.run("document.querySelector('#more').open = true")
    choose(page, "#threshold", 0.5)
    page.resize(width, mobile=width < 600)
    assert page.run("return [innerWidth, document.scrollingElement.scrollWidth]") == [width, width]
    for dark in (False, True):
        page.darken(dark)
        assert page.barriers() == []
    assert page.complaints() == []


def test_a_token_is_asked_for_once(window: Browser, scene: Path) -> None:
    with served("--token", "a long secret") as server:
        window.show("about:blank", width=DESK)
        window.show(f"{server.address}/{LINK}", width=DESK)
        window.until("document.querySelector('dialog[open] input')")
        window.press(*"wrong", ENTER)
        window.until("document.querySelector('dialog[open] p')?.innerText.includes('wrong')")
        window.press(*"a long secret", ENTER)
        window.until("document.querySelector('#model')?.options.length")
        window.upload("#file", scene)
        window.until(f"document.querySelector('#stage img').alt.includes('a scene') && {CALM}")
        assert window.run(ROWS)
        window.show(server.address, width=DESK)  # Toytown's own: an example and its classes are there at once
        window.until(f"document.querySelector('#legend tbody tr') && {CALM}")
        assert "grass; meadow" in window.run(CHIPS)
        assert window.run("return document.querySelector('.examples [aria-pressed=true]').dataset.id") == "toytown-1"
        assert not window.run("return document.querySelector('dialog')")
