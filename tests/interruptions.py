"""Runs a command over a folder in child processes that are stopped in every way, and tells what became of them as JSON.

    python interruptions.py label|segment SCRATCH CLIP SAM [SMALL]

A process of its own, since children are forked from it after everything is imported and loaded and before torch has
computed anything: a child then costs no start. SMALL is a folder on a file system of a few kilobytes, inside SCRATCH.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from patchword.cli import app as cli
from patchword.data import folders
from patchword.models import loading

torch.set_num_threads(1)
KILLS = {"label": 20, "segment": 5}
FULL_DISKS = {"label": 4, "segment": 2}
CLASSES = "cat, dog, sofa"
SETTINGS = {
    "grids": "[1]",
    "point_sampling": "grid",
    "points_per_side": 4,
    "minimum_crops": 1,
    "minimum_share": 0,
    "pred_iou_thresh": 0,
    "margin": 0,
    "image_batch": 3,
}


def make_photos(folder: Path) -> Path:
    """Photographs, one that is broken and one that is there twice."""
    generator = np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True)
    for number in range(10):
        blocks = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        name = f"sub/{number}.png" if number % 2 else f"{number}.png"
        Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)).save(folder / name)
    shutil.copy(folder / "0.png", folder / "sub" / "again.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


class Runs:
    """The same command again and again."""

    def __init__(self, kind: str, scratch: Path, clip: str, sam: str) -> None:
        self.scratch = scratch
        photos = str(make_photos(scratch / "photos"))
        if kind == "label":
            models = ["--image-text", clip, "--mask-generator", sam]
            numbers = [f"--set={name}={value}" for name, value in SETTINGS.items()]
        else:
            models = ["--method", "maskclip", "--image-text", clip]
            numbers = ["--set=batch=3", "--confidence", "--rle"]
        self.command = [kind, photos, "--classes", CLASSES, *models, "--device", "cpu", *numbers, "-q"]
        self.kills, self.full_disks = KILLS[kind], FULL_DISKS[kind]
        self.manifest = {"label": "manifest.jsonl", "segment": "results.jsonl"}[kind]

    def start(self, out: Path, *options: str, sabotage: Callable[[], None] = lambda: None) -> int:
        """Fork a child that runs the command; returns its process id."""
        process = os.fork()
        if process:
            return process
        code = 70
        try:
            with (self.scratch / "said.txt").open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            sys.argv = ["patchword", *self.command, "-o", str(out), *options]
            sabotage()
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    def finish(self, process: int) -> int:
        """Wait for a child; its exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def run(self, out: Path, *options: str, sabotage: Callable[[], None] = lambda: None) -> int:
        return self.finish(self.start(out, *options, sabotage=sabotage))

    def said(self) -> list[str]:
        """What the last child has said, by lines."""
        return (self.scratch / "said.txt").read_text().splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the one that may differ."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("runs.jsonl", None)
    return files


def at_write(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Sabotage that acts at the so-manyth write to disk: an instant that no machine's speed moves."""

    def sabotage() -> None:
        left = [number]

        def count() -> None:
            left[0] -= 1
            if left[0] == 0:
                act()

        class Counted(FileIO):
            def write(self, data: bytes) -> int:  # type: ignore[override]
                count()
                return super().write(data)

        force = os.fsync

        def fsync(file: int) -> None:
            count()
            force(file)

        folders.FileIO = Counted  # type: ignore[misc]
        os.fsync = fsync  # type: ignore[assignment]

    return sabotage


def kill_at_random_instants(runs: Runs, whole: dict[str, bytes]) -> dict[str, Any]:
    """Kill -9 at seeded writes, resuming after each, until a run survives; and again, until there were enough."""
    instants = random.Random(0)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    killed: list[int] = []  # how much was on disk
    outcomes = []
    while len(killed) < runs.kills:
        out = runs.scratch / f"killed {len(outcomes)}"
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            left = len(killed) < runs.kills
            code = runs.run(out, "--resume", sabotage=at_write(instants.randrange(1, 40) if left else 0, die))
            if code == -signal.SIGKILL:
                killed.append(len(contents(out)))
        outcomes.append({"code": code, "same": contents(out) == whole, "ended": sessions(out)})
    return {"files": killed, "outcomes": outcomes}


def sessions(folder: Path) -> list[str | None]:
    """How each session ended."""
    return [json.loads(line)["ended"] for line in (folder / "runs.jsonl").read_text().splitlines()]


def stop_by(runs: Runs, number: int, whole: dict[str, bytes]) -> dict[str, Any]:
    """Send a signal in the middle of the run, while a file is being written, then resume."""
    out = runs.scratch / f"signal {number}"
    writing, sent = runs.scratch / f"writing {number}", runs.scratch / f"sent {number}"

    def wait() -> None:
        writing.touch()
        while not sent.exists():
            time.sleep(0.01)

    process = runs.start(out, sabotage=at_write(9, wait))
    while not writing.exists() and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.01)
    os.kill(process, number)
    sent.touch()
    code, said = runs.finish(process), runs.said()
    manifest = (out / runs.manifest).read_bytes()
    leftovers = [path.name for path in out.rglob("*.tmp")]
    ended = sessions(out)
    resumed = runs.run(out, "--resume")
    return {
        "code": code,
        "said": said,
        "whole_lines": manifest.endswith(b"\n"),
        "lines": manifest.count(b"\n"),
        "leftovers": leftovers,
        "ended": ended,
        "resumed": resumed,
        "same": contents(out) == whole,
    }


