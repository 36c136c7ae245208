"""A first layer that already sees texture, so that a small transformer learns within a few thousand steps.

A fresh transformer reads a patch through random sums of pixels, in which flat colour drowns texture, and stays on a
plateau for most of a small budget. Here the patch embedding starts as a whitening of the pictures' own patches and the
first block's hidden units start as pairs that rectify one whitened component each: what a wave or a dot does to a patch
shows from the first step, wherever in the patch it lies. Only the start is set; everything is trained, and nothing but
pictures is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Hidden units see layer-normalised tokens, of unit size: twice that is well past the bend of the activation.
_LIFT = 2.0
# Added to every variance, so that directions in which patches hardly differ do not become pure noise.
_FLOOR = 0.02


@torch.no_grad()
def start_from_patches(
    projection: nn.Conv2d, *, hidden: nn.Linear, attention_output: nn.Linear, images: Tensor, scale: float = 1.0
) -> None:
    """Set the weights of a patch embedding and of the first block that follows it.

    Args:
        projection: the patch embedding, 3 -> d channels, stride = kernel; d at most 3 x patch x patch.
        hidden: the first block's layer d -> at least 2 d ahead of its activation.
        attention_output: the first block's attention output, silenced so that patches are seen before they are mixed.
        images: (n, 3, h, w) normalised pictures to whiten by; a few hundred suffice.
        scale: standard deviation of the embedding's components over the patches.
    """
    dim, patch = projection.out_channels, projection.kernel_size[0]
    patches = functional.unfold(images, patch, stride=patch).transpose(1, 2).flatten(0, 1)  # (n, 3 * patch * patch)
    variance, directions = torch.linalg.eigh(torch.cov(patches.T))
    variance, directions = variance.flip(0)[:dim], directions.flip(1)[:, :dim]
    whitening = scale * (directions / (variance + _FLOOR).sqrt()).T  # (d, 3 * patch * patch)
    projection.weight.copy_(whitening.view_as(projection.weight))
    if projection.bias is not None:
        projection.bias.copy_(-whitening @ patches.mean(0))
    identity = torch.eye(dim)
    hidden.weight[:dim] = _LIFT * identity
    hidden.weight[dim : 2 * dim] = -_LIFT * identity
    nn.init.zeros_(hidden.bias)
    nn.init.zeros_(attention_output.weight)
