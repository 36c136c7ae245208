"""A small client of ChromeDriver: opens pages in headless Chromium at any width, light and dark."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

FLAGS = (
    "--headless",
    "--no-sandbox",  # root, as in a container, may not use it
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Why no browser can be started; empty where one can."""
    if not shutil.which("chromedriver"):
        return "no chromedriver on the PATH (Debian: apt-get install chromium chromium-driver)"
    return "" if any(map(shutil.which, BROWSERS)) else f"none of {', '.join(BROWSERS)} is on the PATH"


class Browser:
    """One window."""

    def __init__(self, address: str, *, profile: Path) -> None:
        self._open = build_opener(ProxyHandler({})).open
        self._base = address
        options = {
            "binary": next(filter(None, map(shutil.which, BROWSERS))),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self._base = f"{address}/session/{session}"

    def show(self, page: Path | str, *, width: int, dark: bool = False, query: str = "") -> None:
        """Open a file or an address as a screen of some width has it, with what stands behind its address."""
        self.darken(dark)
        self.resize(width, mobile=width < 600)
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._post("/url", {"url": address + query})
        self.settle()

    def darken(self, dark: bool) -> None:
        """Tell pages whether the person wants them dark."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.tell("Emulation.setEmulatedMedia", features=scheme)

    def resize(self, width: int, *, mobile: bool = False) -> None:
        """Make the window as wide as that."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.tell("Emulation.setDeviceMetricsOverride", **size, mobile=mobile)
        self.settle()

    def settle(self) -> None:
        """Wait until two frames are drawn, so that what observes sizes has been told of them."""
        self.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page; what it, or the promise that it gives, returns."""
        return self._post("/execute/sync", {"script": script, "args": arguments})

    def until(self, condition: str) -> Any:
        """Wait until an expression is true in the page, at most as long as a script may run; its value."""
        return self.run(
            f"return new Promise(done => (function look() {{ const found = {condition};"
            " found ? done(found) : setTimeout(look, 20) })())"
        )

    def address(self) -> str:
        """Of the page that is open."""
        found: str = self.run("return location.href")
        return found

    def press(self, *keys: str) -> None:
        """Press keys in turn, in what has the focus."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act(strokes, type="key", id="keyboard")

    def point(self, selector: str, *places: tuple[float, float], drag: bool = False) -> None:
        """Move the mouse over an element, to places that are shares of its width and height, from the first one on.

        Args:
            selector: of the element.
            places: (x, y) each, in [0, 1].
            drag: whether the button is down from the first place to the last.
        """
        box = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]",
            selector,
        )
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "x": round(box[0] + x * box[2]), "y": round(box[1] + y * box[3]), "duration": 0}
            for x, y in places
        ]
        if drag:
            moves = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self._act(moves, type="pointer", id="mouse", parameters={"pointerType": "mouse"})

    def _act(self, actions: list[dict[str, Any]], **device: Any) -> None:
        self._post("/actions", {"actions": [{**device, "actions": actions}]})

    def upload(self, selector: str, *files: Path) -> None:
        """Choose files in a file field, as a person does in the system's dialog."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        field = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=field, files=[str(path.resolve()) for path in files])

    def barriers(self) -> list[str]:
        """What axe-core finds serious or critical in the page: the rule and the first elements."""
        from axe_core_python.base import AXE_FILE_PATH

        self.run(AXE_FILE_PATH.read_text(encoding="utf-8"))
        found: list[str] = self.run(
            "return axe.run(document, {resultTypes: ['violations']}).then(found => found.violations"
            ".filter(each => ['serious', 'critical'].includes(each.impact))"
            ".map(each => `${each.id}: ${each.help}: ${each.nodes.slice(0, 3).map(node => node.html).join(' ')}`))"
        )
        return found

    def complaints(self) -> list[str]:
        """What the console says since it was last asked."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def picture(self, *, whole: bool = False) -> bytes:
        """PNG of the window, or of the whole page."""
        return base64.b64decode(self.tell("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def tell(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def close(self) -> None:
        self._open(Request(self._base, method="DELETE"), timeout=30).close()

    def _post(self, path: str, data: dict[str, Any]) -> Any:
        request = Request(f"{self._base}{path}", json.dumps(data).encode(), {"Content-Type": "application/json"})
        with self._open(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile."""
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            ports = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
            port = next(found[1] for found in ports if found)
            browser = Browser(f"http://127.0.0.1:{port}", profile=profile)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()
