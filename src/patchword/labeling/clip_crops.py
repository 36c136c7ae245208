"""CLIP on overlapping crops: which classes a photograph shows, and where (docs/method.md 1.1, steps 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.errors import PatchwordError
from patchword.labeling.localize import best_words, entropies, narrow, relevance_maps, stitch, word_scores
from patchword.models.batching import Batches
from patchword.models.pixels import resize
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import TextVectors


@dataclass(frozen=True)
class Detection:
    """The outcome of the vote among an image's crops.

    Attributes:
        votes: crops won by each class of the vocabulary, in its order.
        background_votes: crops won by background words; crops = sum of votes + background_votes.
        needed: crops that a class has to win to be kept.
        kept: indices of the classes that are kept, rising; empty when nothing was detected.
        entropy: of the classes and background words of a crop, from 0 (sure) to 1 (all alike), mean over the crops.
    """

    votes: tuple[int, ...]
    background_votes: int
    needed: int
    kept: tuple[int, ...]
    entropy: float

    @property
    def crops(self) -> int:
        """Number of crops that voted."""
        return sum(self.votes) + self.background_votes


def crop_boxes(size: tuple[int, int], *, settings: LabelSettings) -> Tensor:
    """Lay the overlapping crops of every grid over an image.

    A grid g has crops of 1/g of the image's sides, rounded up to whole pixels, evenly spread from border to border.
    Source: docs/method.md 1.1 step 1 (crops [paper]; grids and overlap [chosen]).

    Args:
        size: (height, width) of the image in pixels, each at least 1.

    Returns:
        int64 boxes (b, 4) as x0, y0, x1, y1 in pixels, x1 and y1 outside. Every pixel is covered; boxes that coincide
        (in images of few pixels) are given once.
    """
    height, width = size
    if height < 1 or width < 1:
        raise PatchwordError(f"image is {height} x {width} pixels; each side must be at least 1 pixel")
    boxes = [
        (x0, y0, x1, y1)
        for grid in settings.grids
        for y0, y1 in spans(height, length=-(-height // grid), count=settings.crops_a_side(grid))
        for x0, x1 in spans(width, length=-(-width // grid), count=settings.crops_a_side(grid))
    ]
    return torch.tensor(list(dict.fromkeys(boxes)), dtype=torch.int64)


def spans(side: int, *, length: int, count: int) -> list[tuple[int, int]]:
    """Spread `count` intervals of a length evenly over a side, from end to end, in whole pixels."""
    gaps = max(1, count - 1)
    starts = [(2 * position * (side - length) + gaps) // (2 * gaps) for position in range(count)]
    return [(start, start + length) for start in starts]


def crop_side(settings: LabelSettings, *, input_size: int, patch_size: int) -> int:
    """Side in pixels that crops are resized to.

    Args:
        input_size: side in pixels of the encoder's own input; rounded down to whole patches when it decides.
        patch_size: side of the encoder's patch in pixels.
    """
    if settings.crop_size is None:
        return max(patch_size, input_size // patch_size * patch_size)
    if settings.crop_size % patch_size:
        raise PatchwordError(
            f"setting `crop_size` is {settings.crop_size}; it must be a multiple of the encoder's patch, {patch_size}"
        )
    return settings.crop_size


def shrink(image: Tensor, *, limit: int) -> Tensor:
    """Reduce each side of an image (1, 3, h, w) that is above `limit` pixels to it.

    With the crops' side times the finest grid as limit the crops lose nothing, since the encoder sees none at a finer
    resolution, and the work on them does not depend on the photograph's size.

    Returns:
        (1, 3, min(h, limit), min(w, limit)).
    """
    height, width = (min(side, limit) for side in image.shape[-2:])
    return image if image.shape[-2:] == (height, width) else resize(image, size=(height, width))


def cut_crops(image: Tensor, boxes: Tensor, *, side: int) -> Tensor:
    """Cut boxes (n, 4) out of an image (1, 3, h, w) and resize them to (n, 3, side, side), alike ones at once."""
    crops = image.new_empty(len(boxes), 3, side, side, dtype=torch.float32)
    sizes = boxes[:, 2:] - boxes[:, :2]  # (n, 2)
    for size in torch.unique(sizes, dim=0):
        alike = (sizes == size).all(1).nonzero()[:, 0]
        cut = [image[..., y0:y1, x0:x1] for x0, y0, x1, y1 in boxes[alike].tolist()]
        crops[alike.to(crops.device)] = resize(torch.cat(cut), size=(side, side))
    return crops


def crops_needed(crops: int, *, settings: LabelSettings) -> int:
    """How many of an image's crops a class has to win to be kept."""
    return max(settings.minimum_crops, math.ceil(settings.minimum_share * crops - 1e-9))


