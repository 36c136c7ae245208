"""Photographs whose names a console or a locale lacks: listed, written down and read back on every machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import patchword
from small_world import LABEL_SETTINGS, Models, pixels, settings_options

NAMES = ("日本 \N{GRINNING FACE}", "café", "naïve\udcff")  # the last is not UTF-8
MACHINES = {
    "C locale": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp1252 console": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "cp1252"},
}
SEVERAL = """
import contextlib, json, os, sys
from patchword.cli.app import main

for command in json.load(open(0, encoding="ascii")):
    sys.argv = ["patchword", *map(os.fsdecode, (each.encode("utf-8", "surrogateescape") for each in command))]
    try:
        code = main()
    except SystemExit as error:
        code = error.code
    print(json.dumps({"code": code or 0}), flush=True)
"""

pytestmark = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="their file systems have no names that are not UTF-8"
)


def on_disk(name: str) -> str:
    """A name as this process must write it, whose locale may be any, too."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def bytes_of(names: object) -> set[bytes]:
    """Names that were read from JSON, as the bytes that they are on disk."""
    return {name.encode("utf-8", "surrogateescape") for name in names}  # type: ignore[attr-defined]


def commands_on(machine: str, *commands: tuple[object, ...]) -> tuple[list[int], list[str], str]:
    """Run commands in one process; their exit codes, what each printed, and what all complained of."""
    source = str(Path(patchword.__file__).parents[1])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    ran = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        input=json.dumps(
            [[os.fsencode(str(each)).decode("utf-8", "surrogateescape") for each in typed] for typed in commands]
        ).encode("ascii"),
        capture_output=True,
        check=False,
        env=inherited | MACHINES[machine] | {"PYTHONPATH": source},
    )
    encoding = "cp1252" if "cp1252" in machine else "utf-8"
    said, complaints = ran.stdout.decode(encoding), ran.stderr.decode(encoding)
    assert ran.returncode == 0, complaints
    assert "Traceback" not in complaints
    codes, outputs, lines = [], [], list[str]()
    for line in said.splitlines():
        if line.startswith('{"code": '):
            codes.append(json.loads(line)["code"])
            outputs.append("\n".join(lines))
            lines = []
        else:
            lines.append(line)
    return codes, outputs, complaints


@pytest.mark.parametrize("machine", MACHINES)
def test_the_whole_way_with_names_that_a_machine_lacks(machine: str, models: Models, tmp_path: Path) -> None:
    """There is one good and one broken photograph of each name, in a folder of such a name."""
    photos, out = tmp_path / on_disk(NAMES[2]), tmp_path / on_disk(NAMES[0])
    good_photos, masks = tmp_path / "good", tmp_path / "masks"
    for folder in (photos, good_photos, masks, out):
        folder.mkdir()
    for number, name in enumerate(map(on_disk, NAMES)):
        Image.fromarray(pixels(seed=number)).save(photos / f"{name}.png")
        (photos / f"{name} broken.jpg").write_bytes(b"no picture")
        (good_photos / f"{name}.png").write_bytes((photos / f"{name}.png").read_bytes())
        Image.fromarray(pixels(seed=number)[:, :, 0] % 2).save(masks / f"{name}.png")
    classes = ("--classes", "cat, dog")
    dense = ("--method", "maskclip", "--image-text", models.clip)
    label = ("label", photos, *classes, "--image-text", models.clip, "--mask-generator", models.sam)
    label = (*label, "-o", out / "labels", *settings_options(LABEL_SETTINGS))
    codes, outputs, complaints = commands_on(
        machine,
        (*label, "--dry-run"),
        label,
        (*label, "--resume", "--json"),
        ("segment", photos, *classes, *dense, "-o", out / "segmented"),
        ("evaluate", good_photos, "--masks", masks, *classes, *dense, "-o", out / "evaluated"),
        ("export", out / "labels", "--format", "coco", "-o", out / "coco.json"),
        ("export", out / "labels", "--format", "hf", "-o", out / "hf"),
        ("export", out / "labels", "--format", "voc", "-o", out / "voc"),
        ("segment", photos, *classes, *dense, "-o", out / "planned", "--dry-run"),
    )
    assert codes == [0, 1, 1, 1, 0, 0, 0, 0, 0], complaints
    good, broken = bytes_of(f"{name}.png" for name in NAMES), bytes_of(f"{name} broken.jpg" for name in NAMES)
    for manifest in ("labels/manifest.jsonl", "segmented/results.jsonl", "evaluated/images.jsonl"):
        records = [json.loads(line) for line in (out / manifest).read_text(encoding="utf-8").splitlines()]
        assert bytes_of(each["name"] for each in records if each["status"] != "failed") == good, manifest
        failed = bytes_of(each["name"] for each in records if each["status"] == "failed")
        assert failed == (set() if "evaluated" in manifest else broken), manifest
        assert all("/" not in (each.get("reason") or "") for each in records), manifest  # whatever folder was typed
    json.loads(outputs[2])
    assert complaints.count("\\udcff broken.jpg: ") >= 3
    if machine != "ASCII":
        assert complaints.count("café broken.jpg: ") >= 3
    assert bytes_of(each["file_name"] for each in json.loads((out / "coco.json").read_text("utf-8"))["images"]) == good
    assert "café" in (out / "evaluated/report.html").read_text(encoding="utf-8") or machine == "ASCII"
    assert "broken.jpg" in (out / "labels/report.html").read_text(encoding="utf-8")
