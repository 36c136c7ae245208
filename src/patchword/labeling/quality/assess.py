"""Says what the labels of one image are worth; `records.py` says what each number means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.config.label import LabelSettings
from patchword.data.masks import LabelMap, Segment
from patchword.data.run_lengths import Places, Runs
from patchword.labeling.clip_crops import Detection
from patchword.labeling.generators import CLIP_PROMPTS_SAM, SAM_THEN_CLIP
from patchword.labeling.image import ImageLabels
from patchword.labeling.quality.records import (
    DIGITS,
    MaskQuality,
    QualityParts,
    QualityRecord,
    QualitySettings,
    score_of,
)


@dataclass(frozen=True)
class Lattice:
    """Evenly spread pixels of an image.

    Attributes:
        rows, columns: positions along each side, rising; every pixel of an image that is small enough.
    """

    rows: Places
    columns: Places

    @classmethod
    def over(cls, size: tuple[int, int], *, side: int) -> Lattice:
        """Spread at most `side` rows and columns over an image of (height, width) pixels.

        The points stand in the middle of equal intervals, so that no border counts more than the rest.
        """
        return cls(_spread(size[0], side), _spread(size[1], side))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.columns)

    @classmethod
    def inside(cls, box: tuple[int, int, int, int], *, side: int) -> Lattice:
        """Spread at most `side` rows and columns over a box (x, y, width, height) in pixels."""
        x, y, width, height = box
        return cls(y + _spread(height, side), x + _spread(width, side))

    def window(self, box: tuple[int, int, int, int]) -> tuple[slice, slice]:
        """The part of the lattice within a box (x, y, width, height) in pixels."""
        x, y, width, height = box
        top, bottom = np.searchsorted(self.rows, (y, y + height)).tolist()
        left, right = np.searchsorted(self.columns, (x, x + width)).tolist()
        return slice(top, bottom), slice(left, right)


def _spread(length: int, side: int) -> Places:
    count = min(length, side)
    return ((2 * np.arange(count, dtype=np.int64) + 1) * length) // (2 * count)


_NOBODY = -1


@dataclass(frozen=True)
class _Claim:
    """A segment and what is seen of it: its points within the window of the image's lattice."""

    segment: Segment
    window: tuple[slice, slice]
    inside: NDArray[np.bool_]


def assess(
    labels: ImageLabels, *, name: str, settings: LabelSettings, quality: QualitySettings | None = None
) -> QualityRecord:
    """Say what the labels of one image are worth.

    Takes some milliseconds, whatever the image's size: masks are read at points, straight from their run lengths.

    Args:
        labels: what labelling found.
        name: of the photograph.
        settings: that it was found with: `generator` and `margin`.
        quality: weights and points; the defaults when none are given.
    """
    quality = quality or QualitySettings()
    segments, label_map, detected = labels.segments, labels.label_map, labels.detected
    runs = [segment.runs for segment in segments]
    lattice = Lattice.over(size_of(label_map), side=quality.image_side)
    claims = [_see(segment, run, lattice) for segment, run in zip(segments, runs, strict=True)]
    final = label_map.indices[np.ix_(lattice.rows, lattice.columns)]
    pixels = count_pixels(label_map)
    both = settings.generator == "both"
    by_class, by_pixel = compare_generators(claims, lattice.shape, detected, settings.margin) if both else (None, None)
    parts = QualityParts(
        class_agreement=_rounded(by_class),
        pixel_agreement=_rounded(by_pixel),
        coverage=round(sum(pixels.values()) / label_map.indices.size, DIGITS),
        detection=round(len(detected.kept) / max(expected_classes(detected), 1), DIGITS),
    )
    agreements = mask_agreements(segments) if both else [None] * len(segments)
    survivals = [
        survived(segment, run, label_map, side=quality.mask_side) for segment, run in zip(segments, runs, strict=True)
    ]
    return QualityRecord(
        name=name,
        score=score_of(parts, settings=quality),
        parts=parts,
        contested=round(contested_share(claims, final == label_map.ignore), DIGITS),
        margin=weighted_mean(segments, "margin"),
        stability=weighted_mean(segments, "stability"),
        entropy=weighted_mean(segments, "entropy"),
        detection_entropy=round(detected.entropy, DIGITS),
        size=size_of(label_map),
        pixels=dict(sorted((label_map.names[index], count) for index, count in pixels.items())),
        masks=tuple(
            _mask_quality(segment, agreement, share)
            for segment, agreement, share in zip(segments, agreements, survivals, strict=True)
        ),
    )


def expected_classes(detected: Detection) -> float:
    """Number of classes that the vote lets expect: 1 for each that is kept, votes by votes needed for any other."""
    kept = set(detected.kept)
    missed = (votes / detected.needed for index, votes in enumerate(detected.votes) if index not in kept)
    return len(kept) + sum(missed)


def compare_generators(
    claims: Sequence[_Claim], shape: tuple[int, int], detected: Detection, margin: float
) -> tuple[float, float]:
    """Fuse each generator's claims alone and hold the two maps against each other.

    Returns:
        `class_agreement` and `pixel_agreement` as the module describes them.
    """
    first, second = (
        fused_alone([claim for claim in claims if claim.segment.generator == generator], shape, margin=margin)
        for generator in (CLIP_PROMPTS_SAM, SAM_THEN_CLIP)
    )
    table = _pairs(first, second, detected)  # rows: the first, columns: the second; the last of each: nobody
    same = table.diagonal()[:-1]
    either = table.sum(1)[:-1] + table.sum(0)[:-1] - same
    ious = same / np.maximum(either, 1)
    return float(ious.sum() / max(expected_classes(detected), 1)), float(same.sum() / table.sum())


