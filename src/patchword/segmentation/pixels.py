"""From scores at any pixel to a class and a confidence for every pixel, in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.masks import ignore_index
from patchword.models.batching import is_out_of_memory
from patchword.segmentation.jbu import JbuScores
from patchword.segmentation.scores import BilinearScores, PixelScores

MOST_VALUES = 2**22  # upsampled scores in main memory at once; bounds memory, changes no result
_MOST_ON_DEVICE = 2**28  # the same on an accelerator, which needs much work at once
_VALUES_IN_CACHE = 2**20  # of a processor, which is fastest where they fit
_BLOCK_IN_CACHE = 2**18  # the same, of blocks that are gone over several times
_SCALE = math.log2(math.e)  # of scores in powers of 2, which take a third of the time of powers of e
_NOTHING = 32.0  # powers of 2 behind another map: maps so far behind change no bit of a confidence
_WORTH = 0.75  # of all maps; where more are shown, choosing them takes longer than the rest
_FAR = 1e30  # makes any difference of two scores larger than the number of maps


@dataclass(frozen=True, eq=False)
class PostprocessConfig:
    """How scores become classes.

    Attributes:
        class_of: (maps,) int64, the class that each map of the scores speaks for.
        count: how many classes the label map has.
        temperature: of the softmax over maps, above 0.
        threshold: pixels of a confidence below it are ignored, 0 to 1; 0 ignores none. It goes before the next.
        background_threshold: pixels of a confidence below it become the class `background`; 0 makes none.
        background: index of that class; None where the label map has none.
    """

    class_of: NDArray[np.int64]
    count: int
    temperature: float
    threshold: float = 0.0
    background_threshold: float = 0.0
    background: int | None = None


@dataclass(frozen=True)
class PixelClasses:
    """A class and a confidence for every pixel.

    Attributes:
        indices: (h, w) uint8 below 255 classes, else uint16; `maps.ignore_index` where no class is given.
        confidence: (h, w) float32 in (0, 1].
    """

    indices: NDArray[np.uint8] | NDArray[np.uint16]
    confidence: NDArray[np.float32]


def assign_pixels(scores: PixelScores, *, decision: PostprocessConfig, most_values: int | None = None) -> PixelClasses:
    """Take the class of the best map of every pixel, and that map's share in a softmax over all maps; no threshold.

    Where maps are words, their softmax is over all words and the best word speaks for its class: its share is the
    largest of its class's. Scores are upsampled before the maximum is taken, so that borders are smooth, a strip of
    rows and a few maps at a time: a running maximum and a running sum of exponentials are all that is kept.

    Args:
        scores: of maps at any pixel, finite.
        decision: what maps speak for, and the temperature.
        most_values: upsampled scores in memory at once (at least one row of one map is); None for what suits the
            device. Half as many, and half again, where memory runs out.

    Returns:
        A class and a confidence for every pixel; of maps with the same score the first.

    Source: docs/method.md, stage 3 and its protocol table.
    """
    most = most_values or _suitable(scores)
    while True:
        try:
            return _assigned(scores, decision, most)
        except (MemoryError, RuntimeError) as error:
            if most <= scores.size[1] or not is_out_of_memory(error):
                raise
        most //= 2  # only here has the error let go of what was allocated


def _suitable(scores: PixelScores) -> int:
    """How many upsampled scores at once suit the device."""
    if scores.device.type != "cpu":
        return _MOST_ON_DEVICE
    if isinstance(scores, JbuScores):
        return _BLOCK_IN_CACHE
    return _VALUES_IN_CACHE if isinstance(scores, BilinearScores) else MOST_VALUES


def _assigned(scores: PixelScores, decision: PostprocessConfig, most: int) -> PixelClasses:
    kind = torch.uint8 if decision.count < 255 else torch.int32
    indices = torch.empty(scores.size, dtype=kind, device=scores.device)
    confidence = torch.empty(scores.size, dtype=torch.float32, device=scores.device)
    class_of = torch.from_numpy(decision.class_of).to(device=scores.device, dtype=kind)
    best_of = _best_of_pieces(scores, decision.temperature, most)
    if isinstance(scores, JbuScores):
        best_of = _best_of_strips(scores, decision.temperature, most)
    for rows, best, total in best_of:
        indices[rows.start : rows.stop] = _of_best(class_of, best)
        confidence[rows.start : rows.stop] = total.reciprocal()  # the best map's own exponential is 1
    found = indices.cpu().numpy()
    return PixelClasses(found if kind == torch.uint8 else found.astype(np.uint16), confidence.cpu().numpy())


def _best_of_pieces(scores: PixelScores, temperature: float, most: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Rows of pixels, their best maps (rows, width), and the sums over maps of exp((score - best score) / t)."""
    for rows, groups in pieces(scores, most_values=most):
        best, _, total = _best_of_groups((scores.rows(rows, maps=maps) for maps in groups), scale=_SCALE / temperature)
        yield rows, best, total


