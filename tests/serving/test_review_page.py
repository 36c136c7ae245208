"""The review and the jobs in headless Chromium: whatever ends the server and whoever else decides, nothing is lost."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from export_data import VOCABULARY, make_labels, segment
from PIL import Image
from served import Served, served

from browser import Browser, missing, started
from patchword.data.masks import Segment
from patchword.labeling.review import Decision, ReviewLog
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene, scene_seed
from small_world import Models, files_in, make_world

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
PHONE, DESK = 360, 1400
SIZE = (96, 128)
ENTER, DELETE, ESCAPE = "\ue007", "\ue017", "\ue00c"
CHANGES = (
    "return [...document.querySelectorAll('#masks button')]"
    ".map(each => [each.dataset.key, each.querySelector('small').innerText.split(' · ')[0].trim()])"
)
IDLE = "setInterval = () => 0"  # this page does not look by itself at what others decide


def boxes() -> tuple[np.ndarray, list[Segment]]:
    """Three masks side by side, one of each class, and their map."""
    indices = np.full(SIZE, 255, dtype=np.uint8)
    segments = []
    for index in range(3):
        mask = np.zeros(SIZE, dtype=bool)
        mask[8 : 40 + 8 * index, 8 + 40 * index : 40 + 40 * index] = True
        indices[mask] = index
        segments.append(segment(mask, index, 0.5))
    return indices, segments


def make_folder(folder: Path) -> Path:
    """Labels of four photographs of Toytown; their folder."""
    labels = make_labels(folder, {f"{number}.png": boxes() for number in range(4)})
    for number, item in enumerate(labels):
        scene = draw_scene(scene_seed("test", index=number), size=SIZE, style="day")
        Image.fromarray(scene.image).save(item.image)
    return labels.folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def server(labels: Path) -> Iterator[Served]:
    options = ("--labels", labels, "--root", labels.parent, "--mask-generator", miniatures.SAM, "--device", "cpu")
    with served(*options) as running:
        yield running


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def visit(window: Browser, server: Served, name: str, *, width: int = DESK, dark: bool = False) -> Browser:
    window.show("about:blank", width=width)
    window.complaints()
    window.show(f"{server.address}/review#{name}", width=width, dark=dark)
    window.until(
        f"document.querySelector('#name').innerText === '{name}' && document.querySelector('#stage img').complete"
    )
    return window


def select(page: Browser, key: str) -> None:
    page.run(f"document.querySelector('#masks [data-key=\"{key}\"]').click()")


def shows(page: Browser, key: str, change: str) -> None:
    """Wait until the list of masks says that of a mask."""
    page.until(f"document.querySelector('#masks [data-key=\"{key}\"] small')?.innerText.startsWith('{change}')")


def decided(labels: Path, name: str) -> list[Decision]:
    return list(ReviewLog(labels).decisions(name))


def test_a_click_and_a_box_add_masks(window: Browser, server: Served, labels: Path) -> None:
    page = visit(window, server, "0.png")
    page.press("2", "a")
    page.point("#stage", (0.5, 0.8), drag=True)
    page.until("!document.querySelector('#adding').hidden")
    page.press(ESCAPE)
    assert page.run("return document.querySelector('#adding').hidden")
    page.point("#stage", (0.5, 0.8), drag=True)
    page.until("!document.querySelector('#adding').hidden")
    page.press(ENTER)
    page.until("document.querySelectorAll('#masks button').length === 4")
    page.press("x")
    page.point("#stage", (0.4, 0.4), (0.7, 0.9), drag=True)
    page.until("!document.querySelector('#adding').hidden")
    page.press(ENTER)
    page.until("document.querySelectorAll('#masks button').length === 5")
    added = decided(labels, "0.png")
    assert [(each.action, each.class_name) for each in added] == [("add", VOCABULARY.names[1])] * 2
    assert page.complaints() == []


def test_brush_eraser_and_undo(window: Browser, server: Served, labels: Path) -> None:
    page = visit(window, server, "1.png")
    select(page, "0")
    page.press("b")
    page.point("#stage", (0.3, 0.9), (0.6, 0.9), drag=True)
    page.press("e")
    page.point("#stage", (0.45, 0.9), (0.46, 0.9), drag=True)  # whether or not the first is saved by now
    page.press("s", ESCAPE, "b")
    page.point("#stage", (0.5, 0.7), (0.5, 0.75), drag=True)
    page.until("document.querySelectorAll('#masks button').length === 4")
    shows(page, "0", "redrawn")
    page.press("z")
    page.until("document.querySelectorAll('#masks button').length === 3")
    log = decided(labels, "1.png")
    assert [each.action for each in log] == ["replace", "replace", "add", "undo"]
    first, second = (Segment.from_mask(each.rle, **FACTS).mask() for each in log[:2])  # type: ignore[arg-type]
    was = boxes()[1][0].mask()
    assert (first | was == first).all()
    assert first.sum() > was.sum()
    assert (first & second == second).all()
    assert 0 < second.sum() < first.sum()


FACTS: dict[str, Any] = {
    "class_index": 0,
    "class_name": "",
    "score": 1,
    "predicted_iou": 1,
    "similarity": 1,
    "generator": "",
}


def test_all_by_keyboard(window: Browser, server: Served, labels: Path) -> None:
    page = visit(window, server, "2.png")
    page.run("document.querySelector('#stage').focus()")
    page.press("\ue012", "\ue013", " ")  # left and up of the middle: in a mask
    page.until("document.querySelector('#masks [aria-pressed=true]')")
    page.press("y")
    page.until("[...document.querySelectorAll('#masks small')].some(each => each.innerText.startsWith('accepted'))")
    page.press("n", "r")
    page.until("[...document.querySelectorAll('#masks small')].some(each => each.innerText.startsWith('rejected'))")
    page.press("v")
    assert page.run("return document.querySelector('#shown').value") == "result"
    page.press("?")
    assert page.run("return document.querySelector('#keys').open")
    page.press(ESCAPE)
    page.press("j")
    page.until("document.querySelector('#name').innerText === '3.png'")
    assert [each.action for each in decided(labels, "2.png")] == ["accept", "reject"]


def test_two_people_at_once_lose_nothing_and_are_told(
    window: Browser, server: Served, labels: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(started(tmp_path / "profile"))
        for each, who in ((window, "Ann"), (other, "Bob")):
            each.tell("Page.addScriptToEvaluateOnNewDocument", source=IDLE)
            visit(each, server, "3.png")
            each.run(f"const field = document.querySelector('#reviewer'); field.value = '{who}'")
            select(each, "0")
        window.press(DELETE)
        shows(window, "0", "removed")
        other.press("3")
        shows(other, "0", "renamed")
        assert "Ann decided" in other.run("return document.querySelector('#problem:not([hidden])').innerText")
        assert window.run("return document.querySelector('#problem').hidden")
    log = decided(labels, "3.png")
    assert [(each.action, each.reviewer) for each in log] == [("remove", "Ann"), ("rename", "Bob")]


@pytest.mark.parametrize(("width", "dark"), [(DESK, False), (DESK, True), (PHONE, False)])
def test_pages_have_no_barriers_and_fit(window: Browser, server: Served, width: int, dark: bool) -> None:
    page = visit(window, server, "0.png", width=width, dark=dark)
    select(page, "0")
    assert page.barriers() == []
    page.press("?")
    assert page.barriers() == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.show(f"{server.address}/jobs", width=width, dark=dark)
    page.until("document.querySelector('#fields input')")
    assert page.barriers() == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.complaints() == []


def test_what_is_learned_is_shown(window: Browser, server: Served) -> None:
    page = visit(window, server, "0.png")
    page.press("v")
    page.until("document.querySelector('#stage canvas').getContext('2d').getImageData(12, 12, 1, 1).data[3] > 0")
    data = base64.b64decode(page.run("return document.querySelector('#stage canvas').toDataURL()").split(",")[1])
    pixels = np.array(Image.open(io.BytesIO(data)))
    assert pixels.shape == (*SIZE, 4)
    answer = httpx.get(f"{server.address}/v1/review/results/0.png")
    expected = np.array(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(pixels[..., 3] > 0, expected[..., 3] > 0)


def test_a_job_is_started_watched_and_says_why_it_failed(window: Browser, server: Served) -> None:
    window.show(f"{server.address}/jobs", width=DESK)
    window.until("document.querySelector('#fields input')")
    window.run("document.querySelector('#command').value = 'align'")
    window.run("document.querySelector('#command').dispatchEvent(new Event('change'))")

    def fill(labels: str) -> None:
        window.run(f"document.querySelector('[name=labels]').value = '{labels}'")
        window.run("document.querySelector('[name=out]').value = 'model'")
        window.run("document.querySelector('#new button').click()")

    fill("../labels")
    window.until("document.querySelector('#problem:not([hidden])')?.innerText.includes('must be relative')")
    fill("photos")
    window.until("document.querySelector('#jobs .bad')?.innerText.includes('is not a label folder')")
    window.run("document.querySelector('#jobs summary').click()")
    window.until("document.querySelector('#jobs pre').innerText.includes('is not a label folder')")
    window.run("[...document.querySelectorAll('#jobs button')].find(each => each.innerText === 'Resume').click()")
    window.until("document.querySelector('#jobs pre').innerText.split('is not a label folder').length === 3")
    (job,) = httpx.get(f"{server.address}/v1/jobs").json()["jobs"]
    assert job["tries"] == 2
    window.until("document.querySelector('#jobs .bad')?.innerText.includes('is not a label folder')")


def test_decisions_survive_a_kill_and_a_restart_and_are_learned(
    window: Browser, models: Models, tmp_path: Path
) -> None:
    root, labels = tmp_path / "root", tmp_path / "root" / "labels"
    inside = Models(*(shutil.copytree(getattr(models, name), root / name) for name in ("clip", "sam", "dinov2")))
    make_world(root, models=inside)
    before = files_in(labels)
    options = ("--labels", labels, "--root", root, "--model", root / "model", "--device", "cpu")
    with served(*options) as first:
        page = visit(window, first, "0.png")
        page.press("n", DELETE)
        removed = page.run("return document.querySelector('#masks [aria-pressed=true]').dataset.key")
        shows(page, removed, "removed")
        page.press("n", "y")
        accepted = page.run("return document.querySelector('#masks [aria-pressed=true]').dataset.key")
        shows(page, accepted, "accepted")
        page.press("d")
        page.until("document.querySelector('#name').innerText === '1.png'")
        first.kill()
    assert [each.action for each in decided(labels, "0.png")] == ["remove", "accept", "done"]
    assert {name: data for name, data in files_in(labels).items() if name != "reviews.jsonl"} == before
    with served(*options) as second:
        page = visit(window, second, "0.png")
        changes = dict(page.run(CHANGES))
        assert (changes[removed], changes[accepted]) == ("removed", "accepted")
        assert page.run("return document.querySelector('#done').ariaPressed") == "true"
        assert page.run("return document.querySelector('#progress-said').innerText") == "1 of 2 done"
        page.press("z", "z")  # undone by whoever comes after
        page.until(f"document.querySelector('#masks [data-key=\"{accepted}\"] small').innerText.startsWith('score')")
        page.run("document.querySelector('#training').open = true; document.querySelector('#train').click()")
        page.until("document.querySelector('#training-state .job-line')")
        page = visit(window, second, "0.png")  # it runs on, or has ended meanwhile
        page.until("document.querySelector('#training summary').innerText.includes('(model-2: ')")
        page.run("document.querySelector('#training').open = true")
        (job,) = httpx.get(f"{second.address}/v1/jobs").json()["jobs"]
        while job["state"] in ("waiting", "running"):  # longer than a script of the page may take
            time.sleep(0.05)
            job = httpx.get(f"{second.address}/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job
        page.until("document.querySelector('#training-state table')")
        change = httpx.get(f"{second.address}/v1/review/changes/{job['id']}", timeout=60).json()
        assert change["names"][0] == "0.png"
        shares = [change[name] for name in ("changed", "agreement_before", "agreement_after")]
        said = page.run("return [...document.querySelectorAll('#training-state td')].map(each => each.innerText)")
        assert [float(each.split()[0].strip("<")) for each in said] == pytest.approx(
            [100 * each for each in shares], abs=0.1
        )
        page = visit(window, second, "0.png")
        page.until("document.querySelector('#training summary').innerText.includes('(model-2: done)')")
        page.run("document.querySelector('#training').open = true")
        page.until("document.querySelector('#training-state table')")
        assert page.complaints() == []
    assert "reviewed: 1 of 2 photographs" in (root / ".patchword-jobs" / job["id"] / "log.txt").read_text()
