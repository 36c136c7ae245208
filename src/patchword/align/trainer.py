"""Trains the alignment module on frozen features and patch labels."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from patchword.align.checkpoint import read_checkpoint, write_checkpoint
from patchword.align.losses import LossTerms, t_supcon
from patchword.align.module import AlignmentModule
from patchword.align.records import StepRecord
from patchword.align.settings import AlignSettings
from patchword.errors import PatchwordError
from patchword.progress import Progress

_log = logging.getLogger(__name__)
_RECORDS = 200  # about as many lines of history, however long the training


class PatchFeatures(Protocol):
    """Where the trainer reads features from; `FeatureCache` is one."""

    def read(self, keys: Sequence[str], /) -> Tensor:
        """Read features (b, D, h, w) of images by key."""


@dataclass(frozen=True)
class TrainingSet:
    """Images that have at least one labelled patch.

    Attributes:
        features: frozen features by key.
        keys: one an image, n of them; a key may repeat.
        labels: (n, h, w) integers, class of each patch or -1.
        text: (c, d) unit text vectors of the classes.
    """

    features: PatchFeatures
    keys: tuple[str, ...]
    labels: Tensor
    text: Tensor


@dataclass(frozen=True)
class TrainingResult:
    """A trained module on the CPU, the text temperature it ended with, and how it went."""

    module: AlignmentModule
    temperature: float
    history: tuple[StepRecord, ...]


@dataclass
class TrainingState:
    """All that changes from step to step."""

    module: AlignmentModule
    log_temperature: nn.Parameter
    optimizer: torch.optim.AdamW
    step: int = 0
    history: list[StepRecord] = field(default_factory=list)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return {**dict(self.module.named_parameters()), "log_temperature": self.log_temperature}


def train(
    data: TrainingSet,
    *,
    settings: AlignSettings,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the module with AdamW, a linear warm-up and a cosine decay to 0.

    The order of images and the sampled patches follow from the seed and the step alone, so that on a CPU a run repeats
    exactly and a stopped one ends as if it had not been stopped.

    Args:
        data: features, patch labels and text vectors.
        settings: of the loss and the training.
        device: to train on.
        checkpoint: file that is written at the end of every epoch; when it exists the training goes on from it.
        progress: advanced by one for every step; its total is `total_steps`.

    Returns:
        The module, the text temperature and the history.

    Raises:
        PatchwordError: when no image has a labelled patch, when features change their size, when the loss stops being a
            number, or when the checkpoint is damaged.
    """
    if not data.keys:
        raise PatchwordError("no image has a labelled patch; lower `majority`, or look at the coverage of the labels")
    device = torch.device(device)
    state = _start(data, settings=settings, device=device)
    if checkpoint is not None and checkpoint.exists():
        read_checkpoint(checkpoint, state=state)
    if progress is not None and state.step:
        progress.advance(state.step)
    _run(state, data, settings=settings, checkpoint=checkpoint, progress=progress)
    temperature = state.log_temperature.detach().exp().item()
    return TrainingResult(state.module.eval().cpu(), temperature, tuple(state.history))


def total_steps(images: int, *, settings: AlignSettings) -> int:
    """How many steps a training on that many images takes."""
    return settings.steps or settings.epochs * math.ceil(images / settings.batch_size)


