"""What a row of an ablation is trained on: fewer photographs, labels made worse on purpose, or exact masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.ablation.grid import Row
from patchword.alignment.data import AlignmentData, AlignmentItem
from patchword.data.masks import LabelMap, find_mask
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset


def training_data(labels: LabelledDataset, *, row: Row, seed: int, truth: Path, noisy: Path) -> AlignmentData:
    """The photographs and label maps that a row is trained on.

    Args:
        labels: pseudo labels.
        row: what it changes.
        seed: decides which photographs and which wrong names are drawn; the same for all rows.
        truth: folder of exact masks.
        noisy: folder that label maps made worse are written to.
    """
    items = [(item.record.name, AlignmentItem(item.image, item.label_map)) for item in labels.items]
    if row.images is not None:
        items = _drawn(items, count=row.images, seed=seed)
    if row.exact:
        return AlignmentData(
            tuple(AlignmentItem(item.image, exact_mask(truth, name)) for name, item in items), labels.vocabulary
        )
    if row.label_noise == 0:
        return AlignmentData(tuple(item for _, item in items), labels.vocabulary)
    made = []
    for name, item in items:
        label_map = LabelMap.load(item.label_map, names=labels.vocabulary.names)
        path = noisy / f"{name}.png"
        wrong_names(label_map, share=row.label_noise, seed=_seed_of(seed, name)).save(path)
        made.append(AlignmentItem(item.image, path))
    return AlignmentData(tuple(made), labels.vocabulary)


def exact_mask(truth: Path, name: str) -> Path:
    """The exact mask of a photograph."""
    found = find_mask(truth, name=name)
    if found is None:
        raise PatchwordError(
            f"{name} has no exact mask in {truth}; the mask of a/b.jpg is named a/b.jpg.png or a/b.png"
        )
    return found


def wrong_names(label_map: LabelMap, *, share: float, seed: int) -> LabelMap:
    """Give regions another name: all pixels of a class in the image together, as a labeller that errs would.

    Args:
        label_map: (h, w).
        share: probability in [0, 1] with which each class of the image gets another name, drawn evenly among the
            others.
        seed: of the draw.

    Returns:
        (h, w); the same pixels have a label.
    """
    random = np.random.default_rng(seed)
    count = len(label_map.names)
    names: NDArray[np.int64] = np.arange(label_map.ignore + 1)
    for index in range(count):  # one draw a class, whether it is there or not, so that maps do not shift each other's
        other = int(random.integers(count - 1)) if count > 1 else index
        if random.random() < share and count > 1:
            names[index] = other + (other >= index)
    return LabelMap(names[label_map.indices], label_map.names)


def _drawn(items: Sequence[tuple[str, AlignmentItem]], *, count: int, seed: int) -> list[tuple[str, AlignmentItem]]:
    if count > len(items):
        raise PatchwordError(f"a row wants {count} photographs; the labels have {len(items)}")
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[position] for position in sorted(chosen.tolist())]


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")
