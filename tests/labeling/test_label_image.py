"""One image from crops to label map, with models that know only colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from label_fakes import ColourClip, RegionSam, label_image, picture, record

from patchword.config.label import LabelSettings
from patchword.data.images import to_tensor
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.image import (
    CLIP_PROMPTS_SAM,
    ImageLabels,
    LabelParts,
    MaskCandidates,
    fuse_masks,
    generate_masks,
)
from patchword.models.protocols import ImageEmbedding, MaskProposals


def parts_for(classes: list[str], background: tuple[str, ...] = (), sam: RegionSam | None = None) -> LabelParts:
    vocabulary = Vocabulary.of(classes, background=background)
    return LabelParts.of(ColourClip(), mask_generator=sam or RegionSam(), vocabulary=vocabulary)


PROMPTS = LabelSettings(generator="clip-prompts-sam")


def label(image: np.ndarray, parts: LabelParts, settings: LabelSettings | None = None) -> ImageLabels:
    return label_image(to_tensor(image), parts=parts, settings=settings or PROMPTS)


SCENE = picture(
    [
        ["blue", "blue", "blue", "blue"],
        ["blue", "blue", "red", "red"],
        ["green", "green", "red", "red"],
        ["green", "green", "green", "green"],
    ],
    scale=12,
)
TRUTH = np.array([[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0]]).repeat(12, axis=0).repeat(12, axis=1)


def test_regions_of_named_colours_are_labelled_exactly() -> None:
    labels = label(SCENE, parts_for(["green", "blue", "red", "yellow"]))
    np.testing.assert_array_equal(labels.label_map.indices, TRUTH)
    assert labels.detected.kept == (0, 1, 2)
    assert labels.detected.votes[3] == 0
    assert labels.detected.crops == 35


def test_segments_carry_score_points_and_generator() -> None:
    sam = RegionSam(predicted_iou=0.8)
    labels = label(SCENE, parts_for(["green", "blue", "red"], sam=sam))
    assert len(labels.segments) == 3 * 5  # 4 peaks, and all of them together
    assert sam.calls == [(12, 1, 2), (3, 4, 2)]
    for segment in labels.segments:
        assert segment.generator == CLIP_PROMPTS_SAM == "clip-prompts-sam"
        assert segment.predicted_iou == pytest.approx(0.8)
        assert segment.margin is not None
        assert segment.score == pytest.approx(0.8 / (1 + math.exp(-segment.margin / 0.03)))
        assert 0 < segment.similarity <= 1
        assert segment.class_name == ("green", "blue", "red")[segment.class_index]
        for x, y in segment.points:
            assert TRUTH[int(y), int(x)] == segment.class_index  # the points are on the class
    assert {len(segment.points) for segment in labels.segments} == {1, 4}


def test_a_score_is_the_evidence_inside_where_no_temperature_is_set() -> None:
    parts = parts_for(["green", "blue", "red"], sam=RegionSam(predicted_iou=0.8))
    labels = label(SCENE, parts, LabelSettings(generator="clip-prompts-sam", score_temperature=None))
    assert labels.segments
    for segment in labels.segments:
        assert segment.score == pytest.approx(segment.similarity * segment.predicted_iou)


def test_the_only_word_there_is_counts_in_full() -> None:
    labels = label(SCENE, parts_for(["red"]))
    assert labels.segments
    assert all(segment.score == segment.predicted_iou for segment in labels.segments)


def test_background_words_take_part_and_are_dropped() -> None:
    labels = label(SCENE, parts_for(["green", "red"], background=("blue",)))
    assert labels.detected.background_votes > 0
    expected = np.array([0, 255, 1])[TRUTH]
    np.testing.assert_array_equal(labels.label_map.indices, expected)


def test_a_single_class_is_found_with_and_without_background_words() -> None:
    for background in ((), ("blue", "green")):
        labels = label(SCENE, parts_for(["red"], background=background))
        np.testing.assert_array_equal(labels.label_map.indices, np.array([255, 255, 0])[TRUTH])


def test_background_words_tell_where_a_single_class_is_not() -> None:
    class Biased(ColourClip):
        """Sees more red in blue patches (0.8) than in red ones (0.7)."""

        def encode_patches(self, images: torch.Tensor) -> torch.Tensor:
            red, blue, black = torch.eye(6)[[0, 2, 5]]
            replies = torch.eye(6)
            replies[0], replies[2] = 0.7 * red + 0.51**0.5 * black, 0.8 * red + 0.6 * blue
            return torch.einsum("bchw,cd->bdhw", super().encode_patches(images), replies)

    image = picture([["red", "red", "blue"]], scale=16)
    for background, expected in (((), [255, 255, 0]), (("blue",), [0, 0, 255])):
        parts = replace(parts_for(["red"], background=background), image_text=Biased())
        assert label(image, parts).label_map.indices[0, ::16].tolist() == expected


def test_synonyms_count_for_their_class() -> None:
    labels = label(SCENE, parts_for(["plant; green", "sea; sky; blue", "fire; red"]))
    np.testing.assert_array_equal(labels.label_map.indices, TRUTH)


def test_nothing_detected_is_all_ignore() -> None:
    image = picture([["white"]], scale=48)
    labels = label(image, parts_for(["red", "blue"], background=("white",)))
    assert labels.detected.kept == ()
    assert labels.segments == ()
    assert (labels.label_map.indices == labels.label_map.ignore).all()


def test_no_mask_accepted_is_all_ignore() -> None:
    labels = label(SCENE, parts_for(["red", "blue"], sam=RegionSam(predicted_iou=0.6)))
    assert labels.detected.kept == (0, 1)
    assert labels.segments == ()
    assert (labels.label_map.indices == labels.label_map.ignore).all()


def test_one_pixel() -> None:
    image = picture([["red"]], scale=1)
    parts = parts_for(["red", "blue"])
    assert label(image, parts).label_map.indices.tolist() == [[255]]  # one crop cannot win two votes
    assert label(
        image, parts, LabelSettings(generator="clip-prompts-sam", minimum_crops=1)
    ).label_map.indices.tolist() == [[0]]


@pytest.mark.parametrize("size", [(1, 60), (60, 1), (2, 2), (5, 7), (30, 240)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), (255, 0, 0), dtype=np.uint8)
    labels = label(image, parts_for(["red", "blue"]))
    assert labels.label_map.indices.shape == size
    assert set(np.unique(labels.label_map.indices)) <= {0, 255}
    assert (labels.label_map.indices == 0).all() == (len(labels.detected.kept) == 1)


def test_crop_size_and_batch_are_obeyed() -> None:
    parts = parts_for(["green", "blue", "red"])
    labels = label(SCENE, parts, LabelSettings(generator="clip-prompts-sam", crop_batch=10, crop_size=8))
    assert parts.image_text.patch_calls == [10, 10, 10, 5]  # type: ignore[attr-defined]
    assert labels.detected.kept == (0, 1, 2)


def test_same_input_same_labels() -> None:
    first, second = (label(SCENE, parts_for(["green", "blue", "red"])) for _ in range(2))
    assert first.segments == second.segments
    np.testing.assert_array_equal(first.label_map.indices, second.label_map.indices)


def test_wrong_input_is_refused() -> None:
    parts = parts_for(["red"])
    with pytest.raises(PatchwordError, match="must be a batch of 1"):
        label_image(torch.zeros(2, 3, 8, 8), parts=parts, settings=LabelSettings())
    with pytest.raises(PatchwordError, match="shape"):
        label_image(torch.zeros(3, 8, 8), parts=parts, settings=LabelSettings())


def test_an_encoder_that_overflows_is_reported() -> None:
    class Overflowing(ColourClip):
        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            return super().encode_images(images) * torch.inf

    parts = replace(parts_for(["red"]), image_text=Overflowing())
    with pytest.raises(PatchwordError, match="not finite"):
        label(SCENE, parts)


@pytest.mark.parametrize("seeds", ["grid", "embedding"])
def test_masks_of_everything_are_named(seeds: str) -> None:
    settings = LabelSettings(
        generator="sam-then-clip", point_sampling=seeds, points_per_side=8, stability_score_offset=0.5
    )
    labels = label(SCENE, parts_for(["green", "blue", "red", "yellow"]), settings)
    np.testing.assert_array_equal(labels.label_map.indices, TRUTH)
    assert {segment.generator for segment in labels.segments} == {"sam-then-clip"}
    assert len(labels.segments) == 3  # repetitions are gone
    for segment in labels.segments:
        ((x, y),) = segment.points
        assert TRUTH[int(y), int(x)] == segment.class_index
        assert segment.margin is not None
        assert segment.score == pytest.approx(segment.predicted_iou / (1 + math.exp(-segment.margin / 0.03)))


def test_both_generators_are_fused() -> None:
    parts = parts_for(["green", "blue", "red"])
    both = label(SCENE, parts, LabelSettings(generator="both", stability_score_offset=0.5))
    alone = [
        label(SCENE, parts, LabelSettings(generator=name, stability_score_offset=0.5)).segments
        for name in ("clip-prompts-sam", "sam-then-clip")
    ]
    assert both.segments == (*alone[0], *alone[1])
    np.testing.assert_array_equal(both.label_map.indices, TRUTH)


def test_seeds_come_from_the_patch_encoder_when_there_is_one() -> None:
    class Halves:
        """Two features: the left half and the right half, whatever the picture."""

        record = record("halves", patch_size=4, input_size=16)
        device = torch.device("cpu")

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            features = torch.zeros(1, 2, images.shape[-2] // 4, images.shape[-1] // 4)
            half = features.shape[-1] // 2
            features[:, 0, :, :half] = features[:, 1, :, half:] = 1.0
            return features

    sam = RegionSam()
    parts = replace(parts_for(["green", "blue", "red"], sam=sam), patch_encoder=Halves())
    alone = LabelSettings(
        point_sampling="encoder", sampling_clusters=2, sampling_position=0.0, sampling_uncovered=0, reprompt_points=0
    )
    label(SCENE, parts, alone.model_copy(update={"generator": "sam-then-clip"}))
    assert sam.calls == [(2, 1, 2)]
    with pytest.raises(PatchwordError, match="no vision encoder"):
        label(SCENE, parts_for(["green", "blue"]), LabelSettings(generator="both", point_sampling="encoder"))


def test_an_image_that_fails_does_not_fail_the_others() -> None:
    parts = parts_for(["green", "blue", "red"])
    images = [to_tensor(SCENE), torch.zeros(1, 1, 8, 8), to_tensor(SCENE[:24])]
    first, wrong, last = generate_masks(images, parts=parts, settings=LabelSettings())
    assert isinstance(wrong, PatchwordError)
    assert "shape" in str(wrong)
    for candidates, image in ((first, SCENE), (last, SCENE[:24])):
        assert isinstance(candidates, MaskCandidates)
        assert candidates.size == image.shape[:2]
        settled = fuse_masks(candidates, names=parts.vocabulary.names, settings=LabelSettings())
        np.testing.assert_array_equal(settled.label_map.indices, label(image, parts).label_map.indices)


def test_too_little_memory_is_the_image_s_failure() -> None:
    class Greedy(ColourClip):
        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    parts = replace(parts_for(["red"]), image_text=Greedy())
    (found,) = generate_masks([to_tensor(SCENE)], parts=parts, settings=LabelSettings())
    assert str(found) == "not enough memory to label 48 x 48 pixels"


def test_every_segment_says_how_sure_it_is() -> None:
    parts = parts_for(["green", "blue", "red"], background=("white",))
    labels = label(SCENE, parts, LabelSettings(generator="both", stability_score_offset=0.5))
    assert {segment.generator for segment in labels.segments} == {"clip-prompts-sam", "sam-then-clip"}
    for segment in labels.segments:
        assert segment.stability == 1.0  # the logits of the stand-in are 1 and -1
        assert segment.margin is not None
        assert 0 < segment.margin <= 1
        assert segment.entropy is not None
        assert 0 <= segment.entropy < 0.1
    assert 0 <= labels.detected.entropy < 0.5
    alone = label(SCENE, parts_for(["red"]))
    assert {(segment.margin, segment.entropy) for segment in alone.segments} == {(None, None)}


PICTURES = [SCENE, SCENE[:24], picture([["white"]], scale=20), picture([["red", "blue", "green"]], scale=9)]


def assert_alike(found: list[MaskCandidates | PatchwordError], expected: list[MaskCandidates | PatchwordError]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, MaskCandidates)
        assert isinstance(other, MaskCandidates)
        assert one.size == other.size
        assert replace(one.detected, entropy=0.0) == replace(other.detected, entropy=0.0)
        assert one.detected.entropy == pytest.approx(other.detected.entropy, abs=1e-5)
        assert [segment.rle for segment in one.segments] == [segment.rle for segment in other.segments]
        for mine, theirs in zip(one.segments, other.segments, strict=True):
            assert (mine.class_name, mine.generator, mine.points) == (
                theirs.class_name,
                theirs.generator,
                theirs.points,
            )
            for name in ("score", "predicted_iou", "similarity", "stability", "margin", "entropy"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), abs=1e-5)


@pytest.mark.parametrize("generator", ["clip-prompts-sam", "sam-then-clip", "both"])
@pytest.mark.parametrize("image_batch", [2, 3, 16])
def test_images_together_are_labelled_as_one_at_a_time(generator: str, image_batch: int) -> None:
    parts = parts_for(["green", "blue", "red"], background=("black",))
    settings = LabelSettings(generator=generator, stability_score_offset=0.5, image_batch=image_batch)
    images = [to_tensor(image) for image in PICTURES]
    found = generate_masks(images, parts=parts, settings=settings)
    alone = [generate_masks([image], parts=parts, settings=settings)[0] for image in images]
    assert any(candidates.segments for candidates in alone if isinstance(candidates, MaskCandidates))
    assert_alike(found, alone)


def test_an_image_that_fails_among_others_does_not_fail_them() -> None:
    class Picky(RegionSam):
        def embed(self, images: Sequence[torch.Tensor]) -> tuple[ImageEmbedding, ...]:
            if any(image.shape[-2] == 24 for image in images):
                raise PatchwordError("not this one")
            return super().embed(images)

    images = [to_tensor(image) for image in PICTURES]
    settings = LabelSettings(image_batch=4)
    found = generate_masks(images, parts=parts_for(["green", "blue", "red"], sam=Picky()), settings=settings)
    assert [str(candidates) for candidates in found if isinstance(candidates, PatchwordError)] == ["not this one"]
    expected = generate_masks(images, parts=parts_for(["green", "blue", "red"]), settings=settings)
    assert_alike([found[0], *found[2:]], [expected[0], *expected[2:]])


class SmallClip(ColourClip):
    """Has memory for three crops."""

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_images(images)

    def encode_patches(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_patches(images)


class SmallSam(RegionSam):
    """Has memory for two images and five prompts."""

    def embed(self, images: Sequence[torch.Tensor]) -> tuple[ImageEmbedding, ...]:
        if len(images) > 2:
            raise MemoryError
        return super().embed(images)

    def masks_at(
        self, embeddings: Sequence[ImageEmbedding], points: Sequence[torch.Tensor]
    ) -> tuple[MaskProposals, ...]:
        if sum(len(places) for places in points) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().masks_at(embeddings, points)


def test_too_little_memory_changes_no_label() -> None:
    settings = LabelSettings(generator="both", stability_score_offset=0.5, image_batch=4)
    images = [to_tensor(image) for image in PICTURES]
    enough = parts_for(["green", "blue", "red"])
    small = replace(parts_for(["green", "blue", "red"], sam=SmallSam()), image_text=SmallClip())
    expected = generate_masks(images, parts=enough, settings=settings)
    assert_alike(generate_masks(images, parts=small, settings=settings), expected)
    calls = small.mask_generator.calls  # type: ignore[attr-defined]
    assert max(shape[0] for shape in calls) <= 5
