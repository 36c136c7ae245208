"""The quality of one image's labels: by hand, and against a slow reference that decodes every mask."""

from __future__ import annotations

import numpy as np
import pytest
from quality_fakes import MARGIN, NAMES, claim, make_labels, random_labels

from patchword.config.label import LabelSettings
from patchword.data.masks import Segment
from patchword.errors import PatchwordError
from patchword.labeling.generators import CLIP_PROMPTS_SAM, SAM_THEN_CLIP
from patchword.labeling.image import ImageLabels, fuse
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.records import QualityParts, QualityRecord, QualitySettings, score_of

BOTH = LabelSettings(generator="both", margin=MARGIN)


def region(size: tuple[int, int], *box: int) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    return mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def reference(labels: ImageLabels) -> dict[str, object]:
    """Everything from decoded masks and from the fusion itself."""
    size = labels.label_map.indices.shape
    maps = {}
    for generator in (CLIP_PROMPTS_SAM, SAM_THEN_CLIP):
        own = [segment for segment in labels.segments if segment.generator == generator]
        maps[generator] = fuse(own, size=size, names=NAMES, margin=MARGIN).indices.astype(int)
    first, second = maps.values()
    detected = labels.detected
    expected = len(detected.kept) + sum(
        votes / detected.needed for index, votes in enumerate(detected.votes) if index not in detected.kept
    )
    classes = sum(iou(first == index, second == index) for index in range(len(NAMES)))
    claimed = np.zeros(size, dtype=bool)
    agreements, survivals = [], []
    for segment in labels.segments:
        mask = segment.mask()
        claimed |= mask
        others = [
            other.mask()
            for other in labels.segments
            if other.class_index == segment.class_index and other.generator != segment.generator
        ]
        parts = [other for other in others if (other & mask).sum() > other.sum() / 2]
        together = np.logical_or.reduce(parts) if parts else np.zeros(size, dtype=bool)
        agreements.append(max([iou(mask, together), *(iou(mask, other) for other in others)]))
        survivals.append(float((labels.label_map.indices[mask] == segment.class_index).mean()))
    ignored = labels.label_map.indices == labels.label_map.ignore
    return {
        "class_agreement": classes / max(expected, 1),
        "pixel_agreement": float(((first == second) & (first != 255)).mean()),
        "coverage": float((~ignored).mean()),
        "detection": len(detected.kept) / max(expected, 1),
        "contested": (claimed & ignored).sum() / max(claimed.sum(), 1),
        "agreements": agreements,
        "survivals": survivals,
    }


@pytest.mark.parametrize("seed", range(60))
def test_every_number_is_that_of_the_slow_reference(seed: int) -> None:
    labels = random_labels(seed, size=(13 + seed % 7, 17 + seed % 11))
    found, right = assess(labels, name="a.png", settings=BOTH), reference(labels)
    for name, value in found.parts:
        assert value == pytest.approx(right[name], abs=1e-4), name
    assert found.contested == pytest.approx(right["contested"], abs=1e-4)
    assert [mask.agreement for mask in found.masks] == pytest.approx(right["agreements"], abs=1e-4)
    assert [mask.survived for mask in found.masks] == pytest.approx(right["survivals"], abs=1e-4)
    indices = labels.label_map.indices
    assert found.pixels == {name: n for i, name in enumerate(NAMES) if (n := int((indices == i).sum()))}
    assert 0 <= found.score <= 1


def test_the_random_labels_are_no_easy_ones() -> None:
    """Else the comparison above would say little."""
    records = [assess(random_labels(seed, size=(15, 20)), name="a", settings=BOTH) for seed in range(60)]
    for values in (
        [record.parts.class_agreement for record in records],
        [record.contested for record in records],
        [mask.survived for record in records for mask in record.masks],
        [mask.agreement for record in records for mask in record.masks],
    ):
        between = [value for value in values if value is not None and 0 < value < 1]
        assert len(between) > 10


def test_by_hand() -> None:
    size = (10, 10)
    left, right = region(size, 0, 10, 0, 5), region(size, 0, 10, 5, 10)
    upper = region(size, 0, 5, 5, 10)
    segments = [
        claim(left, 0),
        claim(right, 1, score=0.7),
        claim(left, 0, generator=SAM_THEN_CLIP),
        claim(upper, 1, generator=SAM_THEN_CLIP, score=0.7),
    ]
    found = assess(make_labels(segments, size=size, votes=(4, 4, 1, 0)), name="a.png", settings=BOTH)
    # cat: 1, dog: a half; 2 kept, and the sofa won one of the two crops it needed
    assert found.parts == QualityParts(class_agreement=0.6, pixel_agreement=0.75, coverage=1.0, detection=0.8)
    assert found.score == pytest.approx((2 * 0.6 + 0.75 + 1 + 0.8) / 5, abs=1e-4)
    assert [mask.agreement for mask in found.masks] == [1, 0.5, 1, 0.5]
    assert [mask.survived for mask in found.masks] == [1, 1, 1, 1]
    assert found.pixels == {"cat": 50, "dog": 50}
    assert (found.margin, found.stability, found.entropy, found.detection_entropy) == (0.1, 0.95, 0.2, 0.3)


