"""The server starts, shows its pages with strict headers, and ends when it is told to."""

from __future__ import annotations

import subprocess
from functools import partial
from urllib.request import urlopen

from served import served


def test_pages_come_with_strict_headers_and_a_signal_ends_the_server() -> None:
    with served(start=partial(subprocess.Popen, text=True)) as server:
        for path in ("/", "/review", "/jobs", "/healthz"):
            with urlopen(server.address + path, timeout=30) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "script-src 'self';" in policy
                assert "unsafe" not in policy
                assert b"<script>" not in answer.read()
        assert server.stop() == 0
