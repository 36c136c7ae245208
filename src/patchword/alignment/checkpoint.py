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

from patchword.alignment.records import StepRecord
from patchword.data.folders import write_bytes
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.alignment.state import TrainingState, Weights

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def write_checkpoint(path: Path, *, state: TrainingState) -> None:
    """Write one safetensors file: weights, their average and best, optimizer moments, gradient scale, step, history.

    The learning rate, the order of images, the patch samples and the augmentations follow from the seed and the step.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.named_parameters().items():
        tensors[f"weight.{name}"] = parameter.detach()
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    for kind, weights in (("average", state.average), ("best", state.best)):
        tensors |= {f"{kind}.{name}": value for name, value in (weights or {}).items()}
    history = json.dumps([record.model_dump() for record in state.history])
    scaler = json.dumps(state.scaler.state_dict())
    on_disk = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(on_disk, metadata={"step": str(state.step), "history": history, "scaler": scaler}))


def read_checkpoint(path: Path, *, state: TrainingState) -> None:
    """Bring a fresh state to where `write_checkpoint` left it."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        state.step = int(metadata["step"])
        state.history = [StepRecord(**record) for record in json.loads(metadata["history"])]
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
        _restore(state, tensors)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, ValidationError):
        raise PatchwordError(
            f"checkpoint {path} is damaged or of another training; delete it to train from the start"
        ) from None


@torch.no_grad()
def _restore(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    state.load(_weights("weight", tensors, state=state))
    if state.average is not None:
        state.average = _weights("average", tensors, state=state)
    if any(name.startswith("best.") for name in tensors):
        state.best = _weights("best", tensors, state=state)
    for name, parameter in state.named_parameters().items():
        if f"{_MOMENTS[0]}.{name}" in tensors:
            moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            # AdamW keeps its step count on the CPU and its moments beside the weights.
            state.optimizer.state[parameter] = {
                moment: value if moment == "step" else value.to(parameter.device) for moment, value in moments.items()
            }


def _weights(kind: str, tensors: dict[str, Tensor], *, state: TrainingState) -> Weights:
    """The weights of one kind, beside the parameters."""
    device = state.log_temperature.device
    return {name: tensors[f"{kind}.{name}"].to(device) for name in state.named_parameters()}