def fill_the_disk(runs: Runs, whole: dict[str, bytes]) -> list[dict[str, Any]]:
    """Let the disk be full from a seeded write on, then resume with room."""
    writes = random.Random(1)
    outcomes = []
    for number in range(runs.full_disks):
        out = runs.scratch / f"full {number}"
        room = writes.randrange(0, 30)

        def sabotage(room: int = room) -> None:
            left = [room]

            def take() -> bool:
                left[0] -= 1
                return left[0] < 0

            class Full(FileIO):
                def write(self, data: bytes) -> int:  # type: ignore[override]
                    if take():
                        super().write(data[: len(data) // 2])
                        raise OSError(28, "No space left on device")
                    return super().write(data)

            def fsync(file: int) -> None:
                if take():
                    raise OSError(28, "No space left on device")

            folders.FileIO = Full  # type: ignore[misc]
            os.fsync = fsync  # type: ignore[assignment]

        outcomes.append(_full(runs, out, whole, sabotage=sabotage))
    return outcomes


def fill_a_real_disk(runs: Runs, small: Path, whole: dict[str, bytes]) -> list[dict[str, Any]]:
    """The same on a file system of a few kilobytes."""
    outcome = _full(runs, small, whole, make_room=["mount", "-o", "remount,size=8m", str(small)])
    return [outcome]


def _full(
    runs: Runs,
    out: Path,
    whole: dict[str, bytes],
    *,
    sabotage: Callable[[], None] = lambda: None,
    make_room: list[str] | None = None,
) -> dict[str, Any]:
    code = runs.run(out, sabotage=sabotage)
    said = runs.said()
    readable = [json.loads(path.read_bytes()) is not None for path in out.rglob("*.json")]
    leftovers = [path.name for path in out.rglob("*.tmp")]
    if make_room:
        subprocess.run(make_room, check=True)
    resumed = runs.run(out, "--resume")
    return {
        "code": code,
        "said": said,
        "files": len(readable),
        "leftovers": leftovers,
        "resumed": resumed,
        "same": contents(out) == whole,
    }


def main() -> None:
    """Do all of it."""
    kind, scratch, clip, sam, *small = sys.argv[1:]
    for needed in ("labeling.run", "segmentation.run", "segmentation.opening", "labeling.api"):
        importlib.import_module(f"patchword.{needed}")
    loaded_clip, loaded_sam = (
        loading.load_image_text(clip, device="cpu"),
        loading.load_mask_generator(sam, device="cpu"),
    )
    for module in list(sys.modules.values()):  # children find them loaded, whoever loads them
        if getattr(module, "__name__", "").startswith("patchword."):
            for name, model in (("load_image_text", loaded_clip), ("load_mask_generator", loaded_sam)):
                if name in vars(module):
                    setattr(module, name, lambda *_, model=model, **__: model)
    runs = Runs(kind, Path(scratch), clip, sam)
    code = runs.run(runs.scratch / "whole")
    whole = contents(runs.scratch / "whole")
    report = {
        "whole": {"code": code, "files": len(whole), "said": runs.said()},
        "killed": kill_at_random_instants(runs, whole),
        "signals": {name: stop_by(runs, getattr(signal, name), whole) for name in ("SIGTERM", "SIGINT")},
        "full": fill_the_disk(runs, whole),
        "small": fill_a_real_disk(runs, Path(small[0]), whole) if small else [],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes what it starts behind itself ignore it
    main()
