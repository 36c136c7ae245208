"""Snapping to masks that a scripted mask generator draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from patchword.config.refine import SnapSettings
from patchword.errors import PatchwordError
from patchword.models.protocols import ImageEmbedding, MaskProposals, ModelRecord
from patchword.segmentation.pixels import PixelClasses
from patchword.segmentation.snap import CoarseShares, accept, region_points, snap

EASY = SnapSettings(minimum_area=0.0)


class Scripted:
    """Answers every point with all of its masks (n, h, w) that hold the point; a mask stands for its own estimate."""

    record = ModelRecord("scripted", "scripted", None, "", 1, 1, (0.0,) * 3, (1.0,) * 3, 1, "")
    device = torch.device("cpu")

    def __init__(self, masks: Tensor, *, sure: Sequence[float]) -> None:
        self._masks, self._sure = masks, torch.tensor(sure)
        self.asked: list[tuple[float, float]] = []

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        size = (self._masks.shape[1], self._masks.shape[2])
        return tuple(ImageEmbedding((torch.zeros(1),), size, size) for _ in images)

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        answers = []
        for embedding, own in zip(embeddings, points, strict=True):
            self.asked += [(x, y) for x, y in own[:, 0].tolist()]
            logits = self._masks.float()[None].repeat(len(own), 1, 1, 1) * 20 - 10  # (n, m, h, w)
            hit = self._masks[:, own[:, 0, 1].long(), own[:, 0, 0].long()].T  # (n, m)
            answers.append(MaskProposals(logits, torch.where(hit, self._sure, 0.0), embedding.image_size))
        return tuple(answers)


def classes(indices: Tensor, *, confidence: float = 0.5) -> PixelClasses:
    return PixelClasses(indices.numpy().astype(np.uint8), np.full(indices.shape, confidence, dtype=np.float32))


def shares_of(found: PixelClasses) -> CoarseShares:
    """Of classes that have the whole probability that there is at a pixel."""
    indices = found.indices.astype(np.int64)
    names = np.unique(indices)
    shares = torch.from_numpy((indices == names[:, None, None]) * found.confidence).float()
    return CoarseShares(indices, torch.from_numpy(names), shares)


def box(top: int, left: int, bottom: int, right: int, *, size: tuple[int, int] = (32, 48)) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


IMAGE = torch.zeros(1, 3, 32, 48)


def test_region_takes_the_edge_of_its_mask() -> None:
    thing = box(10, 10, 20, 30)
    found = classes(box(8, 12, 19, 33).long())  # shifted against the thing
    proposer = Scripted(torch.stack([thing, ~thing]), sure=[0.9, 0.8])
    snapped = snap(found, coarse=shares_of(found), image=IMAGE, mask_generator=proposer, settings=EASY)
    assert (snapped.indices == thing.numpy()).all()
    changed = snapped.indices != found.indices
    assert changed.any()
    assert (snapped.confidence[~changed] == 0.5).all()
    kept = float((thing & torch.from_numpy(found.indices == 1)).sum() / thing.sum())
    gained = changed & (snapped.indices == 1)
    np.testing.assert_allclose(snapped.confidence[gained], 0.5 * kept, rtol=1e-5)


def test_coarse_map_may_have_another_size() -> None:
    thing = box(8, 8, 24, 32)
    found = classes(box(6, 9, 24, 34).long())
    coarse = classes(box(3, 5, 12, 17, size=(16, 24)).long())
    proposer = Scripted(torch.stack([thing, ~thing]), sure=[0.9, 0.8])
    snapped = snap(found, coarse=shares_of(coarse), image=IMAGE, mask_generator=proposer, settings=EASY)
    assert (snapped.indices == thing.numpy()).all()


def test_pixels_outside_all_masks_keep_theirs() -> None:
    found = classes(box(8, 12, 19, 33).long())
    proposer = Scripted(box(10, 10, 20, 30)[None], sure=[0.9])
    snapped = snap(found, coarse=shares_of(found), image=IMAGE, mask_generator=proposer, settings=EASY)
    outside = ~box(10, 10, 20, 30).numpy()
    assert (snapped.indices[outside] == found.indices[outside]).all()
    assert (snapped.indices[~outside] == 1).all()


@pytest.mark.parametrize(
    ("settings", "sure", "taken"),
    [
        ({"agreement": 0.6}, 0.9, True),
        ({"agreement": 0.7}, 0.9, False),  # two thirds of the mask are of one class
        ({"agreement": 0.6, "pred_iou_thresh": 0.95}, 0.9, False),
        ({"agreement": 0.6, "minimum_area": 0.2}, 0.9, False),
        ({"agreement": 0.6, "minimum_area": 0.1}, 0.9, True),
    ],
)
def test_what_makes_a_mask_acceptable(settings: dict[str, float], sure: float, taken: bool) -> None:
    coarse = classes(box(0, 0, 32, 24).long())  # class 1 on the left half
    mask = box(8, 12, 24, 30)  # 12 columns of class 1, 6 of class 0; 0.1875 of the image
    proposals = MaskProposals(mask.float()[None, None] * 20 - 10, torch.tensor([[sure]]), (32, 48))
    accepted = accept(proposals, coarse=shares_of(coarse), settings=SnapSettings(**{"minimum_area": 0.0, **settings}))
    assert len(accepted.classes) == int(taken)
    if taken:
        assert accepted.classes.tolist() == [1]
        assert accepted.confidence.tolist() == pytest.approx([0.5 * 12 / 18])


def test_probability_counts_and_not_the_number_of_cells() -> None:
    coarse = classes(box(0, 0, 32, 24).long())
    coarse.confidence[:, 24:] = 0.99
    coarse.confidence[:, :24] = 0.1
    mask = box(8, 12, 24, 30)
    proposals = MaskProposals(mask.float()[None, None] * 20 - 10, torch.tensor([[0.9]]), (32, 48))
    assert accept(proposals, coarse=shares_of(coarse), settings=EASY).classes.tolist() == [0]


def test_small_masks_lie_on_large_ones() -> None:
    ground, thing = box(0, 0, 32, 48), box(10, 10, 16, 18)
    found = classes(box(9, 10, 16, 19).long() * 2)
    proposer = Scripted(torch.stack([thing, ground]), sure=[0.8, 0.95])
    snapped = snap(found, coarse=shares_of(found), image=IMAGE, mask_generator=proposer, settings=EASY)
    assert (snapped.indices == 2 * thing.numpy()).all()


def test_points_lie_in_their_regions_the_largest_first() -> None:
    regions = box(2, 2, 12, 12).long() + 2 * box(20, 20, 24, 24).long()
    coarse = classes(regions)
    points = region_points(
        shares_of(coarse).indices, size=(320, 480), settings=SnapSettings(points=2, minimum_area=0.0)
    )
    assert points.shape == (6, 1, 2)
    owners = [int(regions[int(y) // 10, int(x) // 10]) for x, y in points[:, 0].tolist()]
    assert owners == [0, 0, 1, 1, 2, 2]
    few = region_points(
        shares_of(coarse).indices, size=(320, 480), settings=SnapSettings(points=2, minimum_area=0.0, maximum_prompts=3)
    )
    assert few.tolist() == points[:3].tolist()
    large = region_points(
        shares_of(coarse).indices, size=(320, 480), settings=SnapSettings(points=2, minimum_area=0.05)
    )
    assert large.tolist() == points[:4].tolist()


def test_points_of_a_tiny_region_are_asked_once() -> None:
    coarse = classes(box(5, 5, 6, 6).long())
    points = region_points(shares_of(coarse).indices, size=(32, 48), settings=SnapSettings(points=3, minimum_area=0.0))
    assert len(points) == 4  # three around, one in the cell


def test_no_region_is_large_enough() -> None:
    found = classes(torch.arange(32 * 48).reshape(32, 48) % 7)
    proposer = Scripted(box(0, 0, 32, 48)[None], sure=[0.9])
    snapped = snap(
        found, coarse=shares_of(found), image=IMAGE, mask_generator=proposer, settings=SnapSettings(minimum_area=0.9)
    )
    assert snapped is found
    assert not proposer.asked


def test_no_mask_is_accepted() -> None:
    found = classes(box(8, 12, 19, 33).long())
    proposer = Scripted(box(0, 0, 32, 48)[None], sure=[0.1])
    snapped = snap(found, coarse=shares_of(found), image=IMAGE, mask_generator=proposer, settings=EASY)
    assert (snapped.indices == found.indices).all()
    assert proposer.asked


def test_without_a_mask_generator_it_is_refused() -> None:
    found = classes(box(8, 12, 19, 33).long())
    with pytest.raises(PatchwordError, match="refine=sam needs a SAM"):
        snap(found, coarse=shares_of(found), image=IMAGE, mask_generator=None, settings=EASY)
