"""All that changes while a module is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from patchword.alignment.module import AlignmentModule
from patchword.alignment.records import StepRecord
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.devices import fast_dtype

Weights = dict[str, Tensor]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TrainingState:
    """All that changes from step to step.

    Attributes:
        module: what is trained.
        log_temperature: logarithm of the text temperature.
        optimizer: of both.
        scaler: of the gradients in fp16; does nothing in other types.
        average: moving average of the weights by name; None when it is off.
        best: the weights of the best evaluation so far; None before the first, or without early stopping.
        step: how many steps were done.
        history: their records.
    """

    module: AlignmentModule
    log_temperature: nn.Parameter
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    average: Weights | None = None
    best: Weights | None = None
    step: int = 0
    history: list[StepRecord] = field(default_factory=list)

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
    scaled = compute_type(settings.precision, device=device) == torch.float16
    state = TrainingState(
        module=module,
        log_temperature=log_temperature,
        optimizer=torch.optim.AdamW(groups),  # every step sets its own learning rate
        scaler=torch.amp.GradScaler(device.type, enabled=scaled),
    )
    if settings.average_decay > 0:
        state.average = copy_weights(state.weights())
    return state


def copy_weights(weights: Weights) -> Weights:
    """Weights that no later step changes."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def compute_type(precision: str, *, device: torch.device) -> torch.dtype:
    """The type in which the module computes; "auto" is that of the frozen models, `devices.fast_dtype`."""
    if precision == "auto":
        return fast_dtype(device)
    if precision == "fp16" and device.type not in ("cuda", "cpu"):
        raise PatchwordError(f"precision is 'fp16' on {device.type} (choose from auto, fp32, bf16)")
    return _TYPES[precision]
