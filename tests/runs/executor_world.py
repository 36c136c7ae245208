"""One command done by other workers, and how they are killed in the midst of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fateful import die

import patchword
from interruptions import at_write, contents
from patchword.labeling import api as label_api
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
