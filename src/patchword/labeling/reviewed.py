"""Labels as they stand after a review: label maps and segments beside those that were generated, which stay."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.label import LabelSettings
from patchword.data.folders import json_text, write_json
from patchword.data.masks import LabelMap, Segment
from patchword.errors import PatchwordError, WriteError
from patchword.labeling.records import Counts, ImageRecord, label_map_path, segments_path
from patchword.labeling.review import Decision, ReviewedMask, ReviewLog, active, reviewed_masks, segments_key
from patchword.runs.progress import photograph_count

if TYPE_CHECKING:
    from patchword.labeling.dataset import LabelledDataset, LabelledItem

REVIEWED = "reviewed"  # folder of the maps and segments, made again whenever they are not of the decisions


@dataclass(frozen=True)
class ReviewSummary:
    """What a review has changed.

    Attributes:
        photographs: of the data set, without those that failed.
        reviewed: of these, how many have a decision that holds.
        done: how many are marked as done.
        changes: what happened to masks -> how many: removed, rejected, renamed, redrawn, added, accepted.
        stale: decisions on labels that were made anew since.
        fingerprint: SHA-256 of all that decides the reviewed labels; of none it is "".
    """

    photographs: int
    reviewed: int
    done: int
    changes: dict[str, int]
    stale: int
    fingerprint: str

    def spoken(self) -> str:
        """In one line for a person; "" where nothing was decided."""
        if not self.reviewed and not self.stale:
            return ""
        masks = sum(self.changes.values())
        told = ", ".join(
            f"{count:,} mask{'' if count == 1 else 's'} {what}" if not at else f"{count:,} {what}"
            for at, (what, count) in enumerate(self.changes.items())
        )
        stale = f"; {self.stale:,} decisions on labels that were made anew since are left out" if self.stale else ""
        what = told if masks else "no mask changed"
        return (
            f"reviewed: {self.reviewed:,} of {photograph_count(self.photographs)}, {self.done:,} done: {what}{stale}; "
            "--no-reviews ignores them"
        )


def apply_reviews(dataset: LabelledDataset) -> LabelledDataset:
    """The data set with the labels that the decisions beside it give; itself where there are none.

    The reviewed maps and segments are written to `reviewed/`, where they are not yet those of the decisions.
    """
    log = ReviewLog(dataset.folder)
    if dataset.review is not None or not log.decisions():
        return dataset
    items, fingerprints, stale, done, reviewed = [], [], 0, 0, 0
    changes: Counter[str] = Counter()
    for item in dataset.items:
        decisions, old = held_decisions(log, dataset.folder, item.record.name)
        stale += old
        reviewed += bool(decisions)
        done += any(decision.action == "done" for decision in decisions)
        if all(decision.action == "done" for decision in decisions):
            items.append(item)
            continue
        masks = reviewed_masks(item.segments(), decisions, names=dataset.vocabulary.names)
        changes.update(filter(None, map(change_of, masks)))
        key = _key(decisions[0].of, masks)
        fingerprints.append(f"{item.record.name} {key}")
        items.append(_materialise(item, masks, key=key, folder=dataset.folder, settings=dataset.settings))
    fingerprint = hashlib.sha256(json_text(fingerprints).encode()).hexdigest()
    summary = ReviewSummary(
        photographs=len(dataset.items),
        reviewed=reviewed,
        done=done,
        changes={what: changes[what] for what in _CHANGES if changes[what]},
        stale=stale,
        fingerprint=fingerprint if fingerprints else "",
    )
    records = [item.record for item in items]
    counts = Counts.of([*records, *dataset.failed], names=dataset.vocabulary.names)
    counts = counts.model_copy(update={"left_out": dataset.counts.left_out})
    return replace(dataset, items=tuple(items), counts=counts, review=summary)


_CHANGES = ("removed", "rejected", "renamed", "redrawn", "added", "accepted")


def held_decisions(log: ReviewLog, folder: Path, name: str) -> tuple[list[Decision], int]:
    """The decisions on a photograph that hold for its labels as they are, and how many are of earlier labels."""
    decisions = log.decisions(name)
    if not decisions:
        return [], 0
    of = segments_key(folder, name)
    held = active(decisions)
    current = [decision for decision in held if decision.of == of]
    return current, len(held) - len(current)


def change_of(mask: ReviewedMask) -> str:
    """What the review did to a mask, in a word; "" where nothing."""
    if mask.status in ("removed", "rejected"):
        return "" if mask.added else mask.status
    if mask.added:
        return "added"
    if mask.renamed or mask.redrawn:
        return "renamed" if mask.renamed else "redrawn"
    return "accepted" if mask.status == "accepted" else ""


def reviewed_segments(masks: Sequence[ReviewedMask]) -> tuple[Segment, ...]:
    """The masks that are left."""
    return tuple(mask.segment for mask in masks if mask.status in ("generated", "accepted"))


def reviewed_map(
    generated: LabelMap,
    masks: Sequence[ReviewedMask],
    *,
    before: Sequence[Segment],
    settings: LabelSettings | None,
) -> LabelMap:
    """A label map after a review.

    What is left of the generated masks is fused again, without what a person took out. Masks that a person vouches for
    lie above, the smaller on top, of equal ones the later. What they do not cover of a rejected mask is ignore.

    Args:
        generated: the map as it was.
        masks: of `reviewed_masks`.
        before: the segments as they were generated.
        settings: of the labelling. Labels that were imported have none; of these only pixels change that had the class
            of a mask which is there no more.
    """
    size = (generated.indices.shape[0], generated.indices.shape[1])
    left = [mask.segment for mask in masks if mask.status == "generated"]
    fused = _fused(left, generated, settings=settings)
    freed = _freed(generated, masks, before=before, whole=settings is not None)
    indices = np.where(freed, fused, generated.indices)
    accepted = [mask for mask in masks if mask.status == "accepted"]
    covered = np.zeros(size, dtype=bool)
    for mask in sorted(accepted, key=lambda each: -each.segment.area):  # stable: the later of equal ones is on top
        inside = _inside(mask.segment, size=size)
        indices[inside] = mask.segment.class_index
        covered |= inside
    for mask in masks:
        if mask.status == "rejected":
            indices[_inside(mask.segment, size=size) & ~covered] = generated.ignore
    return LabelMap(indices, generated.names, generated.colours)


def _fused(segments: Sequence[Segment], generated: LabelMap, *, settings: LabelSettings | None) -> NDArray[Any]:
    from patchword.labeling.image import fuse  # torch is loaded with it

    size = (generated.indices.shape[0], generated.indices.shape[1])
    margin = settings.margin if settings is not None else 0.0
    rule = settings.fusion if settings is not None else "highest"
    return fuse(segments, size=size, names=generated.names, margin=margin, rule=rule).indices


def _freed(
    generated: LabelMap, masks: Sequence[ReviewedMask], *, before: Sequence[Segment], whole: bool
) -> NDArray[np.bool_]:
    """The pixels (h, w) of masks that are not as they were; without `whole` only those that had their class alone."""
    size = (generated.indices.shape[0], generated.indices.shape[1])
    freed, kept = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for mask in masks:
        if mask.added:
            continue
        segment = before[int(mask.key)]
        own = _inside(segment, size=size) & (whole or generated.indices == segment.class_index)
        if mask.status != "generated":
            freed |= own
        elif not whole:
            kept |= own
    return freed & ~kept


def _inside(segment: Segment, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = segment.mask()
    if mask.shape != size:
        raise PatchwordError(f"a mask of {segment.class_name!r} has {mask.shape} pixels; its photograph has {size}")
    return mask


def _key(of: str, masks: Sequence[ReviewedMask]) -> str:
    touched = [mask for mask in masks if mask.status != "generated"]
    state = [[mask.key, mask.status, mask.segment.class_name, mask.segment.rle] for mask in touched]
    return hashlib.sha256(json_text([of, state]).encode()).hexdigest()


def _materialise(
    item: LabelledItem, masks: Sequence[ReviewedMask], *, key: str, folder: Path, settings: LabelSettings | None
) -> LabelledItem:
    """Write a photograph's reviewed map and segments, unless they are there; its item then leads to them."""
    name, place = item.record.name, folder / REVIEWED
    map_file, segments_file = label_map_path(place, name), segments_path(place, name)
    segments = reviewed_segments(masks)
    if not map_file.is_file() or _key_of(segments_file) != key:
        labels = reviewed_map(item.labels(), masks, before=item.segments(), settings=settings)
        told = {
            "name": name,
            "of": key,
            "size": list(labels.indices.shape),
            "segments": [each.to_json() for each in segments],
        }
        try:
            segments_file.unlink(missing_ok=True)  # it vouches for the map, and so goes first and comes last
            labels.save(map_file)
            write_json(segments_file, told)
        except (OSError, WriteError) as error:
            raise PatchwordError(
                f"cannot write the reviewed labels of {name}: {error}; --no-reviews takes those that were generated"
            ) from None
    new = replace(item, label_map=map_file, segments_file=segments_file)
    return replace(new, record=_record(item.record, new.labels(), segments=len(segments)))


def _key_of(path: Path) -> str | None:
    try:
        key: str = json.loads(path.read_bytes())["of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key


def _record(record: ImageRecord, labels: LabelMap, *, segments: int) -> ImageRecord:
    counted = np.bincount(labels.indices.ravel(), minlength=labels.ignore + 1)
    present = tuple(name for index, name in enumerate(labels.names) if counted[index])
    return record.model_copy(
        update={
            "status": "ok" if present else "empty",
            "classes": present,
            "segments": segments,
            "coverage": 1 - int(counted[labels.ignore]) / labels.indices.size,
            "reason": None if present else "a reviewer left no mask",
        }
    )
