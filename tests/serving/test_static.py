"""The pages' own code: it parses, its arithmetic is right, and the pages look like the reports."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import patchword

PACKAGE = Path(patchword.__file__).parent
STATIC = PACKAGE / "serving" / "static"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="no node on the PATH")


def _node(*arguments: object, folder: Path, **variables: str) -> None:
    environment = {**os.environ, **variables}
    ran = subprocess.run(
        [str(NODE), *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """The pages' scripts where node takes them for modules."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for path in STATIC.glob("*.js"):
        shutil.copy(path, tmp_path)
    return tmp_path


@needs_node
def test_scripts_parse(modules: Path) -> None:
    for path in modules.glob("*.js"):
        _node("--check", path.name, folder=modules)


@needs_node
def test_arithmetic_of_the_playground(modules: Path) -> None:
    shutil.copy(Path(__file__).with_name("playground.test.mjs"), modules)
    values = np.random.default_rng(0).integers(0, 65536, (5, 6)).astype(np.uint16)
    pictures = [_filtered(values), _filtered(values.astype(np.uint8))]
    _node("--test", "playground.test.mjs", folder=modules, FILTERED=json.dumps(pictures))


def _filtered(values: NDArray[np.uint8] | NDArray[np.uint16]) -> dict[str, object]:
    """A grey PNG whose rows have each filter in turn, and what it holds."""
    step = values.itemsize
    rows = values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(len(values), -1).astype(int)
    data = b""
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(step, int), each[:-step]]) for each in (row, above))
        estimate = left + above - corner
        distance = np.abs(np.stack([left, above, corner]) - estimate)
        paeth = np.take_along_axis(np.stack([left, above, corner]), distance.argmin(axis=0)[None], axis=0)[0]
        expected = (np.zeros_like(row), left, above, (left + above) // 2, paeth)[number]
        data += bytes([number]) + ((row - expected) % 256).astype(np.uint8).tobytes()
    height, width = values.shape
    head = struct.pack(">IIBBBBB", width, height, 8 * step, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return {
        "bytes": base64.b64encode(file).decode(),
        "width": width,
        "height": height,
        "values": values.ravel().tolist(),
    }


def test_pages_have_the_colours_of_the_reports() -> None:
    def colours(path: Path) -> list[str]:
        return re.findall(r"--[a-z]+: #[0-9a-f]+", path.read_text(encoding="utf-8"))

    of_reports = colours(PACKAGE / "visualization" / "templates" / "style.css")
    assert len(of_reports) > 10
    assert colours(STATIC / "style.css") == of_reports


def test_nothing_is_fetched_from_elsewhere_and_nothing_stands_in_the_pages() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(https?:)?//[\w-]+\.\w|@import|\bon\w+=["']|\bstyle=""", text), path.name
        assert not re.search(r"<script(?![^>]* src=)|<style", text), path.name
        assert len(text.splitlines()) <= 400, path.name
