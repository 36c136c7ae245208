"""Take the pictures of the pages that the documentation shows: each at a desk and on a phone, in light and in dark.

In headless Chromium, on scenes of Toytown and its miniatures alone. It takes some minutes.

PYTHONPATH=src:tests:tests/serving python tests/serving/page_pictures.py docs/
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from PIL import Image, ImageOps
from served import Served, served

from browser import Browser, started
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene, scene_seed

DESK, PHONE = (1280, 1000), (360, 1640)
DESK_SCALE, PHONE_SCALE = 0.64, 0.78
MARGIN = 24
QUALITY = 82
SCENES = 8
CLASSES = ["sky", "grass; meadow", "water; sea", "tree", "house", "boat; ship", "car", "mushroom"]
DESK_VIEW: Mapping[str, Any] = {
    "example": "toytown-3",
    "classes": ["sky", "grass; meadow", "water; sea", "tree", "balloon", "mushroom", "fish", "cloud"],
    "compare": "model-2",
    "divider": 45,
    "colour": [
        "#35a7ffsky",
        "#3f51d6water",
        "#3fb950grass",
        "#e8a33dtree",
        "#e0559bballoon",
        "#d8432fmushroom",
        "#f7e04bfish",
        "#b79cedcloud",
    ],
}
PHONE_VIEW: Mapping[str, Any] = {
    "example": "toytown-4",
    "classes": ["sky", "water; sea", "boat; ship", "grass; meadow", "bench"],
    "colour": ["#8a63d2sky", "#2f9bffwater", "#f7c948boat", "#3fb950grass", "#e0559bbench"],
}


def make_root(root: Path) -> None:
    """Photographs and models inside a folder for jobs."""
    (root / "photos").mkdir(parents=True)
    for index in range(SCENES):
        scene = draw_scene(scene_seed("test", index=10 + index), size=(240, 320), style="day")
        Image.fromarray(scene.image).save(root / "photos" / f"scene-{index + 1}.png")
    for name, folder in (("clip", miniatures.CLIP), ("sam", miniatures.SAM), ("dino", miniatures.DINO)):
        shutil.copytree(folder, root / name)


def start_job(address: str, command: str, **options: Any) -> str:
    """Its id."""
    answer = httpx.post(f"{address}/v1/jobs", json={"command": command, "options": options})
    answer.raise_for_status()
    key: str = answer.json()["id"]
    return key


def wait_for(address: str, key: str) -> None:
    """Wait until a job has ended."""
    while (job := httpx.get(f"{address}/v1/jobs/{key}").json())["state"] in ("waiting", "running"):
        time.sleep(0.2)
    print(job["command"], job["state"], job.get("reason", ""))


def training(out: str, **settings: Any) -> dict[str, Any]:
    return {"labels": "labels", "out": out, "encoder": "dino", "settings": settings}


def show_playground(window: Browser, server: Served, *, phone: bool) -> None:
    view = PHONE_VIEW if phone else DESK_VIEW
    window.run(f"location.hash = '{urlencode(view, doseq=True)}'")
    window.until("document.querySelector('#stage').ariaBusy === 'false'")
    window.until("document.querySelector('#status').textContent.includes('ms')")
    window.until("[...document.querySelectorAll('.examples img')].every(each => each.naturalWidth)")


def show_review(window: Browser, server: Served, *, phone: bool) -> None:
    window.until("document.querySelector('#stage img').complete && document.querySelectorAll('#masks button').length")
    window.run("document.querySelector('#masks button').click()")
    window.until("document.querySelector('#masks [aria-pressed=true]')")


def show_jobs(window: Browser, server: Served, *, phone: bool) -> None:
    window.until("document.querySelector('#jobs progress[value]')")


def sheet(window: Browser, server: Served, path: str, show: Callable[..., None]) -> Image.Image:
    """A page four times: at a desk above each other, on phones beside them."""

    def take(size: tuple[int, int], *, dark: bool) -> Image.Image:
        window.show("about:blank", width=size[0])
        window.tell("Emulation.setTouchEmulationEnabled", enabled=size == PHONE)
        window.show(server.address + path, width=size[0], dark=dark)
        show(window, server, phone=size == PHONE)
        window.settle()
        shown = Image.open(io.BytesIO(window.picture(whole=True))).convert("RGB")
        shown = (
            ImageOps.pad(shown, size, color=shown.getpixel((0, shown.height - 1)), centering=(0, 0))
            if (shown.height < size[1])
            else shown.crop((0, 0, *size))
        )
        scale = PHONE_SCALE if size == PHONE else DESK_SCALE
        small = shown.resize((round(scale * size[0]), round(scale * size[1])), Image.Resampling.LANCZOS)
        return ImageOps.expand(small, border=1, fill="#888")

    light, dark = (take(DESK, dark=dark) for dark in (False, True))
    phones = [take(PHONE, dark=dark) for dark in (False, True)]
    width = light.width + sum(each.width for each in phones) + 4 * MARGIN
    height = max(light.height + dark.height + MARGIN, phones[0].height) + 2 * MARGIN
    whole = Image.new("RGB", (width, height), "#e4e8ed")
    whole.paste(light, (MARGIN, MARGIN))
    whole.paste(dark, (MARGIN, light.height + 2 * MARGIN))
    for number, each in enumerate(phones):
        whole.paste(each, (light.width + (2 + number) * MARGIN + number * each.width, MARGIN))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out

    def keep(name: str, whole: Image.Image) -> None:
        whole.save(out / f"{name}.jpg", quality=QUALITY, optimize=True, progressive=True)

    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "profile") as window:
        root = Path(folder) / "work"
        make_root(root)
        with served("--root", root) as server:
            keep("playground", sheet(window, server, "/", show_playground))
            models = {"image_text": "clip", "mask_generator": "sam"}
            wait_for(
                server.address,
                start_job(server.address, "label", photos="photos", classes=CLASSES, out="labels", **models),
            )
            wait_for(server.address, start_job(server.address, "align", **training("model", steps=40)))
        with served("--root", root, "--labels", root / "labels", "--model", root / "model") as server:
            keep("review", sheet(window, server, "/review", show_review))
            cancelled = start_job(server.address, "align", **training("model-2", steps=100_000))
            httpx.post(f"{server.address}/v1/jobs/{cancelled}/cancel").raise_for_status()
            wait_for(server.address, cancelled)
            running = start_job(server.address, "align", **training("model-3", steps=100_000))
            while not httpx.get(f"{server.address}/v1/jobs/{running}").json()["progress"]:
                time.sleep(0.2)
            keep("jobs", sheet(window, server, "/jobs", show_jobs))


if __name__ == "__main__":
    main()
