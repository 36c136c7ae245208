"""Labels of one image made by hand or at random, without any model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import Segment
from patchword.labeling.clip_crops import Detection
from patchword.labeling.generators import CLIP_PROMPTS_SAM, SAM_THEN_CLIP
from patchword.labeling.image import ImageLabels, fuse

NAMES = ("cat", "dog", "sofa", "lamp")
MARGIN = 0.0625  # a sum of powers of two, so that scores can differ by it exactly


def claim(mask: NDArray[np.bool_], index: int, *, generator: str = CLIP_PROMPTS_SAM, score: float = 0.8) -> Segment:
    return Segment.from_mask(
        mask,
        class_index=index,
        class_name=NAMES[index],
        score=score,
        predicted_iou=0.9,
        similarity=score / 0.9,
        generator=generator,
        stability=0.95,
        margin=0.1,
        entropy=0.2,
    )


def make_labels(
    segments: list[Segment], *, size: tuple[int, int], votes: tuple[int, ...], needed: int = 2
) -> ImageLabels:
    kept = tuple(index for index, won in enumerate(votes) if won >= needed)
    detected = Detection(votes=votes, background_votes=1, needed=needed, kept=kept, entropy=0.3)
    return ImageLabels(fuse(segments, size=size, names=NAMES, margin=MARGIN), tuple(segments), detected)


def random_labels(seed: int, *, size: tuple[int, int]) -> ImageLabels:
    """Overlapping rectangles of both generators, which often agree and often do not."""
    generator = np.random.default_rng(seed)
    votes = tuple(int(won) for won in generator.integers(0, 6, len(NAMES)))
    kept = [index for index, won in enumerate(votes) if won >= 2]
    segments = []
    for _ in range(int(generator.integers(0, 9)) if kept else 0):
        index, score = int(generator.choice(kept)), float(generator.choice([0.5, 0.53, 0.5625, 0.8]))
        mask = _rectangle(generator, size)
        first, second = generator.permutation([CLIP_PROMPTS_SAM, SAM_THEN_CLIP]).tolist()
        segments.append(claim(mask, index, generator=first, score=score))
        if generator.random() < 0.6:
            other = mask & ~_rectangle(generator, size) if generator.random() < 0.5 else mask
            if other.any():
                segments.append(claim(other, index, generator=second, score=score))
    return make_labels(segments, size=size, votes=votes)


def _rectangle(generator: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    top, left = (int(generator.integers(side)) for side in size)
    mask[top : top + int(generator.integers(1, size[0])), left : left + int(generator.integers(1, size[1]))] = True
    return mask
