"""TensorBoard and Weights & Biases, through accelerate's trackers; neither is needed to train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from patchword.errors import PatchwordError

TrackerName = Literal["tensorboard", "wandb"]
_CLASSES = {"tensorboard": "TensorBoardTracker", "wandb": "WandBTracker"}


class Tracker(Protocol):
    """Where a training's numbers go while it runs."""

    def log(self, values: dict[str, float], /, *, step: int) -> None:
        """Take numbers by name after a step."""

    def finish(self) -> None:
        """Write what is left; nothing is logged after it."""


def require_tracker(name: TrackerName) -> None:
    """Refuse a tracker whose package is not installed, before anything long has begun."""
    from accelerate import utils

    if not getattr(utils, f"is_{name}_available")():
        raise PatchwordError(f"tracker {name!r} needs a package that is not installed; install patchword[{name}]")


def start_tracker(name: TrackerName, *, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """Start a tracker.

    Args:
        name: "tensorboard" writes below `folder`/tensorboard, "wandb" to where that package is set up to.
        folder: of the run; its name names the run.
        settings: of the run, shown beside the numbers.
    """
    from accelerate import tracking

    kind = getattr(tracking, _CLASSES[name])
    try:
        if name == "tensorboard":
            tracker = kind("tensorboard", folder)
        else:
            tracker = kind("patchword", name=folder.name, dir=str(folder))
        if hasattr(tracker, "start"):  # accelerate before 1.10 starts at once
            tracker.start()
        plain = (bool, int, float, str)
        tracker.store_init_configuration(
            {key: value if isinstance(value, plain) else str(value) for key, value in settings.items()}
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PatchwordError(f"tracker {name!r} does not start: {reason}") from None
    started: Tracker = tracker
    return started
