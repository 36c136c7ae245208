"""SAM, SAM 2 and SAM 2.1: points to masks, without the memory that videos need; and the arithmetic of masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.checkpoint import Adapter, Loaded, side_of
from patchword.models.pixels import (
    MaskFrame,
    crop_logits,
    full_logits,
    longest_side_size,
    map_points,
    normalise,
    pad_bottom_right,
    resize,
)
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord, check_each
from patchword.models.registry import Filter


class SamMaskGenerator:
    """`MaskGenerator` around a transformers `SamModel` or `Sam2Model`.

    SAM sees an image with its longer side at the input size, padded below and to the right; SAM 2 sees it squashed to
    the square. Only the image encoder runs in another dtype than float32: in bfloat16 point coordinates are off by up
    to two pixels of a 1024-pixel input, and prompt encoder and mask decoder cost next to nothing.

    Args:
        model: in evaluation mode on its device, in float32.
        record: what is known of the checkpoint; its family says which of the two models it is.
        resample: filter that resizes images to the model's input.
        encoder_dtype: dtype of the image encoder.
    """

    def __init__(
        self,
        model: Any,
        *,
        record: ModelRecord,
        resample: Filter = "bilinear",
        encoder_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.record = record
        self.device = torch.device(model.device)
        self.resample: Filter = resample
        self.encoder_dtype = encoder_dtype
        self._pads = record.family != "sam2"
        model.vision_encoder.to(encoder_dtype)

    @torch.no_grad()
    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        """Run the image encoder once on all images.

        Args:
            images: each (1, 3, h, w), RGB in [0, 1], of any size.

        Returns:
            for each image its feature levels (1, c, h', w') float32: one of SAM; of SAM 2 three, coarse to fine, the
            one that prompts attend to, then the two that sharpen masks.
        """
        check_each(images)
        if not images:
            return ()
        target, record = self.record.input_size, self.record
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        inputs = [longest_side_size(size, target=target) if self._pads else (target, target) for size in sizes]
        pixels = []
        for image, size in zip(images, inputs, strict=True):
            resized = resize(image.float().to(self.device), size=size, mode=self.resample)
            normal = normalise(resized, mean=record.mean, std=record.std)
            pixels.append(pad_bottom_right(normal, size=(target, target)).to(self.encoder_dtype))
        encoded = self.model.vision_encoder(torch.cat(pixels))
        if self._pads:
            levels: tuple[Tensor, ...] = (encoded.last_hidden_state.float(),)
        else:
            fine, middle, coarse = (level.float() for level in encoded.fpn_hidden_states)
            coarse = coarse + self.model.no_memory_embedding.view(1, -1, 1, 1)
            decoder = self.model.mask_decoder
            levels = (coarse, decoder.conv_s1(middle), decoder.conv_s0(fine))
        return tuple(
            ImageEmbedding(tuple(level[row : row + 1] for level in levels), size, seen)
            for row, (size, seen) in enumerate(zip(sizes, inputs, strict=True))
        )

    @torch.no_grad()
    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        """Decode the prompts of several images in one call, k foreground points a prompt, several masks a prompt.

        The decoder copies the image embedding for every prompt, so that the caller decides how much memory it takes.
        SAM 2's object scores are left aside: they say whether a prompted object is still in a video's frame.

        Args:
            embeddings: one an image.
            points: for each image (n, k, 2) as x, y in pixels of the image as given, within the image; n may be 0.

        Returns:
            for each image n x m proposals over the part of the input that the image covers.
        """
        check_prompts(embeddings, points)
        mapped = torch.cat(
            [
                map_points(places.float().to(self.device), image_size=one.image_size, input_size=one.input_size)
                for one, places in zip(embeddings, points, strict=True)
            ]
        )[:, None]  # (N, 1, k, 2)
        counts = [len(places) for places in points]
        if not len(mapped):  # one call for the shape of nothing
            mapped = mapped.new_zeros(1, *mapped.shape[1:])
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        levels = []
        for level in zip(*(one.features for one in embeddings), strict=True):
            every = torch.cat(level).to(self.device)  # (images, c, h', w')
            single = len(every) == 1 or not len(owners)
            levels.append(every[:1].expand(len(mapped), -1, -1, -1) if single else every[owners])
        output = self.model(
            image_embeddings=levels[0] if self._pads else levels[::-1],  # transformers takes SAM 2's fine to coarse
            input_points=mapped,
            multimask_output=True,
        )
        logits = output.pred_masks[: len(owners), 0].float().split(counts)  # each (n, m, h, w)
        scores = output.iou_scores[: len(owners), 0].float().split(counts)  # each (n, m)
        return tuple(map(self._proposals, embeddings, logits, scores))

    @torch.no_grad()
    def mask_at(
        self,
        embedding: ImageEmbedding,
        points: Sequence[tuple[float, float]] = (),
        *,
        labels: Sequence[bool] = (),
        box: tuple[float, float, float, float] | None = None,
    ) -> tuple[NDArray[np.bool_], float]:
        """The mask of one thing that a person points at.

        Of one point or a box alone, which may mean several things, the surest of several masks is taken.

        Args:
            embedding: of the image.
            points: x, y in pixels of the image as given.
            labels: of each point, whether it is inside the thing.
            box: x0, y0, x1, y1 around the thing.

        Returns:
            (h, w) at the image's size, and the model's own estimate of its IoU.
        """
        if not points and box is None:
            raise PatchwordError("nothing is pointed at; give points or a box")
        corners = [] if box is None else [box[:2], box[2:]]
        check_prompts([embedding], [torch.tensor([[*points, *corners]], dtype=torch.float32)])

        def mapped(places: Sequence[Sequence[float]]) -> Tensor:
            asked = torch.tensor(places, dtype=torch.float32, device=self.device)
            return map_points(asked, image_size=embedding.image_size, input_size=embedding.input_size)[None, None]

        levels = [level.to(self.device) for level in embedding.features]
        output = self.model(
            image_embeddings=levels[0] if self._pads else levels[::-1],
            input_points=mapped(points) if points else None,
            input_labels=torch.tensor([[list(map(int, labels))]], device=self.device) if points else None,
            input_boxes=mapped(corners).flatten(2) if corners else None,
            multimask_output=len(points) + len(corners) // 2 == 1,
        )
        proposals = self._proposals(embedding, output.pred_masks[0].float(), output.iou_scores[0].float())
        sure, choice = proposals.predicted_iou[0].max(dim=0)
        whole = proposals.logits if proposals.padded is None else proposals.padded
        mask = full_logits(whole[:, int(choice)], size=embedding.image_size, frame=proposals.frame)[0] > 0
        return mask.cpu().numpy(), float(sure)

    def _proposals(self, embedding: ImageEmbedding, low: Tensor, sure: Tensor) -> MaskProposals:
        """Logits (n, m, h, w) and scores (n, m) of an image, and where it lies in them."""
        if not self._pads:
            return MaskProposals(low, sure, embedding.image_size)
        cells, target = low.shape[-1], self.record.input_size
        valid = (embedding.input_size[0] * cells / target, embedding.input_size[1] * cells / target)
        frame = MaskFrame(target, embedding.input_size)
        return MaskProposals(crop_logits(low, valid=valid), sure, embedding.image_size, padded=low, frame=frame)


def check_prompts(embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> None:
    """Refuse points that are not (n, k, 2) within their image, with one k for all images.

    A point on the image's edge (x = width, y = height) is within.
    """
    if len(embeddings) != len(points) or not embeddings:
        raise PatchwordError(
            f"there are {len(embeddings)} embeddings and points of {len(points)}; each embedding needs its points"
        )
    for embedding, places in zip(embeddings, points, strict=True):
        if places.ndim != 3 or places.shape[1] < 1 or places.shape[2] != 2:
            raise PatchwordError(
                f"points have shape {tuple(places.shape)}; it must be (prompts, points, 2), points >= 1"
            )
        height, width = embedding.image_size
        outside = ~((places >= 0) & (places <= places.new_tensor([width, height]))).all(dim=2)  # not-a-number, too
        if outside.any():
            x, y = places[outside][0].tolist()
            raise PatchwordError(f"point ({x:g}, {y:g}) is outside the image (x in 0..{width}, y in 0..{height})")
    counts = sorted({places.shape[1] for places in points})
    if len(counts) > 1:
        raise PatchwordError(f"prompts have {counts[0]} and {counts[-1]} points; all must have the same number")


def sam_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `SamConfig`."""
    vision = config.vision_config
    patch = side_of(vision.patch_size, what="patch_size")
    return patch, int(vision.output_channels), side_of(vision.image_size, what="image_size")


