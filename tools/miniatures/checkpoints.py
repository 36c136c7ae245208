"""What the trainings of the miniature CLIP and DINOv2 share: checking their counts and saving a checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchword.data.folders import write_json
from patchword.errors import PatchwordError


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
            raise PatchwordError(f"{what} with {name} {count}; it must be at least 1")


def earlier_run(start: Path, *, what: str, recipe: Mapping[str, Any], sizes: tuple[str, ...]) -> dict[str, Any]:
    """What an earlier run says of itself; it must have been of the same sizes.

    Args:
        start: its folder.
        what: said in the error, such as "miniature CLIP".
        recipe: the numbers of the run that goes on from it.
        sizes: names of the numbers that have to agree.

    Raises:
        PatchwordError: on a folder without train.json, or naming the size that differs.
    """
    if not (start / "train.json").is_file():
        raise PatchwordError(f"no training of the {what} in {start}; a folder with train.json is needed")
    record: dict[str, Any] = json.loads((start / "train.json").read_text())
    for name in sizes:
        had, wanted = record["recipe"][name], recipe[name]
        if had != wanted:
            raise PatchwordError(f"the {what} in {start} has {name} {had}; the recipe says {wanted}")
    return record


def save_checkpoint(
    model: Any,
    *,
    out: Path,
    preprocessing: Mapping[str, Any],
    recipe: Mapping[str, Any],
    step: int,
    seconds: float,
    before: Mapping[str, Any] | None = None,
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
        before: train.json of the earlier run that this one went on from, kept in the recipe under that name.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        model.half().save_pretrained(folder)
        for path in Path(folder).iterdir():
            path.replace(out / path.name)
    write_json(out / "preprocessor_config.json", preprocessing)
    numbers = dict(recipe) if before is None else {**recipe, "before": before}
    write_json(out / "train.json", {"recipe": numbers, "step": step, "seconds": round(seconds)})
