"""Refinement through a segmenter: which is the default, what thresholds and soft results see, what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from colour_world import COLOURS, draw
from torch import Tensor

from patchword.errors import PatchwordError
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord
from patchword.segmentation.segmenter import Segmenter


class SameColour:
    """At every point the mask of all pixels of about its colour."""

    record = ModelRecord("scripted", "scripted", None, "", 1, 1, (0.0,) * 3, (1.0,) * 3, 1, "")
    device = torch.device("cpu")

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        size = [(image.shape[2], image.shape[3]) for image in images]
        return tuple(ImageEmbedding((image,), one, one) for image, one in zip(images, size, strict=True))

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        answers = []
        for embedding, own in zip(embeddings, points, strict=True):
            image = embedding.features[0][0]  # (3, h, w)
            asked = image[:, own[:, 0, 1].long(), own[:, 0, 0].long()].T  # (n, 3)
            apart = (image[None] - asked[:, :, None, None]).abs().amax(dim=1)  # (n, h, w)
            answers.append(
                MaskProposals(10 - 40 * apart[:, None], torch.full((len(own), 1), 0.9), embedding.image_size)
            )
        return tuple(answers)


def right(segmenter: Segmenter, settings: dict[str, object]) -> float:
    """Share of right pixels where the edge of the picture lies within patches of seven pixels."""
    shares = []
    for seed in range(200, 208):
        picture, truth = (each[:, 5:] for each in draw(seed, height=56, width=64))
        found = segmenter.segment(picture, classes=list(COLOURS), settings={"image_size": 32, **settings})
        shares.append(np.mean(found.label_map.indices == truth))
    return float(np.mean(shares))


def test_every_refinement_is_nearer_to_the_edges(segmenter: Segmenter) -> None:
    segmenter.refiner = SameColour()
    plain = right(segmenter, {"refine": "none"})
    assert plain < 0.99
    for name in ("jbu", "pamr", "sam"):
        assert right(segmenter, {"refine": name}) > plain + 0.5 * (1 - plain), name
    assert right(segmenter, {}) == right(segmenter, {"refine": "jbu"})


@pytest.mark.parametrize("name", ["jbu", "pamr", "sam"])
def test_thresholds_come_after_the_refinement(segmenter: Segmenter, name: str) -> None:
    segmenter.refiner = SameColour()
    picture, _ = draw(203, height=40, width=52)
    settings = {"image_size": 24, "refine": name}
    free = segmenter.segment(picture, classes=list(COLOURS), settings=settings)
    middle = float(np.median(free.confidence))
    held = segmenter.segment(picture, classes=list(COLOURS), settings={**settings, "threshold": middle})
    np.testing.assert_array_equal(held.confidence, free.confidence)
    low = free.confidence < np.float32(middle)
    assert low.any()
    assert (held.label_map.indices[low] == 255).all()
    assert (held.label_map.indices[~low] == free.label_map.indices[~low]).all()


def test_soft_results_belong_to_the_label_map(segmenter: Segmenter) -> None:
    picture, _ = draw(204, height=40, width=52)
    found = segmenter.segment(picture, classes=list(COLOURS), settings={"image_size": 24})
    assert (found.soft().argmax(axis=0) == found.label_map.indices).all()


def test_masks_need_a_mask_generator(segmenter: Segmenter) -> None:
    with pytest.raises(PatchwordError, match="refine=sam needs a"):
        segmenter.segment(draw(1)[0], classes=list(COLOURS), settings={"refine": "sam"})
