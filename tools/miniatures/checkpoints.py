"""What the trainings of the miniatures share: counts, earlier runs, optimiser, learning rate, checkpoints."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

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


def earlier_run(
    start: Path, *, what: str, sizes: tuple[str, ...] = (), recipe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What an earlier run says of itself; its sizes must be stated, and be those of the recipe if one is given.

    Args:
        start: its folder.
        what: said in the error, such as "miniature CLIP".
        sizes: names of the numbers that it must state.
        recipe: the numbers of the run that goes on from it, whose sizes have to agree.

    Raises:
        PatchwordError: on a folder without train.json or with that of another model, or naming the size that differs.
    """
    if not (start / "train.json").is_file():
        raise PatchwordError(f"no training of the {what} in {start}; a folder with train.json is needed")
    record: dict[str, Any] = json.loads((start / "train.json").read_text())
    for name in sizes:
        if name not in record["recipe"]:
            raise PatchwordError(f"no training of the {what} in {start}; its train.json does not state {name}")
        had, wanted = record["recipe"][name], None if recipe is None else recipe[name]
        if wanted is not None and had != wanted:
            raise PatchwordError(f"the {what} in {start} has {name} {had}; the recipe says {wanted}")
    return record


def earlier_runs(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainings that made the weights of a train.json, the first first; each went on from the one before."""
    before = record["recipe"].get("before")
    return [*(earlier_runs(before) if before else []), record]


def make_optimiser(
    model: nn.Module, *, rate: float, weight_decay: float, fused: bool | None = None
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only; `fused` takes one kernel for all weights, which rounds differently."""
    weights = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [part for part in weights if part.ndim > 1], "weight_decay": weight_decay},
        {"params": [part for part in weights if part.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, step: int, *, steps: int, rate: float, warmup: int) -> float:
    """Set the learning rate of a step: rising for the warmup, falling along a cosine to a fiftieth of the peak.

    Args:
        optimiser: all of whose groups get it.
        step: from 0.
        steps: of the whole run.
        rate: the peak.
        warmup: steps of rising.

    Returns:
        how much of the cosine is left, 1 at the start and 0 at the end.
    """
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * falling)
    return falling


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
