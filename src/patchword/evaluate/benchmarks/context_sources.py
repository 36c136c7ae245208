"""PASCAL Context's published annotations: MATLAB label maps, and the JSON file of PASCAL in Detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError, first_line
from patchword.evaluate.benchmarks.coco_instances import decode_mask
from patchword.evaluate.benchmarks.json_file import read_json
from patchword.evaluate.pairs import Pair

_FIELD = "LabelMap"


def label_map_values(pair: Pair) -> NDArray[np.integer]:
    """The labels of a photograph from its .mat file, (h, w).

    Raises:
        PatchwordError: when SciPy is missing, or the file cannot be read or holds no label map.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise PatchwordError(f'{pair.mask} is a MATLAB file, which needs SciPy: pip install "patchword[mat]"') from None
    try:
        labels = np.asarray(loadmat(str(pair.mask))[_FIELD])
    except Exception as error:  # damaged files raise anything from KeyError to zlib.error
        raise PatchwordError(f"cannot read {_FIELD} in {pair.mask}: {first_line(error)}") from None
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise PatchwordError(
            f"{_FIELD} in {pair.mask} is {labels.dtype} of shape {labels.shape}; allowed are integers (h, w)"
        )
    return labels


@dataclass(frozen=True)
class DetailMasks:
    """The segmentations of `trainval_merged.json`, painted in the file's order: where two overlap the later wins, as in
    the Detail API.

    Attributes:
        path: the file.
        images: the record of every validation photograph by name without ending.
        segments: the annotations of every photograph by its id.
        categories: name -> id.
    """

    path: Path
    images: Mapping[str, Mapping[str, Any]]
    segments: Mapping[int, Sequence[Mapping[str, Any]]]
    categories: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> DetailMasks:
        """Read the file.

        Raises:
            PatchwordError: when it cannot be read, or has no photographs of the phase "val".
        """
        record = read_json(path, needs=("images", "annos_segmentation", "categories"))
        try:
            images = {Path(each["file_name"]).stem: each for each in record["images"] if each["phase"] == "val"}
            segments: dict[int, list[Mapping[str, Any]]] = {int(each["image_id"]): [] for each in images.values()}
            for segment in record["annos_segmentation"]:
                if int(segment["image_id"]) in segments:
                    segments[int(segment["image_id"])].append(segment)
            categories = {str(each["name"]): int(each["category_id"]) for each in record["categories"]}
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{path} is no annotation file of PASCAL in Detail: {error!r}") from None
        if not images:
            raise PatchwordError(f"{path} has no photographs of the phase val")
        return cls(path, dict(sorted(images.items())), segments, categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The validation photographs, without ending, in order."""
        return tuple(self.images)

    def values(self, pair: Pair) -> NDArray[np.integer]:
        """The labels of a photograph, (h, w), 0 where there is none.

        Raises:
            PatchwordError: when an annotation is damaged.
        """
        image = self.images[pair.photo.stem]
        try:
            height, width = int(image["height"]), int(image["width"])
            painted = np.zeros((height, width), dtype=np.uint16)
            for segment in self.segments[int(image["image_id"])]:
                painted[decode_mask(segment["segmentation"], height, width)] = int(segment["category_id"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise PatchwordError(f"{self.path}: the annotation of {pair.name} is damaged: {error!r}") from None
        return painted
