"""Where a trained model contradicts the labels that it learned from: the masks most likely to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.folders import Manifest
from patchword.label.dataset import LabelledDataset, LabelledItem
from patchword.label.quality.doubts import ImageDoubt, MaskDoubt, by_doubt
from patchword.maps import LabelMap, Segment
from patchword.progress import Progress
from patchword.segment.dense import AnySegmenter
from patchword.segment.result import SegmentationResult


def find_disagreement(
    labels: LabelledDataset, *, segmenter: AnySegmenter, out: Path, quiet: bool = False
) -> tuple[ImageDoubt, ...]:
    """Segment the photographs of a data set with its own classes and compare, mask by mask.

    A mask that the model contradicts with confidence after having learned from it, and from all others of its class,
    is likely to be wrong. Source: docs/method.md, "What the labels are worth" [chosen].

    Args:
        labels: the data set.
        segmenter: as a rule the one that was trained on it.
        out: file of JSON lines, one a photograph; replaced when it is there.
        quiet: whether to show no progress.

    Returns:
        one record a photograph, most doubtful first; those that could not be looked at last.
    """
    out.unlink(missing_ok=True)
    found = []
    with Manifest(out) as manifest, Progress(len(labels.items), "comparing", quiet=quiet) as progress:
        for item in labels.items:
            record = _look_at(item, labels=labels, segmenter=segmenter)
            manifest.append(record.model_dump(mode="json"))
            found.append(record)
            progress.advance()
    manifest.finish()
    return by_doubt(found)


def doubts(label_map: LabelMap, segments: Sequence[Segment], *, predicted: SegmentationResult, name: str) -> ImageDoubt:
    """Compare one photograph's labels with a prediction over the same classes.

    Args:
        label_map: (h, w) the labels.
        segments: the masks that it was fused from.
        predicted: (h, w) classes and confidences.
        name: of the photograph.

    Raises:
        PatchwordError: when the sizes differ.
    """
    said, seen = label_map.indices, predicted.label_map.indices
    if said.shape != seen.shape:
        raise PatchwordError(f"label map of {name} has {said.shape} pixels, its prediction {seen.shape}")
    labelled = said != label_map.ignore
    against = np.where(labelled & (said != seen), predicted.confidence, 0.0)  # (h, w)
    masks = [
        doubt
        for position, segment in enumerate(segments)
        if (doubt := _mask_doubt(segment, position, said, seen, against, names=label_map.names)) is not None
    ]
    masks.sort(key=lambda mask: (-mask.doubt, -mask.pixels, mask.position))
    whole = float(against[labelled].mean()) if labelled.any() else 0.0
    return ImageDoubt(name=name, doubt=min(1.0, whole), masks=tuple(masks))


def _mask_doubt(
    segment: Segment,
    position: int,
    said: NDArray[np.integer],
    seen: NDArray[np.integer],
    against: NDArray[np.floating],
    *,
    names: tuple[str, ...],
) -> MaskDoubt | None:
    """None for a mask of which fusion left nothing."""
    x, y, width, height = segment.box
    window = (slice(y, y + height), slice(x, x + width))
    kept = segment.mask()[window] & (said[window] == segment.class_index)
    pixels = int(np.count_nonzero(kept))
    if not pixels:
        return None
    instead = int(np.bincount(seen[window][kept].astype(np.int64)).argmax())
    return MaskDoubt(
        position=position,
        class_name=segment.class_name,
        doubt=min(1.0, float(against[window][kept].mean())),
        pixels=pixels,
        instead=names[instead] if instead < len(names) else "no class",
    )


def _look_at(item: LabelledItem, *, labels: LabelledDataset, segmenter: AnySegmenter) -> ImageDoubt:
    name = item.record.name
    try:
        label_map = LabelMap.load(item.label_map, names=labels.vocabulary.names)
        predicted = segmenter.segment(item.image, classes=labels.vocabulary, background=[])
        return doubts(label_map, item.segments(), predicted=predicted, name=name)
    except PatchwordError as error:
        return ImageDoubt(name=name, doubt=0.0, masks=(), reason=str(error))
