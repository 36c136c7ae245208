"""Where a trained model contradicts the labels that it learned from: the masks most likely to be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from patchword.data.folders import json_text, write_text
from patchword.data.images import read_image
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, Segment
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset, LabelledItem
from patchword.labeling.quality.records import ImageUncertainty, MaskUncertainty, by_uncertainty
from patchword.runs.pipeline import Chunk, Executor, InThreads, Photograph, Pixels, Written, content_of
from patchword.runs.progress import Progress
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.result import SegmentationResult


def find_disagreement(
    labels: LabelledDataset,
    *,
    segmenter: AnySegmenter,
    out: Path,
    unusable: Mapping[str, str] | None = None,
    executor: Executor | None = None,
    quiet: bool = False,
) -> tuple[ImageUncertainty, ...]:
    """Segment the photographs of a data set with its own classes and compare, mask by mask.

    A mask that the model contradicts with confidence after having learned from it, and from all others of its class,
    is likely to be wrong. Source: docs/method.md, "What the labels are worth" [chosen].

    Returned is one record a photograph, most doubtful first; those that could not be looked at last. What an earlier
    run has left in `out` of the same model, photographs and labels is kept, so that one that was stopped goes on.

    Args:
        segmenter: as a rule the one that was trained on it.
        out: file of JSON lines, one a photograph.
        unusable: of `LabelledDataset.unusable`; these photographs are not looked at.
        executor: whoever compares; by default it is done here, reading ahead in threads.
    """
    unusable = unusable or {}
    keys = _keys(labels, segmenter=segmenter)
    earlier = _read(out)
    found = {
        name: record
        for name, record in earlier.items()
        if keys.get(name) is not None and record.of == keys[name] and record.reason is None and name not in unusable
    }
    write_text(out, "".join(json_text(record.line()) + "\n" for record in found.values()))
    missing = {item.record.name: item for item in labels.items if item.record.name not in found}
    with (
        Manifest(out) as manifest,
        Progress(len(labels.items), "comparing", already=len(found), quiet=quiet) as progress,
    ):

        def keep(record: ImageUncertainty) -> None:
            manifest.append(record.line())
            found[record.name] = record
            progress.advance()

        for name in missing.keys() & unusable.keys():
            keep(ImageUncertainty(name=name, status="failed", doubt=0.0, masks=(), reason=unusable[name]))
        usable = {name: item for name, item in missing.items() if name not in unusable}
        (executor or InThreads()).run(
            [Chunk(((name, item.image),), lines=1) for name, item in usable.items()],
            work=CompareWork(usable, labels.vocabulary, segmenter, keys),
            done=lambda written: keep(ImageUncertainty.model_validate(written.record)),
        )
    manifest.finish()
    return by_uncertainty(found.values())


def _keys(labels: LabelledDataset, *, segmenter: AnySegmenter) -> dict[str, str | None]:
    """By name of a photograph, what its comparison depends on; none where the labels do not tell its content."""
    model = json_text([segmenter.describe(), labels.vocabulary.to_text()])

    def key(item: LabelledItem) -> str | None:
        if item.record.content is None:
            return None
        told = [model, item.record.content, content_of(item.label_map), content_of(item.segments_file)]
        return hashlib.sha256(json_text(told).encode()).hexdigest()

    return {item.record.name: key(item) for item in labels.items}


def _read(path: Path) -> dict[str, ImageUncertainty]:
    """What an earlier run has found; nothing of a file that is damaged or of an earlier version."""
    try:
        return {name: ImageUncertainty.model_validate(line) for name, line in Manifest(path).read().items()}
    except (PatchwordError, ValidationError):
        return {}


def compare_labels(
    label_map: LabelMap, segments: Sequence[Segment], *, predicted: SegmentationResult, name: str
) -> ImageUncertainty:
    """Compare one photograph's labels (h, w), fused from the segments, with a prediction over the same classes."""
    said, seen = label_map.indices, predicted.label_map.indices
    if said.shape != seen.shape:
        raise PatchwordError(f"label map of {name} has {said.shape} pixels, its prediction {seen.shape}")
    labelled = said != label_map.ignore
    against = np.where(labelled & (said != seen), predicted.confidence, 0.0)  # (h, w)
    masks = [
        doubt
        for position, segment in enumerate(segments)
        if (doubt := _mask_uncertainty(segment, position, said, seen, against, names=label_map.names)) is not None
    ]
    masks.sort(key=lambda mask: (-mask.doubt, -mask.pixels, mask.position))
    whole = float(against[labelled].mean()) if labelled.any() else 0.0
    return ImageUncertainty(name=name, doubt=min(1.0, whole), masks=tuple(masks))


def _mask_uncertainty(
    segment: Segment,
    position: int,
    said: NDArray[np.integer],
    seen: NDArray[np.integer],
    against: NDArray[np.floating],
    *,
    names: tuple[str, ...],
) -> MaskUncertainty | None:
    """None for a mask of which fusion left nothing."""
    x, y, width, height = segment.box
    window = (slice(y, y + height), slice(x, x + width))
    kept = segment.mask()[window] & (said[window] == segment.class_index)
    pixels = int(np.count_nonzero(kept))
    if not pixels:
        return None
    instead = int(np.bincount(seen[window][kept].astype(np.int64)).argmax())
    return MaskUncertainty(
        position=position,
        class_name=segment.class_name,
        doubt=min(1.0, float(against[window][kept].mean())),
        pixels=pixels,
        instead=names[instead] if instead < len(names) else "no class",
    )


@dataclass(frozen=True)
class CompareWork:
    """What is done with the photographs of a data set; the `Work` of the folder engine."""

    items: Mapping[str, LabelledItem]
    vocabulary: Vocabulary
    segmenter: AnySegmenter
    keys: Mapping[str, str | None]

    def read(self, path: Path) -> Pixels:
        return read_image(path)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[ImageUncertainty]:
        for each in photographs:
            try:
                record = self._compare(each)
            except PatchwordError as error:
                record = ImageUncertainty(name=each.name, status="failed", doubt=0.0, masks=(), reason=str(error))
            yield record.model_copy(update={"of": self.keys[each.name]})

    def write(self, made: ImageUncertainty) -> Written:
        """Nothing but its line is written."""
        return Written(made)

    def _compare(self, photograph: Photograph) -> ImageUncertainty:
        if isinstance(photograph.pixels, PatchwordError):
            raise photograph.pixels
        item = self.items[photograph.name]
        label_map = LabelMap.load(item.label_map, names=self.vocabulary.names)
        (predicted,) = self.segmenter.segment_batch([photograph.pixels], classes=self.vocabulary, background=[])
        if isinstance(predicted, PatchwordError):
            raise predicted
        return compare_labels(label_map, item.segments(), predicted=predicted, name=photograph.name)
