"""Methods under settings like the published ones, against the sliding windows and the decision written out naively."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.config.segment import SegmentSettings
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import VocabularyClass
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.models.pixels import normalise
from patchword.segmentation.methods import METHODS
from patchword.segmentation.opening import load_method
from patchword.segmentation.pamr import neighbour_weights, spread

WINDOW, STRIDE, FACTOR = 24, 8, 40.0
SETTINGS = SegmentSettings(
    shorter_side=32,
    resize="plain",
    window=WINDOW,
    stride=STRIDE,
    join="logits",
    temperature=1 / FACTOR,
    softmax_over="words",
    refine="none",
)
CLASSES = [("background", ["background", "sky", "grass"]), ("cat", ["cat"]), ("sofa", ["sofa", "couch"])]
TEMPLATES = ("a photo of a {}.", "the {}")


def naive_word_vectors(clip: Any) -> tuple[Tensor, list[int]]:
    """Unit prompts, their mean a word, unit again; and the class of each word."""
    vectors, owners = [], []
    for owner, (_, words) in enumerate(CLASSES):
        for word in words:
            prompts = torch.stack([clip.encode_text([template.replace("{}", word)])[0] for template in TEMPLATES])
            mean = torch.stack([prompt / prompt.norm() for prompt in prompts]).mean(dim=0)
            vectors.append(mean / mean.norm())
            owners.append(owner)
    return torch.stack(vectors), owners


def naive_slide(encode: Any, image: Tensor, words: Tensor) -> Tensor:
    """Cosines (words, h, w) of an image (1, 3, h, w), averaged over the windows that see a pixel."""
    height, width = image.shape[-2:]
    total, seen = torch.zeros(len(words), height, width), torch.zeros(height, width)
    for row in range(-(-(height - WINDOW) // STRIDE) + 1):
        for column in range(-(-(width - WINDOW) // STRIDE) + 1):
            top, left = min(row * STRIDE, height - WINDOW), min(column * STRIDE, width - WINDOW)
            window = image[:, :, top : top + WINDOW, left : left + WINDOW]
            cosines = torch.einsum("wd,bdyx->bwyx", words, encode(window))
            large = functional.interpolate(cosines, (WINDOW, WINDOW), mode="bilinear", align_corners=False)
            total[:, top : top + WINDOW, left : left + WINDOW] += large[0]
            seen[top : top + WINDOW, left : left + WINDOW] += 1
    assert seen.min() >= 1
    return total / seen


def naive_classes(cosines: Tensor, owners: list[int]) -> Tensor:
    """Probability of every class (classes, h, w): a softmax over words, the best word for its class."""
    words = (cosines * FACTOR).softmax(dim=0)
    of_classes = [[words[word] for word, owner in enumerate(owners) if owner == wanted] for wanted in range(3)]
    return torch.stack([torch.stack(own).amax(dim=0) for own in of_classes])


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_method_decides_as_the_published_programs(name: str, tiny_clip: Path, tiny_dinov2: Path) -> None:
    clip = load_image_text(str(tiny_clip), device="cpu")
    encoder = load_patch_encoder(str(tiny_dinov2), device="cpu") if METHODS[name].needs_encoder else None
    segmenter = load_method(name, image_text=clip, encoder=encoder)
    pixels = np.random.default_rng(1).integers(0, 256, (25, 44, 3), dtype=np.uint8)

    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    seen = functional.interpolate(image, (32, 56), mode="bilinear", align_corners=False)  # 44 * 32 / 25 = 56.3
    words, owners = naive_word_vectors(clip)
    cosines = naive_slide(segmenter.encode_patches, seen, words)
    cosines = functional.interpolate(cosines[None], (25, 44), mode="bilinear", align_corners=False)[0]
    classes = naive_classes(cosines, owners)
    (best, second), (first, _) = classes.topk(2, dim=0)
    threshold = float(best.median())
    expected = torch.where(best < threshold, 0, first)

    vocabulary = Vocabulary(
        classes=tuple(VocabularyClass(name, tuple(words[1:])) for name, words in CLASSES), templates=TEMPLATES
    )
    settings = SETTINGS.model_copy(update={"background_threshold": threshold})
    result = segmenter.segment(pixels, classes=vocabulary, settings=settings)
    assert result.scores is not None
    torch.testing.assert_close(result.scores.rows(range(25), maps=range(len(owners))), cosines, rtol=1e-4, atol=1e-5)
    clear = (best - second > 1e-4) & ((best - threshold).abs() > 1e-5)
    assert clear.float().mean() > 0.9
    found = torch.from_numpy(result.label_map.indices.astype(np.int64))
    assert torch.equal(found[clear], expected[clear])


@torch.no_grad()
def test_naclip_on_voc_decides_as_its_authors_program(tiny_clip: Path) -> None:
    """The image whole, what is no whole patch cut off and its scores stretched, PAMR on every word's cosine."""
    cv2 = pytest.importorskip("cv2")
    clip = load_image_text(str(tiny_clip), device="cpu")
    segmenter = load_method("naclip", image_text=clip)
    pixels = np.random.default_rng(1).integers(0, 256, (25, 44, 3), dtype=np.uint8)

    small = cv2.resize(pixels, (63, 36), interpolation=cv2.INTER_LINEAR)  # 44 * 36 / 25 = 63.4
    image = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    words, owners = naive_word_vectors(clip)
    cosines = torch.einsum("wd,bdyx->bwyx", words, segmenter.encode_patches(image[..., :32, :56]))  # patches of 8
    for size in ((36, 63), (25, 44)):
        cosines = functional.interpolate(cosines, size, mode="bilinear", align_corners=False)
    inputs = normalise(image, mean=clip.record.mean, std=clip.record.std)
    guide = functional.interpolate(inputs, (25, 44), mode="bilinear", align_corners=False)[0]
    weights = neighbour_weights(guide, dilations=(8, 16), contrast=0.1)
    refined = spread(cosines[0], weights=weights, iterations=10, dilations=(8, 16))
    classes = naive_classes(refined, owners)
    (best, second), (first, _) = classes.topk(2, dim=0)
    threshold = float(best.median())
    expected = torch.where(best < threshold, 0, first)

    vocabulary = Vocabulary(
        classes=tuple(VocabularyClass(name, tuple(words[1:])) for name, words in CLASSES), templates=TEMPLATES
    )
    changed = {"shorter_side": 36, "background_threshold": threshold}
    settings = METHODS["naclip"].published["voc21"].model_copy(update=changed)
    result = segmenter.segment(pixels, classes=vocabulary, settings=settings)
    np.testing.assert_allclose(result.confidence, best, rtol=1e-3, atol=1e-4)
    clear = (best - second > 1e-4) & ((best - threshold).abs() > 1e-4)
    assert clear.float().mean() > 0.9
    found = torch.from_numpy(result.label_map.indices.astype(np.int64))
    assert torch.equal(found[clear], expected[clear])