def _best_of_strips(scores: JbuScores, temperature: float, most: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """The same, a few columns of patches at a time, so that all their scores lie in cache and are never rearranged.

    The best score of each patch is taken from its scores before: a pixel's are all less by the same then, and smaller
    numbers are more exact. The scale goes into the patches too.
    """
    patches = (scores.patches - scores.patches.amax(dim=0)) * (_SCALE / temperature)
    shown = _shown(patches, scores) if scores.device.type == "cpu" else None  # an accelerator would have to wait
    maps = scores.around(patches)
    for strip in scores.strips(range(scores.size[0])):
        around = strip.of(maps)  # (g, k * l, n)
        columns, _, pixels = strip.weights.shape
        maps_at_once = min(scores.count, max(1, most // pixels))
        at_once = min(columns, max(1, most // (maps_at_once * pixels)))
        mixed = around.new_empty(at_once * maps_at_once * pixels)  # made once: fresh memory takes longer than to fill
        best, total = around.new_empty((2, columns, pixels))
        for first in range(0, columns, at_once):
            part = slice(first, first + at_once)
            near, kept = around[part], None
            if shown is not None:
                kept = shown[strip.owner, part].any(dim=0).nonzero()[:, 0]
                near = near.index_select(2, kept)
            groups = _upsampled(torch.split(near, maps_at_once, dim=2), strip.weights[part], mixed)
            found, _, total[part] = _best_of_groups(groups, scale=1)
            best[part] = found if kept is None else _of_best(kept.to(found.dtype), found)
        yield strip.rows, scores.in_rows(best, strip), scores.in_rows(total, strip)


def _shown(patches: Tensor, scores: JbuScores) -> Tensor | None:
    """The maps (rows, g, n) that the pixels of a patch show, be it in their confidence only; None for nearly all.

    Pixels mix the patches around by weights that are not negative and sum to 1. So no map is above its highest of these
    patches, and one of them is at least the best of their lowest.

    Args:
        patches: (n, rows, columns) scores in powers of 2, at most 0.
        scores: which patches pixels mix.
    """
    if not float(patches.amin()) < -_NOTHING:
        return None
    least = (-scores.highest(-patches)).amax(dim=0)  # (rows, g) of the best map
    shown = scores.highest(patches) > least - _NOTHING
    return shown.permute(1, 2, 0) if shown.float().mean() < _WORTH else None


def _upsampled(groups: Iterable[Tensor], weights: Tensor, memory: Tensor) -> Iterator[Tensor]:
    """Scores (n, g, pixels) of each group of maps (g, k, n), by weights (g, k, pixels); one replaces the one before."""
    for maps in groups:
        shape = (len(weights), maps.shape[2], weights.shape[2])
        yield torch.bmm(maps.transpose(1, 2), weights, out=memory[: math.prod(shape)].view(shape)).transpose(0, 1)


def _of_best(class_of: Tensor, best: Tensor) -> Tensor:
    """What the best maps of pixels, given as floats, stand for."""
    return class_of.index_select(0, best.int().flatten()).view(best.shape)


def assign_maps(groups: Iterable[Tensor], *, decision: PostprocessConfig) -> PixelClasses:
    """What `assign_pixels` does, of maps that come some at a time, each for all pixels.

    Args:
        groups: (k, h, w) finite scores of k maps each, all maps in their order; they are overwritten. At least one.
        decision: as of `assign_pixels`.
    """
    best, _, total = _best_of_groups(groups, scale=_SCALE / decision.temperature)
    classes = _of_best(torch.from_numpy(decision.class_of).to(best.device), best).cpu().numpy()
    indices = classes.astype(np.uint8) if decision.count < 255 else classes.astype(np.uint16)
    return PixelClasses(indices, total.reciprocal().cpu().numpy())  # the best map's own exponential is 1


def apply_thresholds(found: PixelClasses, *, decision: PostprocessConfig) -> PixelClasses:
    """Make background, or ignore, of pixels whose confidence is low, by the thresholds of a decision."""
    indices = found.indices.copy()
    if decision.background is not None:
        indices[found.confidence < np.float32(decision.background_threshold)] = decision.background
    if decision.threshold:
        indices[found.confidence < np.float32(decision.threshold)] = ignore_index(decision.count)
    return PixelClasses(indices, found.confidence)


def class_shares(
    scores: PixelScores,
    *,
    class_of: NDArray[np.int64],
    classes: Sequence[int],
    temperature: float,
    rows: range | None = None,
    dtype: torch.dtype = torch.float32,
    most_values: int | None = None,
) -> Tensor:
    """The shares of some classes in a softmax over all maps: that of each class's best map.

    Args:
        scores: of maps at any pixel, finite.
        class_of: (maps,) the class that each map speaks for.
        classes: which classes; one that no map speaks for has share 0.
        temperature: of the softmax, above 0.
        rows: rows of the image; None for all.
        dtype: of the result.
        most_values: as of `assign_pixels`.

    Returns:
        (len(classes), len(rows), width), in [0, 1], on the scores' device.
    """
    asked = range(scores.size[0]) if rows is None else rows
    shares = torch.zeros((len(classes), len(asked), scores.size[1]), dtype=dtype, device=scores.device)
    maps_of = [np.flatnonzero(class_of == index).tolist() for index in classes]
    for strip, groups in pieces(scores, rows=asked, most_values=most_values):
        _, highest, total = _best_of_groups(
            (scores.rows(strip, maps=maps) for maps in groups), scale=_SCALE / temperature
        )
        inside = slice(strip.start - asked.start, strip.stop - asked.start)
        for share, maps in zip(shares, maps_of, strict=True):
            if maps:
                score = scores.rows(strip, maps=maps).amax(dim=0)  # (rows, width)
                share[inside] = ((score - highest) * (_SCALE / temperature)).exp2() / total
    return shares


def pieces(
    scores: PixelScores, *, rows: range | None = None, most_values: int | None = None
) -> Iterator[tuple[range, list[range]]]:
    """Cut scores into strips of rows, and each strip into groups of maps, of at most so many values together.

    Args:
        scores: of maps at any pixel.
        rows: of the image; None for all.
        most_values: as of `assign_pixels`.

    Returns:
        the rows of each strip, and the maps of each group.
    """
    height, width = scores.size
    is_linear = isinstance(scores, BilinearScores)
    cached = isinstance(scores, JbuScores) and scores.device.type == "cpu"  # of blocks, which these are not
    most = most_values or (MOST_VALUES if cached else _suitable(scores))
    # Of others the first map of a strip may cost more than all that follow.
    maps_at_once = max(1, min(scores.count, math.isqrt(most // width) if is_linear else most // width))
    rows_at_once = max(1, most // (width * maps_at_once))
    groups = [range(first, min(first + maps_at_once, scores.count)) for first in range(0, scores.count, maps_at_once)]
    asked = range(height) if rows is None else rows
    for top in range(asked.start, asked.stop, rows_at_once):
        yield range(top, min(top + rows_at_once, asked.stop)), groups


def _best_of_groups(groups: Iterable[Tensor], *, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best map (rows, width) of all groups, as floats, its score, and the sum of 2^(scale (score - best score))."""
    rest = iter(groups)
    first = next(rest)
    count = len(first)
    best, highest, total = _best_of_group(first, scale)
    for maps in rest:
        index, value, share = _best_of_group(maps, scale)
        best = torch.where(value > highest, index + count, best)
        count += len(maps)
        raised = torch.maximum(value, highest)
        total = total * ((highest - raised) * scale).exp2_() + share * ((value - raised) * scale).exp2_()
        highest = raised
    return best, highest, total


def _best_of_group(part: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The first best of k maps, as floats, its score, and the sum over maps of 2^(scale (score - best score)).

    The maps (k, rows, width) are overwritten. The best map is the one whose distance from the maximum is 0; counted
    backwards, the first such has the largest number. That is several times as fast as a maximum that tells its place.
    """
    value = part.amax(dim=0)
    behind = part.sub_(value)  # 0 for the best, below 0 for others
    backwards = _backwards(len(part), part.dtype, part.device)
    index = len(part) - torch.add(backwards, behind, alpha=_FAR).amax(dim=0)
    scaled = behind if scale == 1 else behind.mul_(scale)
    return index, value, scaled.exp2_().sum(dim=0)


@lru_cache(maxsize=8)
def _backwards(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(count, 1, 1): count, ..., 2, 1."""
    return torch.arange(count, 0, -1, device=device, dtype=dtype)[:, None, None]
