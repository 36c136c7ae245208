"""Scenes labelled together by the miniature models have the masks that they have one at a time."""

from __future__ import annotations

import pytest
import torch

from patchword.config.label import LabelSettings
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.image import LabelParts, MaskCandidates, generate_masks
from patchword.models.loading import load_image_text, load_mask_generator
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.world import draw_scene, scene_seed


def scenes() -> list[torch.Tensor]:
    drawn = [draw_scene(scene_seed("evaluate-seen", index=9_000_000 + index), style="day") for index in range(2)]
    images = [torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255 for scene in drawn]
    return [images[0], images[1][..., :150, 20:]]


def test_scenes_together_are_labelled_as_one_at_a_time() -> None:
    parts = LabelParts.of(
        load_image_text(str(miniatures.CLIP), device="cpu"),
        mask_generator=load_mask_generator(str(miniatures.SAM), device="cpu"),
        vocabulary=Vocabulary.of(SEEN),
    )
    settings = LabelSettings(generator="both", peaks=1, sampling_clusters=8, image_batch=2)
    together = generate_masks(scenes(), parts=parts, settings=settings)
    alone = generate_masks(scenes(), parts=parts, settings=settings.model_copy(update={"image_batch": 1}))
    for found, expected in zip(together, alone, strict=True):
        assert isinstance(found, MaskCandidates)
        assert isinstance(expected, MaskCandidates)
        assert len(found.segments) >= 5
        assert found.detected.votes == expected.detected.votes
        assert [segment.rle for segment in found.segments] == [segment.rle for segment in expected.segments]
        for one, other in zip(found.segments, expected.segments, strict=True):
            assert (one.class_name, one.generator, one.points) == (other.class_name, other.generator, other.points)
            numbers = ("score", "predicted_iou", "similarity", "stability", "margin", "entropy")
            assert [getattr(one, name) for name in numbers] == pytest.approx(
                [getattr(other, name) for name in numbers], abs=1e-3
            )
