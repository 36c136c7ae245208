"""CLIP on overlapping crops: which classes a photograph shows, and where (docs/method.md 1.1, steps 1 to 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.label import LabelSettings
from patchword.data.run_lengths import Runs
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import resize
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import BACKGROUND, TextVectors


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
    """Side in pixels that crops are resized to; the encoder's own input is rounded down to whole patches."""
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
    """Vote on the classes of each image (1, 3, h, w) and locate those that are kept; crops of all share batches."""
    crops = [take_crops(image, encoder=encoder, settings=settings) for image in images]
    pixels = torch.cat([one.pixels for one in crops])
    parts = batches.run(
        lambda start, stop: encoder.encode_both(pixels[start:stop]),
        count=len(pixels),
        size=settings.crop_batch,
        what="crops",
    )
    counts = [len(one.pixels) for one in crops]
    tokens, patches = (torch.split(torch.cat(values), counts) for values in zip(*parts, strict=True))
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


def narrow(text: TextVectors, *, kept: tuple[int, ...]) -> TextVectors:
    """The words of the kept classes (rising indices), renumbered in their order, and all background words."""
    classes = torch.full_like(text.classes, BACKGROUND - 1)
    classes[text.classes == BACKGROUND] = BACKGROUND
    for position, index in enumerate(kept):
        classes[text.classes == index] = position
    chosen = classes >= BACKGROUND
    return TextVectors(text.words[chosen], classes[chosen], len(kept))


def word_scores(vectors: Tensor, *, text: TextVectors) -> Tensor:
    """Cosine (n, k + m, ...) of unit vectors (n, d, ...) with each class (its best word), then background word."""
    return best_words(torch.einsum("nd...,wd->nw...", vectors, text.words.to(vectors)), text=text)


def best_words(similarity: Tensor, *, text: TextVectors) -> Tensor:
    """From similarity with all words (n, words, ...) to (n, k + m, ...): classes (best words), background words."""
    background = (text.classes == BACKGROUND).to(similarity.device)
    return torch.cat([text.class_scores(similarity, dim=1), similarity[:, background]], dim=1)