def vote(similarity: Tensor, *, text: TextVectors, settings: LabelSettings) -> Detection:
    """Give every crop to the class of its most similar word and keep the classes that win enough crops.

    Source: docs/method.md 1.1 step 2 (vote [paper]; numbers and background words [chosen]).

    Args:
        similarity: (crops, words) cosine of every crop's class token with every word.
        text: what the words stand for; a background word takes part and is dropped afterwards.
        settings: `minimum_crops`, `minimum_share`, `entropy_temperature`.
    """
    winners = text.classes.cpu()[similarity.argmax(dim=1).cpu()]  # (crops,)
    votes = torch.bincount(winners + 1, minlength=text.count + 1).tolist()
    uncertainty = entropies(best_words(similarity, text=text), temperature=settings.entropy_temperature)
    needed = crops_needed(len(winners), settings=settings)
    kept = tuple(index for index, won in enumerate(votes[1:]) if won >= needed)
    return Detection(tuple(votes[1:]), votes[0], needed, kept, entropy=float(uncertainty.mean()))


@dataclass(frozen=True)
class ClassLocalization:
    """Where the kept classes of an image are.

    Attributes:
        kept: their indices in the vocabulary, rising, at least one.
        text: their words, renumbered, and background words.
        similarity: (k + m, rows, columns) cosines of the k kept classes and m background words.
        relevance: (k, rows, columns) for each kept class against the others, in [0, 1].
    """

    kept: tuple[int, ...]
    text: TextVectors
    similarity: Tensor
    relevance: Tensor


@dataclass(frozen=True)
class ImageClasses:
    """What the encoder sees of an image: the vote, and where the kept classes are; none where no class is kept."""

    detected: Detection
    located: ClassLocalization | None


@dataclass(frozen=True)
class Crops:
    """Overlapping crops (n, 3, s, s) of an image, and where (n, 4) they were cut on it at the given size."""

    pixels: Tensor
    boxes: Tensor
    size: tuple[int, int]


def localize_classes(
    images: Sequence[Tensor],
    *,
    encoder: ImageTextEncoder,
    text: TextVectors,
    batches: Batches,
    settings: LabelSettings,
) -> list[ImageClasses]:
    """Vote on the classes of each image and locate those that are kept; crops of all images share batches.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1].
        text: all words of the vocabulary.
        settings: those of crops and detection.

    Returns:
        for each image what is seen.
    """
    crops = [take_crops(image, encoder=encoder, settings=settings) for image in images]
    tokens, patches = _encode(crops, encoder=encoder, batches=batches, settings=settings)
    seen = []
    for one, token, features in zip(crops, tokens, patches, strict=True):
        similarity = finite(token @ text.words.to(token).T, encoder)  # (n, words)
        detected = vote(similarity, text=text, settings=settings)
        where = _locate(one, features, text=text, kept=detected.kept, encoder=encoder, settings=settings)
        seen.append(ImageClasses(detected, where))
    return seen


def take_crops(image: Tensor, *, encoder: ImageTextEncoder, settings: LabelSettings) -> Crops:
    """Cut the crops of one image (1, 3, h, w), on the encoder's device and at the encoder's size."""
    side = crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    reduced = shrink(image, limit=side * max(settings.grids)).to(encoder.device)
    size = (reduced.shape[-2], reduced.shape[-1])
    boxes = crop_boxes(size, settings=settings)
    return Crops(cut_crops(reduced, boxes, side=side), boxes, size)


def _encode(
    crops: Sequence[Crops], *, encoder: ImageTextEncoder, batches: Batches, settings: LabelSettings
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """For each image the class vectors (n, d) and the patches (n, d, p, q) of its crops."""
    pixels = torch.cat([one.pixels for one in crops])

    def some(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return encoder.encode_both(pixels[start:stop])

    parts = batches.run(some, count=len(pixels), size=settings.crop_batch, what="crops")
    counts = [len(one.pixels) for one in crops]
    tokens, patches = (torch.split(torch.cat(values), counts) for values in zip(*parts, strict=True))
    return tokens, patches


def _locate(
    crops: Crops,
    patches: Tensor,
    *,
    text: TextVectors,
    kept: tuple[int, ...],
    encoder: ImageTextEncoder,
    settings: LabelSettings,
) -> ClassLocalization | None:
    """Where the kept classes are, a cell being a patch of the finest crop; none where no class is kept."""
    if not kept:
        return None
    words = narrow(text, kept=kept)
    values = finite(word_scores(patches, text=words), encoder)  # (n, k + m, p, q)
    finest = max(settings.grids)
    cells = (finest * values.shape[-2], finest * values.shape[-1])
    similarity = stitch(values, boxes=crops.boxes, size=crops.size, cells=cells).cpu()
    certain = relevance_maps(similarity[: len(kept)], background=similarity[len(kept) :])
    return ClassLocalization(kept, words, similarity, certain)


def finite(values: Tensor, encoder: ImageTextEncoder) -> Tensor:
    """The values, when all of them are numbers."""
    if not torch.isfinite(values).all():
        raise PatchwordError(f"{encoder.record.name} returned values that are not finite; use it in float32")
    return values
