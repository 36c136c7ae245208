"""The denominators of a contrastive loss, a block of similarities at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from patchword.models.batching import Batches


def weighted_logsumexp(
    anchors: Tensor, others: Tensor, weights: Tensor, *, temperature: Tensor | float, bound: int, own: bool = True
) -> Tensor:
    """Compute sum_i w_i log( sum_a exp(anchor_i . other_a / tau) ), the denominators of a contrastive loss.

    The similarities are computed for a few anchors at a time. Their gradient is formed at once, while they are at hand,
    so that the backward pass neither keeps nor computes them again: three products of matrices in all, as many as when
    everything is kept.

    Args:
        anchors: (m, d), m at least 1; in the order of `others` when `own` is false.
        others: (n, d), n at least 1, or 2 when `own` is false.
        weights: (m,), constant: no gradient goes to them.
        temperature: tau > 0; a scalar tensor when it is learned.
    """
    # A number stays on the host, and is handed over with the work; it need not be copied to a device.
    tau = temperature if isinstance(temperature, Tensor) else torch.tensor(temperature, dtype=anchors.dtype)
    total: Tensor = _WeightedLogSumExp.apply(anchors, others, weights, tau, bound, own)  # type: ignore[no-untyped-call]
    return total


_BLOCKS = Batches()


class _WeightedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, others: Tensor, weights: Tensor, temperature: Tensor, bound: int, own: bool
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        to_anchors, to_others = (torch.zeros_like(vectors) if wanted else None for vectors in (anchors, others))
        total = anchors.new_zeros(())
        rows = max(1, bound // len(others))

        def add(start: int, stop: int) -> None:
            nonlocal total
            scaled, weight = anchors[start:stop] / temperature, weights[start:stop]
            similarity = scaled @ others.T  # (rows, n)
            if not own:
                similarity.diagonal(offset=start).fill_(-torch.inf)
            normaliser = similarity.logsumexp(dim=1)
            if to_anchors is not None and to_others is not None:
                share = similarity.sub_(normaliser[:, None]).exp_().mul_(weight[:, None])  # d total / d similarity
                torch.mm(share, others, out=to_anchors[start:stop])
                to_others.addmm_(share.T, scaled)  # nothing is added before all that may run out of memory is done
            total += weight @ normaliser

        _BLOCKS.run(add, count=len(anchors), size=rows, what="rows of similarities")
        if to_anchors is not None and to_others is not None:
            to_anchors /= temperature
            # Every similarity is a product divided by tau, so its derivative by tau is minus itself over tau.
            to_temperature = -(others * to_others).sum() / temperature
            ctx.save_for_backward(to_anchors, to_others, to_temperature)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_anchors, to_others, to_temperature = (saved * gradient for saved in ctx.saved_tensors)
        return to_anchors, to_others, None, to_temperature, None, None
