"""One command done by other workers, and work of photographs whose names say what becomes of it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import patchword
from interruptions import at_write, contents
from patchword.errors import PatchwordError
from patchword.labeling import api as label_api
from patchword.runs.pipeline import Chunk, Photograph, Pixels, Written
from patchword.runs.records import LineRecord
from patchword.segmentation import api as segment_api

MODULES: dict[str, Any] = {"label": label_api, "segment": segment_api}


@dataclass
class World:
    """One command on the same photographs again and again."""

    command: str
    folder: Path
    models: dict[str, str]

    def run(self, out: str, **options: Any) -> Any:
        numbers: dict[str, Any] = {"batch": 2}
        if self.command == "label":
            numbers = {"grids": (1,), "minimum_crops": 1, "minimum_share": 0, "pred_iou_thresh": 0, "margin": 0}
        asked = {"classes": "cat, dog, sofa", "settings": numbers, "device": "cpu", "quiet": True, **self.models}
        return getattr(patchword, self.command)(self.folder / "photos", out=self.folder / out, **asked | options)

    def check(self, out: str) -> None:
        """The bytes are those of a run without other processes."""
        here, there = contents(self.folder / "here"), contents(self.folder / out)
        assert sorted(name for name in here | there if here.get(name) != there.get(name)) == []


def load_to_die(load: Callable[[], object], fates: Path) -> object:
    """In a worker: load, and be killed at a write where there is a fate left that says at which."""
    for fate in sorted(fates.glob("[01]")):
        try:
            taken = fate.rename(fate.with_suffix(f".{os.getpid()}"))
        except FileNotFoundError:  # the other one has it
            continue
        instant = int(taken.read_text())
        taken.unlink()
        at_write(instant, die)()
        break
    return load()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Fateful:
    """Work of photographs whose names say what becomes of it."""

    models: object = None
    folder: Path | None = None  # for those that are strange once

    def read(self, path: Path) -> Pixels:
        return np.zeros((1, 1, 3), np.uint8)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[str]:
        for each in photographs:
            if each.name == "deadly":
                die()
            if each.name == "wrong":
                raise ZeroDivisionError("at the photograph")
            if each.name == "slow" and self._is_first("slow"):
                threading.Event().wait()
            yield each.name

    def write(self, made: str) -> Written:
        if made == "full" or (made == "cramped" and self._is_first("cramped")):
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                raise PatchwordError("the disk is full") from None
        return Written(LineRecord(name=made, status="ok"))

    def _is_first(self, what: str) -> bool:
        try:
            (self.folder or Path()).joinpath(what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
