"""One step of the optimizer, by one process or several, on the whole batch or part by part."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from patchword.alignment.distributed import Processes
from patchword.alignment.losses import TERMS, LossTerms, MaskTargets, check_labels, draw_sample, sampled_loss
from patchword.alignment.state import TrainingState
from patchword.config.align import AlignSettings

Forward = Callable[[Tensor, Tensor], Tensor]


def training_step(
    state: TrainingState,
    features: Tensor,
    labels: Tensor,
    text: Tensor,
    *,
    forward: Forward,
    images: list[range],
    processes: Processes,
    rate: float,
    generator: torch.Generator,
    settings: AlignSettings,
    masks: MaskTargets | None = None,
) -> LossTerms:
    """Make one step of AdamW.

    The loss is that of the whole batch, however it is divided: the aligned patches of all processes and parts are
    brought together, every process computes the loss and its gradient for all of them, takes the gradient of its own
    further back, and the sum over the processes is the gradient of the weights. With several parts the patches are
    aligned twice, first without a graph, so that the memory is that of one part.

    Args:
        features: (b, D, h, w) of this process's images, b may be 0.
        labels: (b, h, w) integers, class of each patch or -1.
        text: (c, d) unit text embeddings.
        forward: the module, or what stands for it: (features, kept) -> (k, d).
        masks: whose regions are (b, h, w); None without the patch-mask term.
    """
    everywhere = processes.gather(labels.long(), counts=[len(share) for share in images])  # (batch, h, w)
    check_labels(everywhere.flatten(), classes=len(text))
    regions = None
    if masks is not None:
        regions = processes.gather(masks.regions.long(), counts=[len(share) for share in images]).flatten()
    sample = draw_sample(everywhere.flatten(), settings=settings, generator=generator, regions=regions)
    kept = torch.zeros_like(everywhere, dtype=torch.bool)
    kept.view(-1)[sample.kept] = True
    counts = [int(kept[share.start : share.stop].sum()) for share in images]
    mine = images[processes.index]
    size = max(1, math.ceil(len(mine) / settings.accumulation))
    own = kept[mine.start : mine.stop]
    parts = [(features[start : start + size], own[start : start + size]) for start in range(0, len(mine), size)]

    with nullcontext() if len(parts) == 1 else torch.no_grad():
        aligned = [_align(part, wanted, forward=forward, dtype=state.dtype) for part, wanted in parts]
    rows = torch.cat(aligned).detach() if aligned else text.new_zeros((0, text.shape[1]))
    z = processes.gather(rows, counts=counts).requires_grad_()
    terms = sampled_loss(
        z,
        everywhere.flatten()[sample.kept],
        text,
        sample=sample,
        temperature=state.log_temperature.exp(),
        settings=settings,
        masks=None if masks is None or regions is None else MaskTargets(regions[sample.kept], masks.vectors),
    )
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(terms.total).backward()  # type: ignore[no-untyped-call]
    gradients = _own_rows(z, counts=counts, index=processes.index, sizes=[len(part) for part in aligned])
    if len(parts) == 1:
        torch.autograd.backward(aligned, gradients)
    else:
        for (part, wanted), gradient in zip(parts, gradients, strict=True):
            _align(part, wanted, forward=forward, dtype=state.dtype).backward(gradient)  # type: ignore[no-untyped-call]
    _add_up(state, processes=processes)
    _update(state, rate=rate, settings=settings)
    return LossTerms(*(getattr(terms, name).detach() for name in ("total", *TERMS)))


def _align(features: Tensor, kept: Tensor, *, forward: Forward, dtype: torch.dtype) -> Tensor:
    """The aligned patches (k, d) that are kept (b, h, w) of features (b, D, h, w)."""
    with torch.autocast(features.device.type, dtype, enabled=dtype != torch.float32):
        return forward(features.float(), kept)


def _own_rows(z: Tensor, *, counts: list[int], index: int, sizes: list[int]) -> list[Tensor]:
    """The gradient of this process's rows of z, part by part."""
    gradient = torch.zeros_like(z) if z.grad is None else z.grad
    ends = accumulate(sizes, initial=sum(counts[:index]))
    return [gradient[start:end] for start, end in pairwise(ends)]


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