def test_means_are_weighed_by_area_and_leave_out_what_is_not_known() -> None:
    size = (10, 10)
    segments = [
        claim(region(size, 0, 6, 0, 10), 0),
        claim(region(size, 6, 8, 0, 10), 1),
        claim(region(size, 9, 10, 0, 10), 1),
    ]
    values = (0.1, 0.5, None)
    segments = [type(each)(**(each.__dict__ | {"margin": value})) for each, value in zip(segments, values, strict=True)]
    found = assess(make_labels(segments, size=size, votes=(4, 4, 0, 0)), name="a.png", settings=BOTH)
    assert found.margin == pytest.approx((0.1 * 60 + 0.5 * 20) / 80)


def test_parts_of_an_object_together_agree_with_the_whole() -> None:
    size = (8, 8)
    whole, upper, lower = region(size, 0, 8, 0, 8), region(size, 0, 4, 0, 8), region(size, 4, 8, 0, 8)
    segments = [claim(whole, 0), *(claim(part, 0, generator=SAM_THEN_CLIP) for part in (upper, lower))]
    found = assess(make_labels(segments, size=size, votes=(4, 0, 0, 0)), name="a.png", settings=BOTH)
    assert [mask.agreement for mask in found.masks] == [1, 0.5, 0.5]


def test_one_generator_has_no_agreement_and_still_a_score() -> None:
    size = (10, 10)
    labels = make_labels([claim(region(size, 0, 5, 0, 10), 0)], size=size, votes=(4, 1, 0, 0))
    for generator in ("clip-prompts-sam", "sam-then-clip"):
        found = assess(labels, name="a.png", settings=LabelSettings(generator=generator, margin=MARGIN))
        assert (found.parts.class_agreement, found.parts.pixel_agreement) == (None, None)
        assert [mask.agreement for mask in found.masks] == [None]
        assert found.score == pytest.approx((0.5 + 1 / 1.5) / 2, abs=1e-4)


def test_the_smallest_image() -> None:
    labels = make_labels([claim(np.ones((1, 1), dtype=bool), 2)], size=(1, 1), votes=(0, 0, 3, 0))
    found = assess(labels, name="a.png", settings=BOTH)
    assert found.parts == QualityParts(class_agreement=0, pixel_agreement=0, coverage=1, detection=1)
    assert found.masks[0].survived == 1


@pytest.mark.parametrize("votes", [(0, 0, 0, 0), (1, 0, 0, 0), (5, 5, 0, 0)])
def test_an_image_without_labels_scores_nothing(votes: tuple[int, ...]) -> None:
    found = assess(make_labels([], size=(4, 6), votes=votes), name="a.png", settings=BOTH)
    assert found.score == 0
    assert found.pixels == {}
    assert (found.margin, found.stability, found.entropy, found.contested) == (None, None, None, 0)


def test_large_images_are_read_at_points_and_come_close() -> None:
    for seed in range(12):
        labels = random_labels(seed, size=(300, 400))
        exact = assess(labels, name="a", settings=BOTH, quality=QualitySettings(image_side=400, mask_side=400))
        near = assess(labels, name="a", settings=BOTH, quality=QualitySettings(image_side=100, mask_side=32))
        assert near.score == pytest.approx(exact.score, abs=0.02)
        assert [mask.survived for mask in near.masks] == pytest.approx(
            [mask.survived for mask in exact.masks], abs=0.06
        )


def test_better_parts_give_a_better_score() -> None:
    settings = QualitySettings()
    middle = QualityParts(class_agreement=0.5, pixel_agreement=0.5, coverage=0.5, detection=0.5)
    for part in QualityParts.model_fields:
        better = score_of(middle.model_copy(update={part: 0.9}), settings=settings)
        assert better > score_of(middle, settings=settings) == 0.5
    only = QualitySettings(class_agreement_weight=0, pixel_agreement_weight=0, coverage_weight=0)
    assert score_of(middle.model_copy(update={"detection": 0.25}), settings=only) == 0.25


def test_a_record_survives_json() -> None:
    found = assess(random_labels(3, size=(15, 20)), name="é/a.png", settings=BOTH)
    assert found.masks
    assert QualityRecord.model_validate_json(found.model_dump_json()) == found


def test_a_damaged_mask_is_told() -> None:
    labels = random_labels(3, size=(15, 20))
    broken = Segment.from_json(labels.segments[0].to_json() | {"rle": {"size": [15, 20], "counts": "1"}})
    with pytest.raises(PatchwordError, match="damaged"):
        assess(ImageLabels(labels.label_map, (broken,), labels.detected), name="a", settings=BOTH)
