"""Whatever a client sends gets a reason, memory stays bounded, and the next good request is served."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from served import Served, served
from starlette.testclient import TestClient

from conftest import encoded
from patchword.config.serve import ServeSettings
from patchword.serving.limits import RefusedError
from patchword.serving.uploads import decode_upload

BLACK = np.zeros((8, 8, 3), np.uint8)


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey PNG that says that it has so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
UPLOADS: dict[str, tuple[bytes, str, int, str]] = {
    "decompression bomb": (png(60_000, 60_000, zlib.compress(bytes(10**6))), "image/png", 413, "too large|million"),
    "100,000 pixels wide": (png(100_000, 1, zlib.compress(bytes(100_001))), "image/png", 413, "a side"),
    "SVG": (SVG, "image/svg+xml", 415, "not an image that is taken"),
    "SVG said to be a PNG": (SVG, "image/png", 415, "its content"),
    "image and page": (encoded(BLACK, "GIF") + b"<script>alert(1)</script>", "image/gif", 415, "a web page"),
    "image and archive": (encoded(BLACK) + b"PK\x05\x06" + bytes(18), "image/png", 415, "an archive"),
    "truncated": (encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))[:6000], "image/png",
                  422, "cannot read the image"),
    "text": (b"no picture at all", "text/plain", 415, "declared as 'text/plain'"),
    "text said to be a JPEG": (b"no picture at all", "image/jpeg", 415, "its content"),
    "TIFF": (encoded(BLACK, "TIFF"), "image/tiff", 415, "its content"),
    "nothing": (b"", "image/png", 422, "empty"),
    "only a beginning": (b"\xff\xd8\xff\xe0", "image/jpeg", 422, "cannot read the image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UPLOADS)
def test_hostile_uploads_get_a_reason(client: TestClient, scene: bytes, kind: str) -> None:
    data, declared, status, told = UPLOADS[kind]
    refused = client.post("/v1/images", files={"file": ("../../a.png", data, declared)})
    assert refused.status_code == status, refused.text
    assert re.search(told, refused.json()["error"]["reason"])
    once = client.post("/v1/segment", json={"image": base64.b64encode(data).decode(), "classes": ["a"]})
    assert 400 <= once.status_code < 500
    assert client.post("/v1/images", files={"file": ("a.png", scene, "image/png")}).status_code == 201


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data\r\n\r\n\r\n--a--"),
        ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="b"; filename="x"\r\n\r\nx'),
        ("multipart/form-data; boundary=a", b"\xff" * 100),
        ("application/x-www-form-urlencoded", b"file=a"),
        ("application/json", b"{"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"image": "###", "classes": ["a"]}'),
        ("application/json", b'{"image": "", "settings": {"image_size": 1e999}}'),
        ("", b""),
    ],
)  # fmt: skip
def test_broken_requests_get_a_reason(client: TestClient, kind: str, body: bytes) -> None:
    answer = client.post("/v1/segment", content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["reason"]


def test_photographs_of_all_kinds_are_read_upright() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    for kind in ("PNG", "BMP"):
        assert np.array_equal(decode_upload(encoded(pixels, kind), limits=ServeSettings()), pixels)
    for kind in ("JPEG", "WEBP", "GIF"):
        assert decode_upload(encoded(pixels, kind), limits=ServeSettings()).shape == pixels.shape
    with pytest.raises(RefusedError, match=r"7 x 5 pixels; 3e-05 million"):
        decode_upload(encoded(pixels), limits=ServeSettings(megapixels=3e-5))


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A real server with small limits."""
    with served("--set", "megabytes=1", "--set", "upload_seconds=2") as found:
        yield found


def talk(server: Served, *parts: bytes, wait: float = 0.0) -> bytes:
    """Send parts, with a pause after each, until the server closes; what it said."""
    where = urlsplit(server.address)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as line:
        for part in parts:
            try:
                line.sendall(part)
            except OSError:  # it has closed
                break
            time.sleep(wait)
        said = b""
        try:
            while part := line.recv(65_536):
                said += part
        except ConnectionResetError:
            pass
        return said


def head(path: str, **headers: Any) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
    return "\r\n".join(
        [*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    ).encode()


def served_well(server: Served) -> bool:
    return b" 200 " in talk(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")


def memory(server: Served) -> int:
    """Bytes that the server's process holds."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc here")
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_body_that_says_that_it_is_too_large_is_refused_at_once(server: Served) -> None:
    said = talk(server, head("/v1/images", Content_Length=10**9, Content_Type="multipart/form-data; boundary=a"))
    assert b" 413 " in said
    assert b"1 MB, the limit" in said


def test_a_gigabyte_in_pieces_is_cut_off(server: Served) -> None:
    before = memory(server)
    piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
    start = head("/v1/images", Transfer_Encoding="chunked", Content_Type="multipart/form-data; boundary=a")
    talk(server, start, *[piece] * 1000)
    assert memory(server) - before < 32 * 2**20
    assert served_well(server)
    assert b" 413 " in talk(server, start, *[piece] * 3)


@pytest.mark.parametrize(
    "parts",
    [
        (head("/v1/images", Content_Length=1000, Content_Type="multipart/form-data; boundary=a"), b"--a"),
        (b"POST /v1/images HTTP/1.1\r\nHost: 127", b".0"),
    ],
    ids=["body", "headers"],
)
def test_slow_clients_are_given_up(server: Served, parts: tuple[bytes, ...]) -> None:
    assert b" 408 " in talk(server, *parts)
    assert served_well(server)


def test_too_many_headers_are_refused(server: Served) -> None:
    said = talk(server, b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 200_000)
    assert said == b"" or b" 400 " in said
    assert served_well(server)


def test_the_limits_are_told(client: TestClient) -> None:
    limits = json.loads(client.get("/v1/models").text)["limits"]
    assert limits == {"bytes": 32_000_000, "pixels": 24_000_000, "side": 16_384, "classes": 250}
