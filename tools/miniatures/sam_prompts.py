"""Point prompts from nameless masks, and what the miniature SAM is told about its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_STRIDE = 2  # pixels of the input to a pixel of the decoder's masks
_LEAST_AREA = 30  # pixels; less of a thing cannot be told from grain
_CROSS_WEIGHT = 1.0


@dataclass(frozen=True)
class Prompts:
    """Point prompts of equal length for a batch of images, and what they should select.

    Attributes:
        points: (b, n, k, 2) x and y in pixels of the input, all foreground.
        masks: (b, n, h / 2, w / 2) share of every low-resolution pixel that is inside, in [0, 1].
    """

    points: Tensor
    masks: Tensor


@dataclass(frozen=True)
class PromptTerms:
    """How well a batch of prompts was answered.

    Attributes:
        loss: scalar to descend.
        iou: mean IoU of the better of the three masks of a prompt, in [0, 1].
    """

    loss: Tensor
    iou: float


def sample_prompts(
    instances: NDArray[np.uint8], *, generator: np.random.Generator, prompts: int, points: int, joined: float = 0.0
) -> Prompts:
    """Draw prompts of so many points each; every visible thing and region is equally likely, whatever its size.

    Args:
        instances: (b, h, w) instance numbers of the images, 0 = nothing; sides even.
        generator: source of the choice.
        prompts: n, prompts an image.
        points: k, points a prompt.
        joined: chance in [0, 1] that the points of a prompt lie in two instances and select both; 0 for k = 1.

    Returns:
        the prompts; points uniform over the visible pixels.
    """
    places = np.empty((len(instances), prompts, points, 2), np.float32)
    masks = np.empty((len(instances), prompts, *instances.shape[1:]), bool)
    for image, numbers in enumerate(instances):
        areas = np.bincount(numbers.ravel(), minlength=256)
        areas[0] = 0
        large = np.flatnonzero(areas >= _LEAST_AREA)
        for prompt in range(prompts):
            chosen = generator.choice(large, 1 + int(points > 1 and generator.random() < joined))
            masks[image, prompt] = np.isin(numbers, chosen)
            owners = np.concatenate([chosen, generator.choice(chosen, points)])[:points]
            for point, owner in enumerate(owners):
                inside = np.flatnonzero(numbers == owner)
                row, column = divmod(int(inside[generator.integers(len(inside))]), numbers.shape[1])
                places[image, prompt, point] = column, row
    return Prompts(torch.from_numpy(places), F.avg_pool2d(torch.from_numpy(masks).float(), _STRIDE))


def decode_all(model: Any, embeddings: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Decode prompts to all four masks of a SAM at once; `SamModel` itself gives either the first or the other three.

    Args:
        model: a `SamModel`.
        embeddings: (b, c, h, w) of its image encoder.
        points: (b, n, k, 2) x and y in pixels of the input, all foreground.

    Returns:
        logits (b, n, 4, 4 h, 4 w) and predicted IoU (b, n, 4); the first mask is the one for unambiguous prompts.
    """
    decoder = model.mask_decoder
    batch, count = points.shape[:2]
    labels = torch.ones(points.shape[:3], dtype=torch.int64, device=points.device)
    sparse, dense = model.prompt_encoder(points, labels, None, None)
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).repeat(batch, count, 1, 1)
    tokens, keys = decoder.transformer(
        point_embeddings=torch.cat([outputs, sparse], 2),
        image_embeddings=(embeddings + dense).repeat_interleave(count, 0),
        image_positional_embeddings=model.get_image_wide_positional_embeddings().repeat(batch * count, 1, 1, 1),
        attention_similarity=None,
    )
    keys = keys.transpose(2, 3).reshape(batch * count, *embeddings.shape[1:])
    fine = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(keys)))
    fine = decoder.activation(decoder.upscale_conv2(fine))  # (b * n, c / 8, 4 h, 4 w)
    weights = [head(tokens[:, :, 1 + index]) for index, head in enumerate(decoder.output_hypernetworks_mlps)]
    logits = torch.stack(weights, 2) @ fine.reshape(batch, count, fine.shape[1], -1)
    return logits.unflatten(-1, fine.shape[2:]), decoder.iou_prediction_head(tokens[:, :, 0])