def learning_rate_share(step: int, *, steps: int, warmup_share: float) -> float:
    """The share of the highest learning rate at a step from 0 to steps - 1: a linear rise, then half a cosine."""
    warmup = math.ceil(steps * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def image_order(images: int, *, epoch: int, seed: int) -> Tensor:
    """The order in which epoch `epoch` sees the images: (images,) a permutation."""
    return torch.randperm(images, generator=_generator(seed, "order", epoch))


def _start(data: TrainingSet, *, settings: AlignSettings, device: torch.device) -> TrainingState:
    dim = data.features.read(data.keys[:1]).shape[1]
    module = AlignmentModule(
        dim=dim,
        text_dim=data.text.shape[1],
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
    return TrainingState(module, log_temperature, torch.optim.AdamW(groups, lr=settings.learning_rate))


def _run(
    state: TrainingState,
    data: TrainingSet,
    *,
    settings: AlignSettings,
    checkpoint: Path | None,
    progress: Progress | None,
) -> None:
    """Train from the state's step to the last."""
    steps = total_steps(len(data.keys), settings=settings)
    epoch_steps = math.ceil(len(data.keys) / settings.batch_size)
    every = max(1, steps // _RECORDS)
    device = state.log_temperature.device
    text = data.text.to(device)
    pending: list[LossTerms] = []
    for features, labels in _batches(data, settings=settings, first=state.step, steps=steps):
        rate = settings.learning_rate * learning_rate_share(state.step, steps=steps, warmup_share=settings.warmup_share)
        pending.append(_step(state, features.to(device), labels.to(device), text, rate=rate, settings=settings))
        state.step += 1
        epoch_ended = state.step % epoch_steps == 0
        if state.step % every == 0 or epoch_ended or state.step == steps:
            state.history.append(_summarise(pending, state=state, rate=rate, settings=settings))
            pending = []
        if checkpoint is not None and epoch_ended and state.step < steps:
            write_checkpoint(checkpoint, state=state)
        if progress is not None:
            progress.advance()


def _step(
    state: TrainingState, features: Tensor, labels: Tensor, text: Tensor, *, rate: float, settings: AlignSettings
) -> LossTerms:
    """One step of AdamW on features (b, D, h, w) and labels (b, h, w); returns the terms, detached."""
    with torch.autocast(features.device.type, torch.bfloat16, enabled=_use_bfloat16(features.device, settings)):
        aligned = state.module(features.float())  # (b, d, h, w)
    terms = t_supcon(
        aligned.permute(0, 2, 3, 1).flatten(0, 2),  # (b * h * w, d)
        labels.flatten().long(),
        text,
        temperature=state.log_temperature.exp(),
        settings=settings,
        generator=_generator(settings.seed, "sample", state.step),
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([*state.named_parameters().values()], settings.gradient_clip)
    state.optimizer.step()
    with torch.no_grad():
        state.log_temperature.clamp_(min=math.log(settings.minimum_temperature))
    return LossTerms(
        *(getattr(terms, name).detach() for name in ("total", "patch_patch", "text_anchor", "patch_anchor"))
    )


def _batches(data: TrainingSet, *, settings: AlignSettings, first: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of steps first ... steps - 1, features (b, D, h, w) and labels (b, h, w); the next is read ahead."""
    images = len(data.keys)
    epoch_steps = math.ceil(images / settings.batch_size)

    def read(step: int) -> tuple[Tensor, Tensor]:
        order = image_order(images, epoch=step // epoch_steps, seed=settings.seed)
        start = step % epoch_steps * settings.batch_size
        chosen = order[start : start + settings.batch_size]
        features = data.features.read([data.keys[position] for position in chosen.tolist()])
        if features.shape[-2:] != data.labels.shape[-2:]:
            raise PatchwordError(
                f"features have {tuple(features.shape[-2:])} patches; the labels have {tuple(data.labels.shape[-2:])}"
            )
        return features, data.labels[chosen]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="patchword-features") as pool:
        ahead = pool.submit(read, first) if first < steps else None
        for step in range(first, steps):
            batch = ahead.result() if ahead is not None else read(step)
            ahead = pool.submit(read, step + 1) if step + 1 < steps else None
            yield batch


def _summarise(pending: list[LossTerms], *, state: TrainingState, rate: float, settings: AlignSettings) -> StepRecord:
    """Average the terms since the last record.

    Raises:
        PatchwordError: when one of them is not finite.
    """
    names = ("total", "patch_patch", "text_anchor", "patch_anchor")
    values = torch.stack([torch.stack([getattr(terms, name) for name in names]) for terms in pending]).double().cpu()
    broken = (~torch.isfinite(values[:, 0])).nonzero()
    if len(broken):
        step = state.step - len(pending) + int(broken[0])
        raise PatchwordError(
            f"the loss is {values[int(broken[0]), 0].item()} at step {step}; try a `learning_rate` below "
            f"{settings.learning_rate:g} or a `minimum_temperature` above {settings.minimum_temperature:g}"
        )
    means = dict(zip(names, values.mean(dim=0).tolist(), strict=True))
    record = StepRecord(
        step=state.step, learning_rate=rate, temperature=state.log_temperature.detach().exp().item(), **means
    )
    _log.info(
        "step %d: loss %.4f (patch-patch %.4f, text anchor %.4f, patch anchor %.4f), temperature %.4f",
        *(record.step, record.total, record.patch_patch, record.text_anchor, record.patch_anchor, record.temperature),
    )
    return record


def _use_bfloat16(device: torch.device, settings: AlignSettings) -> bool:
    return settings.autocast and device.type == "cuda" and torch.cuda.is_bf16_supported()


def _generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """A generator on the CPU that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
