"""Trains the alignment module on frozen features and patch labels."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from patchword.alignment.artifact import StepRecord
from patchword.alignment.distributed import Processes
from patchword.alignment.losses import TERMS, LossTerms, MaskTargets
from patchword.alignment.module import AlignmentModule, Compiled
from patchword.alignment.schedule import (
    Schedule,
    agreement,
    count_hits,
    image_order,
    is_best,
    learning_rate_share,
    out_of_patience,
    seeded_generator,
    split_images,
)
from patchword.alignment.state import (
    TrainingState,
    Weights,
    copy_weights,
    read_checkpoint,
    start_state,
    write_checkpoint,
)
from patchword.alignment.step import Forward, StepBatch, draw_batch, training_step
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.runs.progress import Progress

_log = logging.getLogger(__name__)
_RECORDS = 200  # about as many lines of history, however long the training; only these steps wait for the device
_AHEAD = 3  # batches that are read before they are used


class PatchFeatures(Protocol):
    """Where the trainer reads features from; `FeatureCache` and `OnlineFeatures` are two."""

    def read(self, keys: Sequence[str], /) -> Tensor:
        """Read features (b, D, h, w) of images by key, as they are."""


class AugmentedImages(Protocol):
    """Where features of augmented images come from, with the labels that moved along."""

    def read_augmented(self, positions: Sequence[int], /, *, epoch: int) -> tuple[Tensor, Tensor]:
        """Read features (b, D, h, w) and labels (b, h, w) of images by position in the set, other ones each epoch."""


@dataclass(frozen=True)
class TrainingSet:
    """Images that have at least one labelled patch.

    Attributes:
        features: frozen features by key.
        keys: one an image, n of them; a key may repeat.
        labels: (n, h, w) integers, class of each patch or -1.
        text: (c, d) unit text embeddings of the classes.
        augmented: where training reads features and labels instead, anew in every epoch; None for those above.
        masks: whose regions are (n, h, w); None without, as where images are augmented.
    """

    features: PatchFeatures
    keys: tuple[str, ...]
    labels: Tensor
    text: Tensor
    augmented: AugmentedImages | None = None
    masks: MaskTargets | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A trained module on the CPU, the text temperature it ended with, and how it went."""

    module: AlignmentModule
    temperature: float
    history: tuple[StepRecord, ...]


def train(
    data: TrainingSet,
    *,
    settings: AlignSettings,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    tracker: Tracker | None = None,
) -> TrainingResult:
    """Train the module with AdamW, a linear warm-up and a cosine decay to 0.

    The order of images, the augmentations and the sampled patches follow from the seed and the step alone, so that on a
    CPU a run repeats exactly and a stopped one ends as if it had not been stopped. Under `accelerate launch` or
    `torchrun` every process calls this with the same arguments; they divide each batch, share the checkpoint's disk and
    all return the same.

    Args:
        data: features, patch labels and text embeddings.
        settings: of the loss and the training.
        device: to train on.
        checkpoint: file that is written at the end of every epoch and every `checkpoint_minutes`; when it exists the
            training goes on from it.
        progress: advanced by one for every step; its total is set here.
        tracker: takes the history's numbers as they come.

    Returns:
        The module, the text temperature and the history. With `patience` they are those of the best evaluation, and
        with `average_decay` the moving average's.
    """
    run = _Run(data, settings=settings, device=torch.device(device), checkpoint=checkpoint, progress=progress)
    run.train(tracker)
    state = run.state
    state.load(state.best or state.weights())
    temperature = state.log_temperature.detach().exp().item()
    return TrainingResult(state.module.eval().cpu(), temperature, tuple(state.history))


def plan_training(data: TrainingSet, *, settings: AlignSettings) -> Schedule:
    """How long `train` will take, and in what steps."""
    return Schedule.of(len(_split(data, settings=settings)[0]), settings=settings)


def _split(data: TrainingSet, *, settings: AlignSettings) -> tuple[list[int], list[int]]:
    """The positions to train on, and those held out."""
    if not data.keys:
        raise PatchwordError("no image has a labelled patch; lower `majority`, or look at the coverage of the labels")
    return split_images(data.keys, share=settings.held_out, generator=seeded_generator(settings.seed, "held out"))


