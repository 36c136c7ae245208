"""Take the picture of the playground that the documentation shows, in headless Chromium on Toytown's scenes alone.

PYTHONPATH=src:tests python tests/serving/page_pictures.py docs/playground.jpg
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageOps
from served import served

from browser import Browser, started

DESK, PHONE = (1400, 1000), (390, 964)
MARGIN = 40
QUALITY = 80
DESK_VIEW = {
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
PHONE_VIEW = {
    "example": "toytown-4",
    "classes": ["sky", "water; sea", "boat; ship", "grass; meadow", "bench"],
    "colour": ["#8a63d2sky", "#2f9bffwater", "#f7c948boat", "#3fb950grass", "#e0559bbench"],
}


def take(
    window: Browser, address: str, view: Mapping[str, object], *, size: tuple[int, int], dark: bool
) -> Image.Image:
    """The window once the picture is segmented."""
    window.show("about:blank", width=size[0])
    window.show(f"{address}/#{urlencode(view, doseq=True)}", width=size[0], dark=dark)
    window.tell("Emulation.setTouchEmulationEnabled", enabled=size == PHONE)
    window.until("document.querySelector('#status').textContent.includes('ms')")
    window.until("[...document.querySelectorAll('.examples img')].every(each => each.naturalWidth)")
    shown = Image.open(io.BytesIO(window.picture(whole=True))).convert("RGB")
    return shown.crop((0, 0, *size))


def compose(desk: Image.Image, phone: Image.Image) -> Image.Image:
    """The phone beside the desk."""
    desk = ImageOps.expand(desk, border=1, fill="#888")
    phone = ImageOps.expand(phone, border=(desk.height - phone.height) // 2, fill="#111")
    whole = Image.new("RGB", (desk.width + phone.width + 3 * MARGIN, desk.height + 2 * MARGIN), "#e4e8ed")
    whole.paste(desk, (MARGIN, MARGIN))
    whole.paste(phone, (desk.width + 2 * MARGIN, MARGIN))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    with served() as server, tempfile.TemporaryDirectory() as profile, started(Path(profile)) as window:
        desk = take(window, server.address, DESK_VIEW, size=DESK, dark=False)
        phone = take(window, server.address, PHONE_VIEW, size=PHONE, dark=True)
    whole = compose(desk, phone)
    whole.save(out, quality=QUALITY, optimize=True, progressive=True, subsampling=0)


if __name__ == "__main__":
    main()
