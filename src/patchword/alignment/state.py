"""All that changes while a module is trained."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from patchword.alignment.artifact import StepRecord
from patchword.alignment.module import AlignmentModule
from patchword.config.align import AlignSettings
from patchword.data.folders import write_bytes
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.precision import choose_dtype

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """All that changes from step to step.

    Attributes:
        module: what is trained.
        log_temperature: logarithm of the text temperature.
        optimizer: of both.
        scaler: of the gradients in fp16; does nothing in other types.
        dtype: in which the module computes.
        average: moving average of the weights by name; None when it is off.
        best: the weights of the best evaluation so far; None before the first, or without early stopping.
        step: how many steps were done.
        history: their records.
        batches: how many images of a step fit into memory, learnt on the way.
    """

    module: AlignmentModule
    log_temperature: nn.Parameter
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    dtype: torch.dtype = torch.float32
    average: Weights | None = None
    best: Weights | None = None
    step: int = 0
    history: list[StepRecord] = field(default_factory=list)
    batches: Batches = field(default_factory=Batches)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by name, the temperature last."""
        return {**dict(self.module.named_parameters()), "log_temperature": self.log_temperature}

    def weights(self) -> Weights:
        """What the training would end with now, by name: the average where one is kept."""
        return self.average or {name: parameter.detach() for name, parameter in self.named_parameters().items()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Set the parameters."""
        for name, parameter in self.named_parameters().items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the average towards the weights; early on by more, so that the first, random weights are forgotten."""
        if self.average is not None:
            decay = min(decay, (1 + self.step) / (10 + self.step))
            for name, parameter in self.named_parameters().items():
                self.average[name].lerp_(parameter, 1 - decay)


def start_state(*, dim: int, text_dim: int, settings: AlignSettings, device: torch.device) -> TrainingState:
    """A fresh module with its optimizer, before the first step."""
    module = AlignmentModule(
        dim=dim,
        text_dim=text_dim,
        kind=settings.module,
        head_size=settings.head_size,
        mlp_ratio=settings.mlp_ratio,
        seed=settings.seed,
    ).to(device)
    log_temperature = nn.Parameter(torch.tensor(math.log(settings.text_temperature), device=device))
    log_temperature.requires_grad_(settings.learn_temperature)
    parameters = [*module.parameters(), *([log_temperature] if settings.learn_temperature else [])]
    # Decay pulls towards 0, which is a sensible prior for matrices and none for norms, biases and the temperature.
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    dtype = choose_dtype(settings.precision, device=device, training=True)
    state = TrainingState(
        module=module,
        log_temperature=log_temperature,
        # Every step sets its own learning rate. Fused, the host need not know whether fp16 overflowed.
        optimizer=torch.optim.AdamW(groups, fused=device.type == "cuda"),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        dtype=dtype,
    )
    if settings.average_decay > 0:
        state.average = copy_weights(state.weights())
    return state


def copy_weights(weights: Weights) -> Weights:
    """Weights that no later step changes."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


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
            # AdamW keeps its moments beside the weights, and its step count on the CPU unless it is fused.
            fused = state.optimizer.defaults.get("fused")
            state.optimizer.state[parameter] = {
                moment: value if moment == "step" and not fused else value.to(parameter.device)
                for moment, value in moments.items()
            }


def _weights(kind: str, tensors: dict[str, Tensor], *, state: TrainingState) -> Weights:
    """The weights of one kind, beside the parameters."""
    device = state.log_temperature.device
    return {name: tensors[f"{kind}.{name}"].to(device) for name in state.named_parameters()}
