"""Work of photographs whose names say what becomes of it; light, for workers import it."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchword.errors import PatchwordError
from patchword.runs.pipeline import Chunk, Photograph, Pixels, Written
from patchword.runs.records import LineRecord


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


@dataclass(frozen=True)
class Meeting:
    """Work that goes on when so many workers are at it; its results are what each sees of the cards."""

    folder: Path
    count: int

    def read(self, path: Path) -> Pixels:
        return np.zeros((1, 1, 3), np.uint8)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[str]:
        self.folder.joinpath(str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < self.count:
            time.sleep(0.02)
        return iter(each.name for each in photographs)

    def write(self, made: str) -> Written:
        seen = [os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK")]
        return Written(LineRecord(name=made, status="ok"), result=seen)
