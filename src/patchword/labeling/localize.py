"""Where classes are: patch similarities stitched over crops, and how sure names are (docs/method.md 1.1, step 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from patchword.models.text_embeddings import BACKGROUND, TextVectors


def narrow(text: TextVectors, *, kept: tuple[int, ...]) -> TextVectors:
    """The words of the kept classes, renumbered in their order, and all background words.

    Args:
        kept: indices of classes, rising, at least one.
    """
    classes = torch.full_like(text.classes, BACKGROUND - 1)
    classes[text.classes == BACKGROUND] = BACKGROUND
    for position, index in enumerate(kept):
        classes[text.classes == index] = position
    chosen = classes >= BACKGROUND
    return TextVectors(text.words[chosen], classes[chosen], len(kept))


def word_scores(vectors: Tensor, *, text: TextVectors) -> Tensor:
    """Cosine of unit vectors (n, d, ...) with each class (its best word) and then each background word.

    Returns:
        (n, k + m, ...).
    """
    return best_words(torch.einsum("nd...,wd->nw...", vectors, text.words.to(vectors)), text=text)


def best_words(similarity: Tensor, *, text: TextVectors) -> Tensor:
    """From similarity with all words (n, words, ...) to that with each class (its best word) and each background word.

    Returns:
        (n, k + m, ...).
    """
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


def cell_spans(side: int, *, count: int) -> list[tuple[int, int]]:
    """First pixel of each cell and the one after its last; cells share the pixels that their borders cut."""
    return [(cell * side // count, -(-(cell + 1) * side // count)) for cell in range(count)]


def pooled(shares: Tensor, maps: Tensor) -> Tensor:
    """Mean of every map (k, rows, columns) inside every mask, given as shares (n, rows, columns) of the cells.

    Returns:
        (n, k) float32; 0 for an empty mask.
    """
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
    """How sure the names of n masks are.

    Args:
        cosines: (n, w) of each mask with each class and background word.
        positions: (n,) int64, which of them is the mask's class.
        temperature: as for `entropies`.
    """
    if cosines.shape[1] < 2:
        return [Uncertainty(None, None)] * len(cosines)
    own = cosines.gather(1, positions[:, None])  # (n, 1)
    others = cosines.scatter(1, positions[:, None], -torch.inf)  # (n, w)
    leads = own[:, 0] - others.amax(1)
    sure = entropies(cosines, temperature=temperature)
    return [Uncertainty(margin, entropy) for margin, entropy in zip(leads.tolist(), sure.tolist(), strict=True)]


def entropies(cosines: Tensor, *, temperature: float) -> Tensor:
    """Entropy of softmax(cosines / temperature), as a share of the largest possible.

    Source: CLIP's own softmax over words, whose temperature ends at 0.01; its entropy as a measure [chosen].

    Args:
        cosines: (n, w), w >= 1.
        temperature: in cosine, above 0.

    Returns:
        (n,) in [0, 1]; 0 for a single word.
    """
    count = cosines.shape[1]
    if count < 2:
        return torch.zeros(len(cosines), device=cosines.device)
    logarithms = torch.log_softmax(cosines.float() / temperature, dim=1)
    return -(logarithms.exp() * logarithms).sum(1) / math.log(count)
