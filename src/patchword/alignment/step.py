"""One step of the optimizer, by one process or several, on the whole batch or part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from patchword.alignment.distributed import Processes
from patchword.alignment.losses import (
    TERMS,
    LossTerms,
    MaskTargets,
    PatchSample,
    check_labels,
    draw_sample,
    sampled_loss,
)
from patchword.alignment.module import ChosenPatches
from patchword.alignment.state import TrainingState
from patchword.config.align import AlignSettings

R = TypeVar("R")
Forward = Callable[[Tensor, ChosenPatches], Tensor]

PARTS = "images of a training step"
"""By which name the number of images that fit is remembered."""


class StepBatch(NamedTuple):
    """What a step needs, on the device, with every number of patches known to the host.

    Attributes:
        features: (b, D, h, w) of this process's images, b may be 0.
        labels: (k,) classes of the patches of all processes that a term looks at, -1 for those without.
        sample: these patches.
        counts: how many of them each process has.
        kept: (b, h, w) bool on the host, which patches of this process's images they are.
        parts: these again, by part of its images: (first image, the one after the last) -> patches.
        targets: of the masks that are present; None without the patch-mask term.
    """

    features: Tensor
    labels: Tensor
    sample: PatchSample
    counts: list[int]
    kept: Tensor
    parts: dict[tuple[int, int], ChosenPatches]
    targets: Tensor | None

    def part(self, start: int, stop: int) -> ChosenPatches:
        """The patches of images `start` to `stop` - 1 of this process, on the device."""
        made = self.parts.get((start, stop))
        return made or send_together(ChosenPatches.of(self.kept[start:stop]), device=self.features.device)


def draw_batch(
    features: Tensor,
    labels: Tensor,
    *,
    images: Sequence[range],
    index: int,
    classes: int,
    generator: torch.Generator,
    settings: AlignSettings,
    device: torch.device,
    masks: MaskTargets | None = None,
) -> StepBatch:
    """Draw the patches of a step on the host, and send them to the device with the features, without waiting for it.

    Args:
        features: (b, D, h, w) of this process's images, wherever they are.
        labels: (batch, h, w) integers of all processes' images, class of each patch or -1.
        images: every process's part of the batch; index: of this process.
        masks: whose regions are (batch, h, w); None without the patch-mask term.
    """
    everywhere = labels.flatten().long()
    check_labels(everywhere, classes=classes)
    regions = None if masks is None else masks.regions.flatten().long()
    sample = draw_sample(everywhere, settings=settings, generator=generator, regions=regions)
    kept = torch.zeros(labels.shape, dtype=torch.bool)
    kept.view(-1)[sample.kept] = True
    counts = [int(kept[share.start : share.stop].sum()) for share in images]
    mine = kept[images[index].start : images[index].stop]
    size = _part_size(len(mine), settings=settings)
    spans = [(start, min(start + size, len(mine))) for start in range(0, len(mine), size)]
    parts = [ChosenPatches.of(mine[start:stop]) for start, stop in spans]
    targets = None if masks is None else masks.vectors[sample.regions.present]
    chosen, sample, parts = send_together((everywhere[sample.kept], sample, parts), device=device)
    return StepBatch(
        send(features, device=device),
        chosen,
        sample,
        counts,
        mine,
        dict(zip(spans, parts, strict=True)),
        None if targets is None else send(targets, device=device),
    )


def _part_size(images: int, *, settings: AlignSettings) -> int:
    return max(1, math.ceil(images / settings.accumulation))


def send(tensor: Tensor, *, device: torch.device) -> Tensor:
    """A tensor on a device; the host goes on at once."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def send_together(record: R, *, device: torch.device) -> R:
    """A record of whole numbers (int64) on a device, by one copy: tuples and lists of tensors, however deep."""
    if device.type == "cpu":
        return record
    found = list(_tensors(record))
    joined = send(torch.cat([each.flatten() for each in found]), device=device)
    pieces = torch.split(joined, [each.numel() for each in found])
    sent = iter([piece.view(each.shape) for piece, each in zip(pieces, found, strict=True)])
    return cast(R, _rebuilt(record, sent))


def _tensors(record: object) -> Iterator[Tensor]:
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, tuple | list):
        for each in record:
            yield from _tensors(each)


