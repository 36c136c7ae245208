"""What the trainings of the miniature CLIP and DINOv2 share: checking their counts and saving a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.folders import write_json


def check_counts(what: str, **counts: int) -> None:
    """Refuse a count below 1.

    Args:
        what: said in the error, such as "training the miniature CLIP".
        counts: by name.

    Raises:
        PatchwordError: naming the count and what is allowed.
    """
    for name, count in counts.items():
        if count < 1:
            raise PatchwordError(f"{what} with {name} {count}; allowed is 1 and more")


def save_checkpoint(
    model: Any, *, out: Path, preprocessing: Mapping[str, Any], recipe: Mapping[str, Any], step: int, seconds: float
) -> None:
    """Save a model in the hub's format, each file whole, and how far it was trained.

    Args:
        model: a transformers model; its weights become half precision.
        out: folder, made where it is missing; config.json, model.safetensors, preprocessor_config.json and train.json
            there are replaced.
        preprocessing: what preprocessor_config.json holds.
        recipe: the numbers of the run, kept in train.json.
        step: optimiser steps so far.
        seconds: since the start, drawing included.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        model.half().save_pretrained(folder)
        for path in Path(folder).iterdir():
            path.replace(out / path.name)
    write_json(out / "preprocessor_config.json", preprocessing)
    write_json(out / "train.json", {"recipe": recipe, "step": step, "seconds": round(seconds)})
