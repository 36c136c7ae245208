"""Where masks of everything are asked for: the photograph and finer parts of it, each with points of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from patchword.errors import PatchwordError
from patchword.labeling.decode_prompts import Box
from patchword.labeling.detect import spans
from patchword.labeling.mask_generator import View, seed_points
from patchword.labeling.reprompt import further_steps
from patchword.labeling.settings import LabelSettings
from patchword.models.batching import Batches
from patchword.models.pixels import model_size, resize
from patchword.models.protocols import ImageEmbedding, MaskProposer, PatchEncoder


def make_views(
    images: Sequence[Tensor],
    *,
    embeddings: Sequence[ImageEmbedding],
    proposer: MaskProposer,
    encoder: PatchEncoder | None,
    batches: Batches,
    settings: LabelSettings,
) -> list[list[View]]:
    """The views of photographs; parts of all of them are embedded together, `image_batch` at a time.

    Args:
        images: each (1, 3, h, w), RGB in [0, 1].
        embeddings: of the whole images.
        encoder: whose features the points come from, where the settings want that.
        settings: `proposal_grids`, `proposal_overlap`, `proposal_enlargement`, `image_batch`, and those of seeds.

    Returns:
        for each image its views, the coarsest first.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    boxes = [part_boxes(size, input_size=proposer.record.input_size, settings=settings) for size in sizes]
    parts = [
        images[number][..., y0:y1, x0:x1]
        for number, found in enumerate(boxes)
        for grid, (x0, y0, x1, y1) in found
        if grid > 1
    ]

    def embed(start: int, stop: int) -> tuple[ImageEmbedding, ...]:
        return proposer.embed(parts[start:stop])

    batched = batches.run(embed, count=len(parts), size=settings.image_batch, what="parts of photographs")
    fine = iter(zip(parts, [embedding for batch in batched for embedding in batch], strict=True))
    views: list[list[View]] = []
    for image, embedding, found in zip(images, embeddings, boxes, strict=True):
        views.append([])
        for grid, box in found:
            pixels, seen = next(fine) if grid > 1 else (image, embedding)
            features = seed_features(pixels, embedding=seen, proposer=proposer, encoder=encoder, settings=settings)
            points = seed_points(features, size=seen.image_size, settings=settings)
            steps = further_steps(features, size=seen.image_size, settings=settings)
            views[-1].append(View(seen, points, box, grid, steps))
    return views


def part_boxes(size: tuple[int, int], *, input_size: int, settings: LabelSettings) -> list[tuple[int, Box]]:
    """Lay each grid of overlapping parts over a photograph.

    A grid is left out where its parts would have to be enlarged too much to fill the mask proposer's input, since
    nothing new could be seen on them [chosen].

    Args:
        size: (height, width) in pixels.
        input_size: side of the proposer's input in pixels.
        settings: `proposal_grids`, `proposal_overlap`, `proposal_enlargement`.

    Returns:
        grid and box (x0, y0, x1, y1) of each part, the coarsest grid first; the whole is never left out where it is
        asked for.
    """
    found = []
    for grid in sorted(settings.proposal_grids):
        height, width = (math.ceil(side / (grid - (grid - 1) * settings.proposal_overlap) - 1e-9) for side in size)
        if grid > 1 and input_size > settings.proposal_enlargement * max(height, width):
            continue
        found += [
            (grid, (x0, y0, x1, y1))
            for y0, y1 in spans(size[0], length=height, count=grid)
            for x0, x1 in spans(size[1], length=width, count=grid)
        ]
    return found


def seed_features(
    pixels: Tensor,
    *,
    embedding: ImageEmbedding,
    proposer: MaskProposer,
    encoder: PatchEncoder | None,
    settings: LabelSettings,
) -> Tensor | None:
    """Patch features (D, rows, columns) of what a view shows (1, 3, h, w); none for a grid of points."""
    if settings.seeds == "grid":
        return None
    if settings.seeds == "embedding":
        cells, side = embedding.features[0].shape[-1], proposer.record.input_size
        rows, columns = (math.ceil(length * cells / side) for length in embedding.input_size)  # the rest is padding
        return embedding.features[0][0, :, :rows, :columns]
    if encoder is None:
        raise PatchwordError("setting 'seeds' is 'encoder', but there is no vision encoder; name one")
    size = (pixels.shape[-2], pixels.shape[-1])
    side = round(settings.seed_scale * encoder.record.input_size)
    seen = model_size(size, image_size=side, patch_size=encoder.record.patch_size)
    return encoder(resize(pixels, size=seen).to(encoder.device))[0]