def mask_losses(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice loss of every mask, and its IoU.

    Weighing the cross-entropy more, or SAM's focal loss 20 times in its place, was slower to leave the empty mask.

    Args:
        logits: (b, n, m, h, w).
        target: (b, n, h, w) in [0, 1].

    Returns:
        loss (b, n, m), cross-entropy plus dice, and IoU (b, n, m) without gradient.

    Source:
        Kirillov et al., Segment Anything, appendix A.
    """
    logits, target = logits.flatten(3).float(), target[:, :, None].flatten(3)
    probabilities = logits.sigmoid()
    cross = F.softplus(logits) - logits * target
    overlap, total = (probabilities * target).sum(-1), probabilities.sum(-1) + target.sum(-1)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    with torch.no_grad():
        inside, wanted = (logits > 0).float(), (target >= 0.5).float()
        both = (inside * wanted).sum(-1)
        iou = both / (inside.sum(-1) + wanted.sum(-1) - both).clamp(min=1)
    return _CROSS_WEIGHT * cross.mean(-1) + dice, iou


def prompt_terms(model: Any, embeddings: Tensor, prompts: Prompts, *, trust: float, rest: float = 0.0) -> PromptTerms:
    """The loss of a batch of prompts: the best of the masks that the prompts ask for, and every predicted IoU.

    One point may mean more than one thing, so the three masks for that compete; several points mean one thing, so the
    single mask learns from them too.

    Args:
        model: a `SamModel`.
        embeddings: (b, c, h, w) of its image encoder.
        prompts: of the same images.
        trust: weight of the squared error of the predicted IoU.
        rest: share of the three masks' mean loss beside that of the best alone, in [0, 1]. What a point means is less
            ambiguous in a drawn world than in photographs, and masks that nobody corrects are trusted by mistake.

    Source:
        Kirillov et al., Segment Anything, section 3 and appendix A; `rest` is ours, 0 there.
    """
    logits, predicted = decode_all(model, embeddings, prompts.points)
    losses, iou = mask_losses(logits, prompts.masks)
    best = torch.lerp(losses[:, :, 1:].amin(-1).mean(), losses[:, :, 1:].mean(), rest)
    if prompts.points.shape[2] > 1:
        best = (best + losses[:, :, 0].mean()) / 2
    loss = best + trust * (predicted.float() - iou).square().mean()
    return PromptTerms(loss, float(iou[:, :, 1:].amax(-1).mean()))


def gathering_loss(embeddings: Tensor, instances: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Supervised contrast of the image embedding: places of one instance together, all others apart.

    Prompts teach the image encoder little until the decoder can read it; this teaches it from the first step.

    Args:
        embeddings: (b, c, h, w) of the image encoder.
        instances: (b, H, W) instance numbers; H and W the same multiple of h and w.
        temperature: divides the cosines, above 0.

    Returns:
        the mean over instances, each equally heavy.

    Source:
        Khosla et al., Supervised Contrastive Learning, eq. 2.
    """
    step = instances.shape[1] // embeddings.shape[2]
    owners = instances[:, step // 2 :: step, step // 2 :: step].flatten(1)
    same = owners[:, :, None] == owners[:, None]  # (b, h * w, h * w)
    unit = F.normalize(embeddings.flatten(2).transpose(1, 2), dim=2)
    log_shares = (unit @ unit.transpose(1, 2) / temperature).log_softmax(2)
    counts = same.sum(2)
    losses = -(log_shares * same).sum(2) / counts  # (b, h * w)
    # Every instance in every image weighs one, whatever its size.
    return (losses / counts).sum() / (1 / counts).sum()
