"""Made-up copies of the benchmarks' layouts: a few small photographs and masks of given values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image


def save_photo(path: Path, size: tuple[int, int]) -> None:
    """A grey photograph of a size (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path)


def save_mask(path: Path, values: ArrayLike) -> None:
    """An 8-bit grey mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)


def make_split(
    photos: Path, masks: Path, values: Mapping[str, ArrayLike], *, photo_suffix: str = ".jpg", suffix: str = ".png"
) -> None:
    """Photographs with masks of the same size; both suffixes follow the names."""
    for name, mask in values.items():
        save_photo(photos / f"{name}{photo_suffix}", np.asarray(mask).shape)
        save_mask(masks / f"{name}{suffix}", mask)


def every_value(low: int, high: int, *, more: tuple[int, ...] = (255,)) -> NDArray[np.uint8]:
    """A mask of one row that holds every value once."""
    return np.array([[*range(low, high + 1), *more]], dtype=np.uint8)


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def make_voc(root: Path, *, listed: bool = True, masks: str = "SegmentationClass") -> Path:
    """VOC2012 with two validation photographs and one for training."""
    values = {
        "2007_000033": every_value(0, 20),
        "2007_000042": [[0, 0], [15, 255]],
        "2007_000032": [[1, 1], [1, 1]],
    }
    make_split(root / "JPEGImages", root / masks, values)
    if listed:
        write_list(root / "ImageSets" / "Segmentation" / "val.txt", ["2007_000033", "2007_000042"])
        write_list(root / "ImageSets" / "Segmentation" / "train.txt", ["2007_000032"])
    return root