def fused_alone(claims: Sequence[_Claim], shape: tuple[int, int], *, margin: float) -> NDArray[np.int64]:
    """What `fuse` would give at the lattice's points if only these claims were made: a class's index, or -1."""
    classes = np.full(shape, _NOBODY, dtype=np.int64)
    scores = np.zeros(shape)
    contested = np.zeros(shape, dtype=bool)
    for claim in sorted(claims, key=lambda claim: (-claim.segment.score, claim.segment.class_index)):
        index, score, window = claim.segment.class_index, claim.segment.score, claim.window
        holder, best = classes[window], scores[window]
        free = claim.inside & (holder == _NOBODY)
        contested[window] |= claim.inside & ~free & (holder != index) & (best - score < margin)
        holder[free], best[free] = index, score
    classes[contested] = _NOBODY
    return classes


def contested_share(claims: Sequence[_Claim], ignored: NDArray[np.bool_]) -> float:
    """Share of the points in any claim that are ignored; 0 where nobody claims anything.

    Args:
        ignored: (rows, columns) at the lattice's points.
    """
    claimed = np.zeros_like(ignored)
    for claim in claims:
        claimed[claim.window] |= claim.inside
    return float((claimed & ignored).sum() / max(int(claimed.sum()), 1))


def mask_agreements(segments: Sequence[Segment]) -> list[float]:
    """For every mask, how well the other generator claims the same for its class; see `MaskQuality`."""
    agreements = [0.0] * len(segments)
    for index in {segment.class_index for segment in segments}:
        sides = [
            [
                at
                for at, segment in enumerate(segments)
                if (segment.class_index, segment.generator) == (index, generator)
            ]
            for generator in (CLIP_PROMPTS_SAM, SAM_THEN_CLIP)
        ]
        for ours, theirs in (sides, sides[::-1]):
            if ours and theirs:
                found = _agreements([segments[at] for at in ours], [segments[at] for at in theirs])
                for at, value in zip(ours, found, strict=True):
                    agreements[at] = value
    return agreements


def survived(segment: Segment, runs: Runs, label_map: LabelMap, *, side: int) -> float:
    """Share of a mask's points that have its class in the label map; 0 for an empty mask."""
    points = Lattice.inside(segment.box, side=side)
    inside = runs.at(points.rows, points.columns)
    kept = label_map.indices[np.ix_(points.rows, points.columns)] == segment.class_index
    return float((inside & kept).sum() / max(int(inside.sum()), 1))


def weighted_mean(segments: Sequence[Segment], field: str) -> float | None:
    """Mean of a number over the masks that have it, weighed by their areas; none where none has."""
    known = [(getattr(segment, field), segment.area) for segment in segments if getattr(segment, field) is not None]
    total = sum(area for _, area in known)
    return round(sum(value * area for value, area in known) / total, DIGITS) if total else None


def count_pixels(label_map: LabelMap) -> dict[int, int]:
    """Pixels of each class in the map, by index, those without any left out."""
    counts = label_map.counts()
    counts[label_map.ignore] = 0
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


def size_of(label_map: LabelMap) -> tuple[int, int]:
    """(height, width) in pixels."""
    height, width = label_map.indices.shape
    return height, width


def _see(segment: Segment, runs: Runs, lattice: Lattice) -> _Claim:
    window = lattice.window(segment.box)
    return _Claim(segment, window, runs.at(lattice.rows[window[0]], lattice.columns[window[1]]))


def _pairs(first: NDArray[np.int64], second: NDArray[np.int64], detected: Detection) -> NDArray[np.int64]:
    """How many points have each pair of kept classes: (k + 1, k + 1), the last for nobody."""
    kept, nobody = detected.kept, len(detected.kept)
    numbers = np.full(len(detected.votes) + 1, nobody)  # by class; the last, which -1 means too, is nobody's
    numbers[list(kept)] = np.arange(nobody)
    pairs = np.bincount((numbers[first] * (nobody + 1) + numbers[second]).ravel(), minlength=(nobody + 1) ** 2)
    return pairs.reshape(nobody + 1, nobody + 1)


def _agreements(ours: Sequence[Segment], theirs: Sequence[Segment]) -> list[float]:
    """Highest IoU of each of our masks with one of theirs, or with all of theirs that are mostly inside it."""
    mine, other = ([dict(segment.rle) for segment in side] for side in (ours, theirs))
    shares = coco_mask.iou(other, mine, [1] * len(mine))  # (theirs, ours): of theirs, the share inside ours
    our_areas, their_areas = (np.array([segment.area for segment in side]) for side in (ours, theirs))
    common = np.rint(shares * their_areas[:, None])
    ious = (common / np.maximum(our_areas + their_areas[:, None] - common, 1)).T  # (ours, theirs)
    found = []
    for row, mask in enumerate(mine):
        best = float(ious[row].max())
        parts = [other[column] for column in np.flatnonzero(shares[:, row] > 0.5)]
        if len(parts) > 1:
            best = max(best, float(coco_mask.iou([mask], [coco_mask.merge(parts)], [0])[0, 0]))
        found.append(best)
    return found


def _mask_quality(segment: Segment, agreement: float | None, share: float) -> MaskQuality:
    return MaskQuality(
        class_name=segment.class_name,
        generator=segment.generator,
        area=segment.area,
        agreement=_rounded(agreement),
        survived=round(share, DIGITS),
        predicted_iou=round(segment.predicted_iou, DIGITS),
        similarity=round(segment.similarity, DIGITS),
        stability=_rounded(segment.stability),
        margin=_rounded(segment.margin),
        entropy=_rounded(segment.entropy),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
