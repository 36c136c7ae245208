"""Names for masks: the lead of one class over all others, from patches and from the masked crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from label_fakes import ColourClip, RegionSam, picture

from patchword.config.label import LabelSettings
from patchword.data.images import to_tensor
from patchword.data.run_lengths import Runs, run_lengths
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.clip_crops import ClassLocalization, relevance_maps, word_scores
from patchword.labeling.embeddings import masked_crop, plain_crop
from patchword.labeling.generators import classify_masks, leader
from patchword.labeling.image import LabelParts
from patchword.labeling.mask_generator import GeneratedMask
from patchword.models.pixels import resize
from patchword.models.text_embeddings import encode_vocabulary

SCENE = picture([["blue", "blue", "red"], ["blue", "blue", "red"], ["green", "green", "white"]], scale=8)


def mask_at(rows: slice, columns: slice) -> GeneratedMask:
    mask = np.zeros(SCENE.shape[:2], dtype=bool)
    mask[rows, columns] = True
    return GeneratedMask(Runs.of(run_lengths(mask)), 0.9, 1.0, ((float(columns.start), float(rows.start)),))


BLUE, RED, GREEN = (
    mask_at(slice(0, 16), slice(0, 16)),
    mask_at(slice(0, 16), slice(16, 24)),
    mask_at(slice(16, 24), slice(0, 16)),
)
WHITE = mask_at(slice(16, 24), slice(16, 24))


def where(picture: np.ndarray, *, classes: list[str], background: tuple[str, ...] = ()) -> ClassLocalization:
    clip = ColourClip()
    text = encode_vocabulary(clip, vocabulary=Vocabulary.of(classes, background=background), background=True)
    similarity = word_scores(clip.encode_patches(to_tensor(picture)), text=text)[0]
    certain = relevance_maps(similarity[: len(classes)], background=similarity[len(classes) :])
    return ClassLocalization(tuple(range(len(classes))), text, similarity, certain)


def parts_of(classes: list[str]) -> LabelParts:
    return LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=Vocabulary.of(classes))


def names_of(
    masks: list[GeneratedMask], *, classes: list[str], background: tuple[str, ...] = (), **values: float
) -> list[str]:
    (found,) = classify_masks(
        [to_tensor(SCENE)],
        [masks],
        located=[where(SCENE, classes=classes, background=background)],
        parts=parts_of(classes),
        settings=LabelSettings(**values),
    )
    runs = [mask.runs for mask in masks]
    return [f"{segment.class_name}@{runs.index(segment.runs)}" for segment in found.segments]


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_masks_of_several_images_with_classes_of_their_own(batch: int) -> None:
    turned = SCENE[::-1].copy()
    upper, lower = mask_at(slice(0, 8), slice(0, 16)), mask_at(slice(8, 24), slice(16, 24))
    found = classify_masks(
        [to_tensor(SCENE), to_tensor(SCENE), to_tensor(turned)],
        [[RED, BLUE], [], [upper, lower]],
        located=[
            where(SCENE, classes=["blue", "red"]),
            where(SCENE, classes=["blue"]),
            where(turned, classes=["red", "white", "green"]),
        ],
        parts=parts_of(["first", "second", "third"]),
        settings=LabelSettings(crop_batch=batch),
    )
    assert [[one.class_name for one in own.segments] for own in found] == [["second", "first"], [], ["third", "first"]]
    masks = [[RED, BLUE], [], [upper, lower]]
    assert [[one.runs for one in own.segments] for own in found] == [[mask.runs for mask in own] for own in masks]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_masks_get_the_name_of_what_they_cover(weight: float, batch: int) -> None:
    masks = [RED, BLUE, GREEN]
    found = names_of(masks, classes=["blue", "green", "red"], token_weight=weight, crop_batch=batch)
    assert found == ["red@0", "blue@1", "green@2"]


def test_a_mask_that_shows_a_background_word_gets_no_name() -> None:
    assert names_of([WHITE, RED], classes=["blue", "red"], background=("white",)) == ["red@1"]


def test_a_mask_of_two_classes_alike_gets_no_name() -> None:
    half = mask_at(slice(0, 16), slice(8, 24))  # half of it blue, half of it red
    assert names_of([half], classes=["blue", "red"], token_weight=0.0) == []
    assert names_of([half], classes=["blue", "red"], token_weight=0.0, name_margin=0.0) != []


def test_the_mask_decides_what_the_token_sees() -> None:
    """The box of the L is mostly green and blue; what counts is what lies inside the mask."""
    mask = np.zeros(SCENE.shape[:2], dtype=bool)
    mask[0:2, 0:24] = True
    mask[0:16, 16:24] = True
    bent = GeneratedMask(Runs.of(run_lengths(mask)), 0.9, 1.0, ((0.0, 0.0),))
    assert names_of([bent], classes=["blue", "red", "green"], token_weight=1.0, crop_weight=0.0) == ["red@0"]
    assert names_of([bent], classes=["blue", "red", "green"], token_weight=1.0, crop_weight=1.0) != ["red@0"]


def test_the_outside_of_a_masked_crop_has_the_colour_that_is_given() -> None:
    crop = masked_crop(to_tensor(SCENE), RED.runs, outside=torch.full((1, 3, 1, 1), 0.5), side=18)
    assert crop.shape == (1, 3, 18, 18)
    # The mask is 16 x 8 with two pixels around it where the picture has them: below and to the left.
    assert crop[0, :, 2, 12].tolist() == pytest.approx([1, 0, 0], abs=0.05)
    assert crop[0, :, 17, 17].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
    assert crop[0, :, 2, 0].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("corner", [(0, 0), (7, 3), (14, 28)])
def test_the_plain_crop_is_the_square_around_the_mask(corner: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    top, left = corner
    mask = np.zeros((24, 40), dtype=bool)
    mask[top : top + 4, left : left + 10] = True
    crop = plain_crop(to_tensor(image), Runs.of(run_lengths(mask)), side=12)
    # Ten pixels and one more on either side: twelve, of which four rows are the mask's.
    expected = image[max(top - 4, 0) : top + 8, max(left - 1, 0) : left + 11]
    torch.testing.assert_close(crop, resize(to_tensor(expected), size=(12, 12)))


@pytest.mark.parametrize(
    ("cosines", "count", "expected"),
    [
        ([0.3, 0.2, 0.1], 2, 0),
        ([0.3, 0.29, 0.1], 2, None),  # too close
        ([0.3, 0.2, 0.4], 2, None),  # a background word
        ([0.3, 0.2, 0.29], 2, None),  # too close to a background word
        ([0.3], 1, 0),  # nothing to lead
    ],
)
def test_leader(cosines: list[float], count: int, expected: int | None) -> None:
    assert leader(torch.tensor(cosines), count=count, margin=0.02) == expected