def sam2_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the embedding and input size, from a `Sam2Config`.

    The patch is the side of the input that one cell of the coarsest level covers.
    """
    prompt = config.prompt_encoder_config
    patch = side_of(prompt.patch_size, what="patch_size")
    return patch, int(config.vision_config.fpn_hidden_size), side_of(prompt.image_size, what="image_size")


def _build(loaded: Loaded) -> SamMaskGenerator:
    resample = loaded.preprocessing.resample
    return SamMaskGenerator(loaded.model, record=loaded.record, resample=resample, encoder_dtype=loaded.dtype)


ADAPTERS = {
    ("sam", "mask"): Adapter("SamModel", sam_sizes, _build),
    ("sam2", "mask"): Adapter("Sam2Model", sam2_sizes, _build),
}


def boxes_of(masks: Tensor) -> Tensor:
    """The box (n, 4) around each boolean mask (n, h, w) as x0, y0, x1, y1, x1 and y1 outside; 0 for an empty mask."""
    height, width = masks.shape[-2:]
    rows, columns = masks.any(2), masks.any(1)  # (n, h), (n, w)
    row, column = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)
    boxes = torch.stack(
        [
            torch.where(columns, column, width).amin(1),
            torch.where(rows, row, height).amin(1),
            torch.where(columns, column + 1, 0).amax(1),
            torch.where(rows, row + 1, 0).amax(1),
        ],
        dim=1,
    )
    return boxes * rows.any(1)[:, None]


def box_nms(boxes: Tensor, *, scores: Tensor, thresh: float) -> Tensor:
    """Drop every box that overlaps a better one too much (greedy non-maximum suppression).

    Args:
        boxes: (n, 4) as x0, y0, x1, y1.
        scores: (n,), higher is better; of equal ones the first is.
        thresh: IoU above which two boxes are a repetition, in [0, 1].

    Returns:
        (k,) positions of what is kept, best first; on the CPU, where all is computed box by box and in float64.
    """
    boxes, scores = boxes.cpu(), scores.cpu()
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = boxes[order].double()
    low = torch.maximum(ranked[:, None, :2], ranked[None, :, :2])
    high = torch.minimum(ranked[:, None, 2:], ranked[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # (n, n)
    areas = (ranked[:, 2:] - ranked[:, :2]).prod(-1)
    repeats = shared / (areas[:, None] + areas[None, :] - shared).clamp(min=1e-9) > thresh
    kept = torch.zeros(len(order), dtype=torch.bool)
    covered = torch.zeros_like(kept)
    for rank in range(len(order)):
        if not bool(covered[rank]):
            kept[rank] = True
            covered |= repeats[rank]
    return order[kept]


def stability_score(logits: Tensor, *, offset: float) -> Tensor:
    """IoU of masks (..., h, w) cut `offset` above zero and `offset` below it; 0 where even the lower cut is empty.

    Source: Kirillov et al., Segment Anything, section 5 (stable masks).
    """
    inner = (logits > offset).sum((-1, -2))
    outer = (logits > -offset).sum((-1, -2))  # the inner mask lies within the outer one
    return inner / outer.clamp(min=1)


def inner_points(masks: Tensor, *, size: tuple[int, int], count: int, depth: float) -> Tensor:
    """Points in the inner part of masks: the innermost, then always the one farthest from those before.

    How deep a cell lies is the number of rings between it and the mask's border; the image's edge is a border. Of
    equally good cells the first in reading order is taken.

    Args:
        masks: (n, h, w) bool over the whole image, none empty.
        size: (height, width) of the image in pixels.
        count: points a mask, 0 and more; they repeat in a mask of fewer cells.
        depth: how deep the inner part is, relative to the mask's greatest depth, in [0, 1].

    Returns:
        (n, count, 2) float32 as x, y in pixels of the image; (0, 1, 2) where there is nothing to ask.
    """
    if not len(masks) or not count:
        return torch.zeros(0, 1, 2)
    columns = masks.shape[2]
    depths = depths_of(masks).flatten(1)  # (n, h * w)
    inner = depths >= (depth * depths.amax(1, keepdim=True)).clamp(min=1)
    number = torch.arange(depths.shape[1])
    places = torch.stack([number // columns, number % columns], dim=1).float()  # (h * w, 2)
    chosen = [depths.argmax(1)]  # each (n,)
    nearest = torch.where(inner, torch.inf, -1.0)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (places - places[chosen[-1]][:, None]).square().sum(-1))
        chosen.append(nearest.argmax(1))
    positions = torch.stack(chosen, dim=1)  # (n, count)
    return pixels_of(positions // columns, positions % columns, cells=(masks.shape[1], columns), size=size)


def depths_of(masks: Tensor) -> Tensor:
    """How deep each cell of boolean masks (n, rows, columns) lies inside: 0 outside, 1 at the border, then by rings."""
    inside = masks.float()
    depths = torch.zeros_like(inside)
    while bool(inside.any()):
        depths += inside
        inside = -functional.max_pool2d(-functional.pad(inside, (1, 1, 1, 1)), kernel_size=3, stride=1)
    return depths


def pixels_of(rows: Tensor, columns: Tensor, *, cells: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The pixels (..., 2) float32 x, y, whole, in the middle of cells (...) of a map that covers an image.

    Args:
        cells: (rows, columns) of the map.
        size: (height, width) of the image in pixels.
    """
    x = (columns.double() + 0.5) * size[1] / cells[1]
    y = (rows.double() + 0.5) * size[0] / cells[0]
    return torch.stack([x, y], dim=-1).floor().float()