class _Run:
    """A training on its way."""

    def __init__(
        self,
        data: TrainingSet,
        *,
        settings: AlignSettings,
        device: torch.device,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.checkpoint, self.progress = checkpoint, progress
        self.processes = Processes.current(device)
        self.positions, self.held = _split(data, settings=settings)
        self.schedule = Schedule.of(len(self.positions), settings=settings)
        self.text = data.text.to(device)
        dim = data.features.read(data.keys[:1]).shape[1]
        self.state = start_state(dim=dim, text_dim=data.text.shape[1], settings=settings, device=device)
        if checkpoint is not None and checkpoint.exists():
            read_checkpoint(checkpoint, state=self.state)
        self._saved = time.monotonic()
        self._drawn: tuple[int, list[int]] = (-1, [])
        # All reading is done by this one thread, since sources of features are not made for several.
        # A DataLoader gives the same batches and is slower: its workers send features from process to process.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="patchword-features")

    def train(self, tracker: Tracker | None) -> None:
        """Train from the state's step to the last, or until patience ends."""
        state, settings = self.state, self.settings
        forward: Forward = Compiled(state.module) if settings.compile else state.module
        every = max(1, self.schedule.steps // _RECORDS)
        pending: list[LossTerms] = []
        if self.progress is not None:
            self.progress.total = self.schedule.steps
            self.progress.skip(state.step)
        started, patches = time.perf_counter(), 0
        for batch, images in self._batches():
            share = learning_rate_share(state.step, steps=self.schedule.steps, warmup_share=settings.warmup_share)
            terms = training_step(
                state,
                batch,
                self.text,
                forward=forward,
                processes=self.processes,
                rate=self.schedule.learning_rate * share,
                settings=settings,
            )
            pending.append(terms)
            patches += images * self.data.labels[0].numel()
            ended = state.step % self.schedule.epoch_steps == 0 or state.step == self.schedule.steps
            if state.step % every == 0 or ended:
                record = self._record(pending, rate=self.schedule.learning_rate * share, evaluate=ended)
                pending = []
                speed = patches / max(time.perf_counter() - started, 1e-9)
                self._tell(record, speed=speed, tracker=tracker)
                self._save(ended)
            if self.progress is not None:
                self.progress.advance()

    def _batches(self) -> Iterator[tuple[StepBatch, int]]:
        """This process's part of each batch that is left, and how many images that has; the next are read ahead."""
        steps = iter(range(self.state.step, self.schedule.steps))
        try:
            ahead = deque(self._reader.submit(self._read, step) for step in islice(steps, _AHEAD))
            while ahead and not out_of_patience(self.state.history, patience=self.settings.patience):
                draw, images = ahead.popleft().result()
                yield draw if isinstance(draw, StepBatch) else draw(), images
                ahead.extend(self._reader.submit(self._read, step) for step in islice(steps, 1))
        finally:
            self._reader.shutdown(cancel_futures=True)

    def _read(self, step: int) -> tuple[StepBatch | Callable[[], StepBatch], int]:
        """Read a step's features and draw its patches; where only others know their labels, what draws them then."""
        data, settings = self.data, self.settings
        epoch, place = divmod(step, self.schedule.epoch_steps)
        start = place * self.schedule.batch_size
        batch = self._order(epoch)[start : start + self.schedule.batch_size]
        images = self.processes.shares(len(batch))
        chosen = [batch[index] for index in images[self.processes.index]]
        labels = data.labels[batch]
        own = labels[images[self.processes.index].start : images[self.processes.index].stop]
        if not chosen:
            features = torch.zeros((0, self.state.module.dim, *labels.shape[1:]))
        elif data.augmented is not None:
            features, own = data.augmented.read_augmented(chosen, epoch=epoch)
        else:
            features = data.features.read([data.keys[position] for position in chosen])
        _check_grid(features, own)
        draw = partial(
            draw_batch,
            features,
            images=images,
            index=self.processes.index,
            classes=len(self.text),
            generator=seeded_generator(settings.seed, "sample", step),
            settings=settings,
            device=self.device,
            masks=None if data.masks is None else MaskTargets(data.masks.regions[batch], data.masks.vectors),
        )
        if data.augmented is None:
            return draw(labels), len(batch)
        if self.processes.count == 1:
            return draw(own), len(batch)
        return lambda: draw(self._gather(own, images)), len(batch)

    def _order(self, epoch: int) -> list[int]:
        """The positions of an epoch in the order in which it sees them."""
        if self._drawn[0] != epoch:
            order = image_order(len(self.positions), epoch=epoch, seed=self.settings.seed)
            self._drawn = epoch, [self.positions[index] for index in order.tolist()]
        return self._drawn[1]

    def _gather(self, labels: Tensor, images: list[range]) -> Tensor:
        """The labels (batch, h, w) of the images of all processes; processes speak to each other through the device."""
        return self.processes.gather(labels.long().to(self.device), counts=[len(share) for share in images]).cpu()

    def _record(self, pending: list[LossTerms], *, rate: float, evaluate: bool) -> StepRecord:
        """Average the terms since the last record and, where it is due, measure the held-out agreement."""
        record = StepRecord(
            step=self.state.step,
            learning_rate=rate,
            **_means(pending, state=self.state, rate=self.schedule.learning_rate, settings=self.settings),
            held_out=self._evaluate() if evaluate and self.held else None,
        )
        self.state.history.append(record)
        if record.held_out is not None and self.settings.patience is not None and is_best(self.state.history):
            self.state.best = copy_weights(self.state.weights())
        return record

    @torch.no_grad()
    def _evaluate(self) -> float:
        """The agreement with the held-out labels."""
        weights, size = self.state.weights(), self.schedule.batch_size
        hits = torch.zeros((2, len(self.text)), dtype=torch.int64)
        batches = [self.held[start : start + size] for start in range(0, len(self.held), size)]
        for batch in batches[self.processes.index :: self.processes.count]:
            keys = [self.data.keys[position] for position in batch]
            features = self._reader.submit(self.data.features.read, keys).result()
            labels = self.data.labels[batch].long()
            _check_grid(features, labels)
            some = partial(self._count, weights, features, labels)
            hits += sum(self.state.batches.run(some, count=len(batch), size=size, what="held-out images"))
        return agreement(self.processes.sum(hits.to(self.device)))

    def _count(self, weights: Weights, features: Tensor, labels: Tensor, start: int, stop: int) -> Tensor:
        """The hits among images `start` to `stop` - 1 of some that are held out, on the host."""
        values = {name: weights[name] for name in weights if name != "log_temperature"}
        given = (features[start:stop].to(self.device).float(),)
        aligned = torch.func.functional_call(self.state.module, values, given)
        return count_hits(aligned, labels[start:stop].to(self.device), self.text).cpu()

    def _tell(self, record: StepRecord, *, speed: float, tracker: Tracker | None) -> None:
        """Show a record to whoever watches."""
        shown = [*TERMS, *([] if record.held_out is None else ["held_out"])]
        terms = ", ".join(f"{name.replace('_', ' ')} {getattr(record, name):.3f}" for name in shown)
        _log.info("step %d: loss %.4f (%s), temperature %.4f", record.step, record.total, terms, record.temperature)
        if self.progress is not None:
            self.progress.note = f"loss {record.total:.3f}, {speed:,.0f} patches a second ({terms})"
        if tracker is not None and self.processes.is_first:
            values = record.model_dump(exclude={"step"}, exclude_none=True)
            tracker.log({**values, "patches_per_second": speed}, step=record.step)

    def _save(self, ended: bool) -> None:
        """Write the checkpoint when it is due; nothing is pending then."""
        due = ended or time.monotonic() - self._saved >= 60 * self.settings.checkpoint_minutes
        if due and self.checkpoint is not None and self.state.step < self.schedule.steps and self.processes.is_first:
            write_checkpoint(self.checkpoint, state=self.state)
            self._saved = time.monotonic()


def _check_grid(features: Tensor, labels: Tensor) -> None:
    if features.shape[-2:] != labels.shape[-2:]:
        raise PatchwordError(
            f"features have {tuple(features.shape[-2:])} patches; the labels have {tuple(labels.shape[-2:])}"
        )


def _means(pending: list[LossTerms], *, state: TrainingState, rate: float, settings: AlignSettings) -> dict[str, float]:
    """The means of the terms of the last steps, and the temperature after them: what the host waits for the device."""
    names = ("total", *TERMS)
    scalars = [getattr(terms, name) for terms in pending for name in names]
    together = torch.stack([*scalars, state.log_temperature.detach().exp()]).cpu().double()
    values = together[:-1].view(len(pending), -1)
    broken = (~torch.isfinite(values[:, 0])).nonzero()
    if len(broken):
        first = int(broken[0])
        step = state.step - len(pending) + first
        raise PatchwordError(
            f"the loss is {values[first, 0].item()} at step {step}; try a `learning_rate` below "
            f"{rate:g} or a `minimum_temperature` above {settings.minimum_temperature:g}"
        )
    return {**dict(zip(names, values.mean(dim=0).tolist(), strict=True)), "temperature": together[-1].item()}


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
    """Start a tracker of accelerate's: TensorBoard below `folder`/tensorboard, or Weights & Biases."""
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
