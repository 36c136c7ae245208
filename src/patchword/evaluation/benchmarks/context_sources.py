"""PASCAL Context's published annotations: MATLAB label maps, and the JSON file of PASCAL in Detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.coco_masks import id_key
from patchword.errors import PatchwordError, first_line
from patchword.evaluation.benchmarks.coco_instances import painted, unique
from patchword.evaluation.benchmarks.context_labels import label_id
from patchword.evaluation.benchmarks.json_file import read_json
from patchword.evaluation.pairs import Pair

_FIELD = "LabelMap"


def label_map_values(pair: Pair) -> NDArray[np.integer]:
    """The labels of a photograph from its .mat file, (h, w)."""
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
    segments: Mapping[str, Sequence[Mapping[str, Any]]]
    categories: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> DetailMasks:
        """Read the file."""
        record = read_json(path, needs=("images", "annos_segmentation", "categories"))
        try:
            chosen = [each for each in record["images"] if each["phase"] == "val"]
            images = unique(chosen, lambda each: Path(each["file_name"]).stem, what="photograph", path=path)
            by_id = unique(chosen, lambda each: id_key(each["image_id"]), what="image_id", path=path)
            segments: dict[str, list[Mapping[str, Any]]] = {number: [] for number in by_id}
            for segment in record["annos_segmentation"]:
                if id_key(segment["image_id"]) in segments:
                    segments[id_key(segment["image_id"])].append(segment)
            unique(record["categories"], lambda each: str(each["name"]), what="category", path=path)
            categories = {str(each["name"]): label_id(each["category_id"]) for each in record["categories"]}
        except PatchwordError:
            raise
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
        """The labels of a photograph, (h, w), 0 where there is none."""
        image = self.images[pair.photo.stem]
        place = f"{self.path}: the annotation of {pair.name} is damaged"
        segments = self.segments[id_key(image["image_id"])]
        return painted(image, segments, value_of=lambda each: label_id(each["category_id"]), place=place)
