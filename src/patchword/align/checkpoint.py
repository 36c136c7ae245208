"""The state of a training on disk, from which a stopped run goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from patchword.align.records import StepRecord
from patchword.errors import PatchwordError
from patchword.folders import write_bytes

if TYPE_CHECKING:
    from patchword.align.trainer import TrainingState

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def write_checkpoint(path: Path, *, state: TrainingState) -> None:
    """Write weights, optimizer moments, step and history as one safetensors file.

    Raises:
        PatchwordError: when it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.named_parameters().items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.cpu().contiguous()
    history = json.dumps([record.model_dump() for record in state.history])
    write_bytes(path, save(tensors, metadata={"step": str(state.step), "history": history}))


def read_checkpoint(path: Path, *, state: TrainingState) -> None:
    """Bring a fresh state to where `write_checkpoint` left it.

    Raises:
        PatchwordError: when the file is damaged or of another module.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        state.step = int(metadata["step"])
        state.history = [StepRecord(**record) for record in json.loads(metadata["history"])]
        _restore(state, tensors)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, ValidationError):
        raise PatchwordError(
            f"checkpoint {path} is damaged or of another training; delete it to train from the start"
        ) from None


@torch.no_grad()
def _restore(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    for name, parameter in state.named_parameters().items():
        parameter.copy_(tensors[f"weight.{name}"])
        if f"{_MOMENTS[0]}.{name}" in tensors:
            moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            # AdamW keeps its step count on the CPU and its moments beside the weights.
            state.optimizer.state[parameter] = {
                moment: value if moment == "step" else value.to(parameter.device) for moment, value in moments.items()
            }
