"""Photographs whose red says what a made-up segmenter sees, and their masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.segmentation.result import SegmentationResult

CLASSES = Vocabulary.of(["cat", "dog", "sofa"])
STEP = 80  # of red from one class to the next
VARIES = {"command", "versions"}


def make_folder(root: Path, *, images: int = 9) -> Path:
    """`photos/` and `masks/`: later photographs are seen less rightly, the fourth has a mask that counts nowhere."""
    generator = np.random.default_rng(0)
    for number in range(images):
        truth = generator.integers(0, 3, (4, 5)).repeat(6, axis=0).repeat(6, axis=1)  # (24, 30)
        seen = np.where(generator.random(truth.shape) < number / images, generator.integers(0, 3, truth.shape), truth)
        mask = np.where(generator.random(truth.shape) < 0.1, 255, truth) if number != 3 else np.full(truth.shape, 255)
        save(root / f"photos/{number % 2}/{number}.png", photograph_of(seen))
        save(root / f"masks/{number % 2}/{number}.png", mask.astype(np.uint8))
    return root


def photograph_of(classes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    pixels = np.full((*classes.shape, 3), 90, dtype=np.uint8)
    pixels[..., 0] = classes * STEP
    return pixels


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@dataclass
class RedSegmenter:
    """Sees the classes in the red of a photograph.

    Attributes:
        stop_at: which image, counted from 1, interrupts it; none does not.
        refuse: images of this height cannot be segmented.
        sizes: of the batches that it was asked.
    """

    stop_at: int | None = None
    refuse: int | None = None
    temperature: float = 0.1
    sizes: list[int] = field(default_factory=list)

    def segment_batch(
        self,
        images: Sequence[Any],
        *,
        classes: Any,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> list[SegmentationResult | PatchwordError]:
        self.sizes.append(len(images))
        if self.stop_at is not None and sum(self.sizes) >= self.stop_at:
            raise KeyboardInterrupt
        return [self._one(image) for image in images]

    def segment(self, image: Any, **options: Any) -> SegmentationResult:
        found = self._one(image)
        if isinstance(found, PatchwordError):
            raise found
        return found

    def vocabulary_of(self, classes: Any, *, background: Sequence[str] | None = None) -> Vocabulary:
        return Vocabulary.of(classes, background=background or ())

    def describe(self) -> dict[str, Any]:
        return {"kind": "red", "temperature": self.temperature, "revision": "abc", "fingerprint": "f00d"}

    def _one(self, pixels: NDArray[np.uint8]) -> SegmentationResult | PatchwordError:
        if len(pixels) == self.refuse:
            return PatchwordError("the segmenter does not like it")
        indices = pixels[..., 0] // STEP
        return SegmentationResult(LabelMap(indices, CLASSES.names), np.ones(indices.shape, np.float32), pixels)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in an evaluation that does not vary from run to run, by path."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    content = {name: path.read_bytes() for name, path in found.items() if name not in ("runs.jsonl", "report.html")}
    if "evaluation.json" in content:
        report = json.loads(content["evaluation.json"])
        kept = {name: value for name, value in report.items() if name not in VARIES}
        content["evaluation.json"] = json.dumps(kept).encode()
    return content
