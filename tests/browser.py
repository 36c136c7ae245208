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

    def show(self, page: Path, *, width: int, dark: bool = False, query: str = "") -> None:
        """Open a page as a screen of some width has it, with what stands behind its address."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.tell("Emulation.setEmulatedMedia", features=scheme)
        self.resize(width, mobile=width < 600)
        self._post("/url", {"url": page.resolve().as_uri() + query})
        self._settle()

    def resize(self, width: int, *, mobile: bool = False) -> None:
        """Make the window as wide as that."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.tell("Emulation.setDeviceMetricsOverride", **size, mobile=mobile)
        self._settle()

    def _settle(self) -> None:
        """Wait until two frames are drawn, so that what observes sizes has been told of them."""
        self.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def run(self, script: str) -> Any:
        """Run a script in the page; what it returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def address(self) -> str:
        """Of the page that is open."""
        found: str = self.run("return location.href")
        return found

    def press(self, *keys: str) -> None:
        """Press keys in turn, in what has the focus."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

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