def _rebuilt(record: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(record, Tensor):
        return next(tensors)
    if not isinstance(record, tuple | list):
        return record
    parts = [_rebuilt(each, tensors) for each in record]
    return type(record)(*parts) if hasattr(record, "_fields") else type(record)(parts)


def training_step(
    state: TrainingState,
    batch: StepBatch,
    text: Tensor,
    *,
    forward: Forward,
    processes: Processes,
    rate: float,
    settings: AlignSettings,
) -> LossTerms:
    """Make one step of AdamW; the host never waits for the device.

    The loss is that of the whole batch, however it is divided: the aligned patches of all processes and parts are
    brought together, every process computes the loss and its gradient for all of them, takes the gradient of its own
    further back, and the sum over the processes is the gradient of the weights. With several parts the patches are
    aligned twice, first without a graph, so that the memory is that of one part. A part that does not fit is halved,
    and so are all later ones.

    Args:
        text: (c, d) unit text embeddings.
        forward: the module, or what stands for it: (features, chosen patches) -> (k, d).
    """
    images = len(batch.features)
    size = _part_size(images, settings=settings)
    graphs: list[Tensor] = []

    def align(start: int, stop: int) -> Tensor:
        return _align(batch.features[start:stop], batch.part(start, stop), forward=forward, dtype=state.dtype)

    def look(start: int, stop: int) -> Tensor:
        if stop - start < images:
            with torch.no_grad():
                return align(start, stop)
        graphs.append(align(start, stop))
        return graphs[0].detach()

    aligned = state.batches.run(look, count=images, size=size, what=PARTS)
    rows = torch.cat(aligned) if aligned else text.new_zeros((0, text.shape[1]))
    z = processes.gather(rows, counts=batch.counts).requires_grad_()
    terms = sampled_loss(
        z,
        batch.labels,
        text,
        sample=batch.sample,
        temperature=state.log_temperature.exp(),
        settings=settings,
        targets=batch.targets,
    )
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(terms.total).backward()  # type: ignore[no-untyped-call]
    before = sum(batch.counts[: processes.index])
    gradient = (torch.zeros_like(z) if z.grad is None else z.grad)[before : before + len(rows)]
    ends = [0, *batch.kept.sum((1, 2)).cumsum(0).tolist()]  # rows of z up to each image

    def go_back(start: int, stop: int) -> None:
        part = graphs.pop() if graphs else align(start, stop)
        _add_gradient(part, gradient[ends[start] : ends[stop]], parameters=list(state.module.parameters()))

    state.batches.run(go_back, count=images, size=size, what=PARTS)
    _add_up(state, processes=processes)
    _update(state, rate=rate, settings=settings)
    return LossTerms(*(getattr(terms, name).detach() for name in ("total", *TERMS)))


def _align(features: Tensor, kept: ChosenPatches, *, forward: Forward, dtype: torch.dtype) -> Tensor:
    """The aligned patches (k, d) that are kept of features (b, D, h, w)."""
    with torch.autocast(features.device.type, dtype, enabled=dtype != torch.float32):
        return forward(features.float(), kept)


def _add_gradient(part: Tensor, gradient: Tensor, *, parameters: Sequence[nn.Parameter]) -> None:
    """Take the gradient of a part back to the parameters and add it to theirs; nothing is added where that fails."""
    earlier = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        part.backward(gradient)  # type: ignore[no-untyped-call]
    except BaseException:
        for parameter, known in zip(parameters, earlier, strict=True):
            parameter.grad = known
        raise
    for parameter, known in zip(parameters, earlier, strict=True):
        if known is not None:
            parameter.grad = known if parameter.grad is None else known.add_(parameter.grad)


def _add_up(state: TrainingState, *, processes: Processes) -> None:
    """Give every parameter the sum of its gradients over the processes, in one exchange."""
    if processes.count == 1:
        return
    parameters = [parameter for parameter in state.named_parameters().values() if parameter.requires_grad]
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    if state.log_temperature.requires_grad:  # every process has the whole of this one
        gradients[-1] = gradients[-1] / processes.count
    joined = processes.sum(torch.cat([gradient.flatten() for gradient in gradients]))
    ends = pairwise(accumulate((each.numel() for each in parameters), initial=0))
    for parameter, (start, end) in zip(parameters, ends, strict=True):
        parameter.grad = joined[start:end].view_as(parameter)


def _update(state: TrainingState, *, rate: float, settings: AlignSettings) -> None:
    """Clip the gradients, move the weights and their average, keep the temperature in its range."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_([*state.named_parameters().values()], settings.gradient_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    with torch.no_grad():
        state.log_temperature.clamp_(min=math.log(settings.minimum_temperature))
    state.step += 1
    state.update_average(settings.average_decay)
