"""A folder of labels that people review: what is worst, what was decided, and a mask where they click."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.coco_masks import decode_segmentation
from patchword.data.images import read_image
from patchword.data.run_lengths import run_lengths
from patchword.errors import PatchwordError, UnusableError
from patchword.labeling.dataset import LabelledDataset, LabelledItem
from patchword.labeling.quality.records import ImageUncertainty, read_doubts
from patchword.labeling.review import (
    OF_A_MASK,
    Action,
    Decision,
    ReviewedMask,
    ReviewLog,
    active,
    conflicts,
    reviewed_masks,
    segments_key,
)
from patchword.labeling.reviewed import reviewed_map
from patchword.models.registry import ModelName
from patchword.serving.clicks import Clicks

_PICTURE_SIDE = 2048  # pixels of a photograph as the page gets it


@dataclass(frozen=True)
class Listed:
    """A photograph in the list: its score (none where nothing says), the model's doubt, and how far its review is."""

    name: str
    score: float | None
    doubt: float | None
    classes: tuple[str, ...]
    masks: int
    state: str


class MissingError(PatchwordError):
    """Nothing of that name is there."""


class ConflictError(PatchwordError):
    """What is asked for does not go with what is there now."""


class ReviewDesk:
    """What the pages of the review ask about one folder of labels; any number of threads may.

    Args:
        labels: the folder.
        mask_generator: who answers clicks; by default the one that the labels were made with.
        device, dtype: where it computes.
    """

    def __init__(
        self, labels: str | Path, *, mask_generator: object = None, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.dataset = LabelledDataset.open(labels, allow_missing=True)
        self.log = ReviewLog(self.dataset.folder)
        self.items = {spoken(item.record.name): item for item in self.dataset.items}
        recorded = self.dataset.mask_generator
        named = mask_generator or (ModelName.of(recorded) if recorded is not None else None)
        self._clicks = Clicks(named, device=device, dtype=dtype) if named is not None else None
        self._reading = threading.Lock()  # the log, which one thread brings up to date at a time
        self._keys: dict[str, tuple[int, str]] = {}
        self._scores: dict[str, float] = {}
        with suppress(PatchwordError):  # imported labels have none
            self._scores = {record.name: record.score for record in self.dataset.quality()}
        self._doubts: dict[str, ImageUncertainty] = {each.name: each for each in read_doubts(self.dataset.folder)}

    @property
    def has_doubts(self) -> bool:
        return bool(self._doubts)

    @property
    def answers_clicks(self) -> bool:
        return self._clicks is not None

    def item(self, name: str) -> LabelledItem:
        """A photograph by its name; no path is ever opened that is not of the data set."""
        found = self.items.get(name)
        if found is None:
            raise MissingError(f"these labels have no photograph called {name!r}")
        return found

    def held(self, name: str) -> list[Decision]:
        """The decisions on a photograph that hold."""
        with self._reading:
            decisions = self.log.decisions(self.item(name).record.name)
        if not decisions:
            return []
        key = self._key(name)
        return [decision for decision in active(decisions) if decision.of == key]

    def last_number(self) -> int:
        """Of the newest decision; 0 where there is none."""
        with self._reading:
            decisions = self.log.decisions()
        return decisions[-1].number if decisions else 0

    def listed(self) -> list[Listed]:
        """All photographs, in no order."""
        with self._reading:
            touched = {spoken(decision.image) for decision in self.log.decisions()}
        found = []
        for name, item in self.items.items():
            held = self.held(name) if name in touched else []
            classes = set(item.record.classes)
            classes |= {each.class_name for each in held if each.class_name is not None}
            doubt = self._doubts.get(item.record.name)
            state = "done" if any(each.action == "done" for each in held) else "started" if held else "open"
            found.append(
                Listed(
                    name,
                    self._scores.get(item.record.name),
                    doubt.doubt if doubt is not None else None,
                    tuple(each for each in self.dataset.vocabulary.names if each in classes),
                    item.record.segments,
                    state,
                )
            )
        return found

    def masks(self, name: str) -> list[ReviewedMask]:
        """A photograph's masks as they stand now."""
        return reviewed_masks(self.item(name).segments(), self.held(name), names=self.dataset.vocabulary.names)

    def mask_doubts(self, name: str) -> Mapping[str, tuple[float, str]]:
        """Mask -> how much the trained model doubts it, and what it says instead."""
        doubt = self._doubts.get(self.item(name).record.name)
        return {str(each.position): (each.doubt, each.instead) for each in doubt.masks} if doubt is not None else {}

    def picture(self, name: str) -> bytes:
        """JPEG of a photograph, at most 2048 pixels a side."""
        image = Image.fromarray(self._pixels(name))
        image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=92)
        return buffer.getvalue()

    def result(self, name: str) -> bytes:
        """PNG of the labels that `align` and `export` would take: the classes' colours, clear where there is none."""
        item = self.item(name)
        labels, held = item.labels(), self.held(name)
        if any(decision.action != "done" for decision in held):
            before = item.segments()
            masks = reviewed_masks(before, held, names=self.dataset.vocabulary.names)
            labels = reviewed_map(labels, masks, before=before, settings=self.dataset.settings)
        table = np.zeros((labels.ignore + 1, 4), dtype=np.uint8)
        table[: len(labels.names), :3] = labels.class_colours()
        table[: len(labels.names), 3] = 255
        buffer = io.BytesIO()
        Image.fromarray(table[labels.indices]).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    def decide(
        self,
        action: Action,
        *,
        image: str,
        seen: int,
        mask: str | None = None,
        class_name: str | None = None,
        rle: Mapping[str, Any] | None = None,
        undoes: int | None = None,
        reviewer: str = "",
    ) -> tuple[Decision, list[Decision]]:
        """Check a decision and write it down; what others decided on the same mask since `seen` comes back with it."""
        name, size = self.item(image).record.name, self.item(image).record.size
        values: dict[str, Any] = {}
        if action in OF_A_MASK:
            if mask is None or mask not in {each.key for each in self.masks(image)}:
                raise ConflictError(f"{image} has no mask {mask!r} now")
            values["mask"] = mask
        if action in ("rename", "add"):
            if class_name not in self.dataset.vocabulary.names:
                raise PatchwordError(f"there is no class {class_name!r}; choose one of the class list")
            values["class_name"] = class_name
        if action in ("add", "replace"):
            values["rle"] = _checked(rle, size=cast("tuple[int, int]", size))
        if action == "undo":
            with self._reading:
                there = active(self.log.decisions(name))
            if undoes not in {each.number for each in there}:
                raise ConflictError(f"decision {undoes} on {image} is not there, or was undone already")
            values["undoes"] = undoes
        with self._reading:
            made = self.log.append(action, image=name, of=self._key(image), reviewer=reviewer, **values)
            return made, conflicts(made, active(self.log.decisions(name)), seen=seen)

    def mask_at(
        self,
        name: str,
        *,
        points: Sequence[tuple[float, float]],
        labels: Sequence[bool],
        box: tuple[float, float, float, float] | None,
    ) -> tuple[NDArray[np.bool_], float]:
        """What the mask generator finds at points (inside or outside the thing) and in a box."""
        self.item(name)  # refuses any other name
        if self._clicks is None:
            raise ConflictError("these labels name no mask generator; start the server with --mask-generator")
        pointed = {"points": points, "labels": labels, "box": box}
        return self._clicks.mask_at(name, lambda: self._pixels(name), at=lambda _: pointed)

    def _pixels(self, name: str) -> NDArray[np.uint8]:
        item = self.item(name)
        pixels = read_image(item.image)
        if pixels.shape[:2] != item.record.size:
            raise ConflictError(f"{name} has changed since it was labelled; label it again")
        return pixels

    def _key(self, name: str) -> str:
        """`segments_key`, hashed again only where the file is another."""
        changed = self.item(name).segments_file.stat().st_mtime_ns
        known = self._keys.get(name)
        if known is None or known[0] != changed:
            key = segments_key(self.dataset.folder, self.item(name).record.name)
            self._keys[name] = known = (changed, key)
        return known[1]


def spoken(name: str) -> str:
    """A photograph's name as an address can hold it; what is not UTF-8 in it is escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _checked(rle: Mapping[str, Any] | None, *, size: tuple[int, int]) -> dict[str, Any]:
    """A drawn mask in COCO's compressed run lengths; refused where it is empty or of another size."""
    try:
        mask, _ = decode_segmentation(dict(rle or {}), size=size)
    except UnusableError as error:
        raise PatchwordError(f"the mask cannot be read: {error}") from None
    if not mask.any():
        raise PatchwordError("the mask is empty; remove it instead")
    return dict(run_lengths(mask))
