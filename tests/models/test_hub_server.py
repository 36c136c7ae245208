"""Fetching from a server on this machine that answers as the hub does, through the hub's real client."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from patchword.errors import PatchwordError
from patchword.models.hub import local_folder
from small_world import state_of

REPOSITORY = "somebody/tiny-dinov2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """One repository behind HTTP, with what the hub's client asks for: the commit, the list of files, the files.

    Args:
        folder: of the checkpoint.
        delay: an event that every answer waits for, or None.
    """

    def __init__(self, folder: Path, *, delay: threading.Event | None = None) -> None:
        self.requests: list[str] = []
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def answer(self, *, body: bool) -> None:
                outer.requests.append(self.path)
                if delay is not None:
                    delay.wait()
                place = urlsplit(self.path).path
                name = place.rpartition("/")[2]
                if place.startswith(f"/api/models/{REPOSITORY}/revision/"):
                    names = [{"rfilename": each} for each in files]
                    content = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": names}).encode()
                elif place.startswith(f"/api/models/{REPOSITORY}/tree/"):
                    sizes = {each: len(data) for each, data in files.items()}
                    tree = [{"type": "file", "path": each, "size": sizes[each], "oid": "0" * 40} for each in files]
                    content = json.dumps(tree).encode()
                elif place.startswith(f"/{REPOSITORY}/resolve/") and name in files:
                    content = files[name]
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(content)))
                kind = "json" if place.startswith("/api") else "octet-stream"
                self.send_header("Content-Type", f"application/{kind}")
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def do_GET(self) -> None:
                self.answer(body=True)

            def do_HEAD(self) -> None:
                self.answer(body=False)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tiny_dinov2: Path) -> Iterator[HubServer]:
    server = HubServer(tiny_dinov2)
    yield server
    server.close()


def patchword(
    *arguments: str, home: Path, start: Sequence[str] = ("-m", "patchword"), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, whose hub client reads these variables when it is imported."""
    proxies = {name for name in os.environ if name.lower().endswith("_proxy")}
    kept = {name: value for name, value in os.environ.items() if name not in {*proxies, "HF_HUB_OFFLINE"}}
    return subprocess.run(
        [sys.executable, *start, *arguments],
        env={**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_another_endpoint_is_asked_and_its_cache_serves_offline_unchanged(hub: HubServer, tmp_path: Path) -> None:
    fetched = patchword("models", "fetch", REPOSITORY, home=tmp_path, HF_ENDPOINT=hub.address)
    assert fetched.returncode == 0, fetched.stderr
    assert any(request.startswith(f"/{REPOSITORY}/resolve/main/config.json") for request in hub.requests)
    before, asked = state_of(tmp_path), len(hub.requests)
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir() and not path.is_symlink()]:
        folder.chmod(0o555)
    checked = patchword("models", "check", REPOSITORY, home=tmp_path, HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1")
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir() and not path.is_symlink())]:
        folder.chmod(0o755)
    assert checked.returncode == 0, checked.stderr
    assert "loads (encoder)" in checked.stdout
    assert state_of(tmp_path) == before
    assert len(hub.requests) == asked


def test_proxies_of_the_environment_are_used(hub: HubServer, tmp_path: Path) -> None:
    fetched = patchword(
        "models", "fetch", REPOSITORY, home=tmp_path, HF_ENDPOINT="http://hub.invalid", http_proxy=hub.address
    )
    assert fetched.returncode == 0, fetched.stderr
    assert hub.requests
    assert all(request.startswith("http://hub.invalid/") for request in hub.requests)


def test_a_hub_that_is_slow_is_given_up_when_the_user_says(tiny_dinov2: Path, tmp_path: Path) -> None:
    never = threading.Event()
    slow = HubServer(tiny_dinov2, delay=never)
    given_up = patchword(
        "models", "fetch", REPOSITORY, home=tmp_path, HF_ENDPOINT=slow.address, HF_HUB_ETAG_TIMEOUT="1"
    )
    never.set()
    slow.close()
    assert given_up.returncode == 2
    (line,) = given_up.stderr.splitlines()
    assert "cannot be fetched" in line
    assert "HF_HUB_ETAG_TIMEOUT allows more time" in line
    assert slow.requests == [f"/{REPOSITORY}/resolve/main/config.json"]  # asked once


def test_a_hub_slower_than_the_usual_time_is_waited_for_when_the_user_says(tiny_dinov2: Path, tmp_path: Path) -> None:
    awake = threading.Event()
    slow = HubServer(tiny_dinov2, delay=awake)

    def wake() -> None:
        while not slow.requests:
            time.sleep(0.05)
        time.sleep(0.5)  # longer than there is without the variable
        awake.set()

    threading.Thread(target=wake, daemon=True).start()
    hasty = "from patchword.models import hub; hub._ANSWER_WITHIN = hub._RESOLVING = 0.1; "
    hasty += "from patchword.cli.app import main; main()"
    fetched = patchword(
        *("models", "fetch", REPOSITORY),
        home=tmp_path,
        start=("-c", hasty),
        HF_ENDPOINT=slow.address,
        HF_HUB_ETAG_TIMEOUT="60",
    )
    slow.close()
    assert fetched.returncode == 0, fetched.stderr


@pytest.mark.parametrize("variable", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["soon", "0", "7.5", "-1"])
def test_a_time_that_is_none_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client reads both when it is imported, and ends in a traceback."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(PatchwordError, match=f"^{variable} is '{value}'; it must be a whole number of seconds"):
        local_folder("someone/model", revision=None)


@pytest.mark.parametrize("command", [("models", "fetch", REPOSITORY), ("models", "check", "folder")])
def test_a_wrong_time_to_wait_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    ran = patchword(*command, home=tmp_path, HF_HUB_ETAG_TIMEOUT="soon")
    assert "Traceback" not in ran.stderr
    assert "HF_HUB_ETAG_TIMEOUT is 'soon'; it must be a whole number" in ran.stdout + ran.stderr