def stitch(similarity: Tensor, *, boxes: Tensor, size: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Average what the crops say of each place of the image.

    A cell takes from every crop that covers its centre the value there, linear between the centres of the crop's
    patches. Source: docs/method.md 1.1 step 3 [chosen].

    Args:
        similarity: (n, k, p, q) k values for each of p x q patches of n crops.
        boxes: (n, 4) the crops as x0, y0, x1, y1 in pixels; together they cover the image.
        size: (height, width) in pixels of the image that the boxes are on.
        cells: (rows, columns) of the map.

    Returns:
        (k, rows, columns) float32.
    """
    patch_rows, patch_columns = similarity.shape[-2:]
    on_cpu = boxes.cpu()  # weights are found in float64, which Apple's GPUs do not have
    rows = _interpolation(on_cpu[:, 1::2], side=size[0], cells=cells[0], patches=patch_rows)  # (n, rows, p)
    columns = _interpolation(on_cpu[:, ::2], side=size[1], cells=cells[1], patches=patch_columns)
    rows, columns = rows.to(similarity.device), columns.to(similarity.device)  # (n, columns, q)
    total = torch.einsum("nrp,nkpq,ncq->krc", rows, similarity.float(), columns)
    crops = torch.einsum("nr,nc->rc", rows.sum(dim=2), columns.sum(dim=2))  # a covered cell's weights sum to 1
    return total / crops


def _interpolation(spans: Tensor, *, side: int, cells: int, patches: int) -> Tensor:
    """Weights (n, cells, patches) by which each cell's centre takes the patches of each crop; zero outside the crop."""
    starts, stops = spans.unbind(1)
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * side / cells  # (cells,) in pixels
    inside = (centres >= starts[:, None]) & (centres < stops[:, None])  # (n, cells)
    position = (centres - starts[:, None]) / (stops - starts)[:, None] * patches - 0.5  # (n, cells) in patches
    distance = (position.clamp(0, patches - 1)[..., None] - torch.arange(patches)).abs()
    return ((1 - distance).clamp(min=0) * inside[..., None]).float()


def relevance_maps(maps: Tensor, *, background: Tensor) -> Tensor:
    """Turn stitched similarities into evidence for one class against the others, between 0 and 1.

    What fires for every class counts for none: the mean over the kept classes is subtracted (docs/method.md 1.1 step 3
    [chosen]). A single class has only itself to be compared with and would vanish, so that the mean then includes the
    background words, and nothing is subtracted without any. The result is stretched to [0, 1] over all classes of the
    image at once, which keeps every order and makes scores independent of the narrow and model-dependent range of an
    encoder's cosines [chosen].

    Args:
        maps: (k, rows, columns) similarity of each kept class, k >= 1.
        background: (m, rows, columns) similarity of each background word, m >= 0; used when k is 1.

    Returns:
        (k, rows, columns) in [0, 1]; 1 everywhere when all similarities are the same.
    """
    if len(maps) > 1:
        centred = maps - maps.mean(dim=0)
    elif len(background):
        centred = maps - torch.cat([maps, background]).mean(dim=0)
    else:
        centred = maps
    lowest, highest = centred.min(), centred.max()
    if lowest == highest:
        return torch.ones_like(centred)
    return (centred - lowest) / (highest - lowest)


def cell_shares(masks: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """The share of each cell of a grid that lies inside each mask.

    Pixels are counted as they are, since a large photograph's masks in floating point would cost more than all else.

    Args:
        masks: (n, h, w) boolean.
        grid: (rows, columns) over the same field of view, coarser or finer than the masks.

    Returns:
        (n, rows, columns) float32 in [0, 1], as `adaptive_avg_pool2d` gives it.
    """
    rows, columns = cell_spans(masks.shape[1], count=grid[0]), cell_spans(masks.shape[2], count=grid[1])
    bands = torch.stack([masks[:, start:stop].sum(1, dtype=torch.int32) for start, stop in rows], dim=1)
    before = functional.pad(bands.cumsum(2), (1, 0))  # (n, rows, w + 1) pixels inside, left of each column
    starts, stops = torch.tensor(columns, device=masks.device).T
    inside = (before[..., stops] - before[..., starts]).float()  # (n, rows, columns)
    heights = torch.tensor([stop - start for start, stop in rows], device=masks.device)
    shares: Tensor = inside / heights[:, None] / (stops - starts)
    return shares


def run_shares(mask: Runs, *, grid: tuple[int, int]) -> Tensor:
    """What `cell_shares` gives for one mask, (rows, columns), by its runs; no pixel is looked at."""
    rows, columns = (cell_spans(side, count=count) for side, count in zip(mask.size, grid, strict=True))
    column, top, bottom = mask.strokes
    starts, stops = np.searchsorted(column, np.array(columns)).T
    before, counts = (np.zeros(shape, dtype=np.int64) for shape in (len(column) + 1, grid))  # left of strokes; in cells
    _, first, _, high = mask.box
    for count, (start, stop) in zip(counts, rows, strict=True):
        if start < first + high and stop > first:
            inside = np.minimum(bottom, stop) - np.maximum(top, start)
            np.cumsum(inside.clip(0), out=before[1:])
            count[:] = before[stops] - before[starts]
    heights, widths = (torch.tensor([stop - start for start, stop in spans]) for spans in (rows, columns))
    shares: Tensor = torch.from_numpy(counts).float() / heights[:, None] / widths
    return shares


def cell_spans(side: int, *, count: int) -> list[tuple[int, int]]:
    """First pixel of each cell and the one after its last; cells share the pixels that their borders cut."""
    return [(cell * side // count, -(-(cell + 1) * side // count)) for cell in range(count)]


def pooled(shares: Tensor, maps: Tensor) -> Tensor:
    """Mean (n, k) of maps (k, rows, columns) inside masks given as shares (n, rows, columns); 0 for an empty mask."""
    total = torch.einsum("nrc,krc->nk", shares, maps)
    return total / shares.sum((1, 2)).clamp(min=1e-12)[:, None]


@dataclass(frozen=True)
class Uncertainty:
    """What speaks against a mask's name; both none where there is no other word.

    Attributes:
        margin: lead of its class over the best other class or background word, in cosine; negative behind it.
        entropy: of all classes and background words, from 0 (sure) to 1 (all alike).
    """

    margin: float | None
    entropy: float | None


def uncertainties(cosines: Tensor, *, positions: Tensor, temperature: float) -> list[Uncertainty]:
    """How sure the classes (n,), `positions` among all words, of masks with these cosines (n, w) are."""
    if cosines.shape[1] < 2:
        return [Uncertainty(None, None)] * len(cosines)
    own = cosines.gather(1, positions[:, None])  # (n, 1)
    others = cosines.scatter(1, positions[:, None], -torch.inf)  # (n, w)
    leads = own[:, 0] - others.amax(1)
    sure = entropies(cosines, temperature=temperature)
    return [Uncertainty(margin, entropy) for margin, entropy in zip(leads.tolist(), sure.tolist(), strict=True)]


def entropies(cosines: Tensor, *, temperature: float) -> Tensor:
    """Entropy (n,) of softmax(cosines (n, w) / temperature) by the largest possible, in [0, 1]; 0 for a single word.

    Source: CLIP's own softmax over words, whose temperature ends at 0.01; its entropy as a measure [chosen].
    """
    count = cosines.shape[1]
    if count < 2:
        return torch.zeros(len(cosines), device=cosines.device)
    logarithms = torch.log_softmax(cosines.float() / temperature, dim=1)
    return -(logarithms.exp() * logarithms).sum(1) / math.log(count)
