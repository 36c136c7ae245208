"""Ground truth that is no picture: COCO's instances, PASCAL in Detail and the .mat files of PASCAL Context."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.coco_masks import decode_segmentation, id_key
from patchword.errors import PatchwordError, first_line
from patchword.evaluation.benchmarks.lists import class_list
from patchword.evaluation.masks import Pair, read_lines

_FIELD = "LabelMap"
_LARGEST = 65535


Object = Mapping[str, Any]


@dataclass(frozen=True)
class DrawnMasks:
    """Objects of photographs, drawn over each other; where there is none the value is 0.

    Attributes:
        images: the record of every photograph by `key`; their ids are in the field `number`.
        objects: the annotations of every photograph by its id, from below to above, or in the order of `below`.
        value_of: the mask value of an object's category id.
    """

    path: Path
    images: Mapping[str, Object]
    objects: Mapping[str, Sequence[Object]]
    key: Callable[[Pair], str]
    number: str
    value_of: Callable[[Any], int]
    below: Callable[[Object], Any] | None = None

    def values(self, pair: Pair) -> NDArray[np.uint16]:
        """The map of a photograph, (h, w)."""
        image = self.images[self.key(pair)]
        objects = self.objects[id_key(image[self.number])]
        place = f"{self.path}: the annotation of {pair.name} is damaged"
        try:
            size = int(image["height"]), int(image["width"])
            values = np.zeros(size, dtype=np.uint16)
            for each in objects if self.below is None else sorted(objects, key=self.below):
                try:  # parts of 1 or 2 points enclose nothing
                    mask, _ = decode_segmentation(each.get("segmentation"), size=size)
                except PatchwordError as error:
                    raise PatchwordError(f"annotation {each.get('id', 'without an id')}: {error}") from None
                values[mask] = self.value_of(each["category_id"])
        except PatchwordError as error:
            raise PatchwordError(f"{place}: {error}") from None
        except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
            raise PatchwordError(f"{place}: {type(error).__name__} {first_line(error)}") from None
        return values


def read_instances(path: Path) -> DrawnMasks:
    """The objects of COCO's `instances_val2017.json`: 0 = background, 1 to 80 = the classes.

    Where objects overlap the smaller lies on top; crowds ("iscrowd") are drawn as their class, below all single
    objects; objects of one area lie in the file's order. [chosen: COCO's instances have no order of their own]
    """
    record = read_json(path, needs=("images", "annotations", "categories"))
    try:
        images = unique(record["images"], lambda image: str(image["file_name"]), what="file_name", path=path)
        by_id = unique(record["images"], lambda image: id_key(image["id"]), what="image id", path=path)
        objects = _by_image(record["annotations"], by_id)
        categories = unique(record["categories"], lambda each: str(each["name"]), what="category", path=path)
        unique(record["categories"], lambda each: id_key(each["id"]), what="category id", path=path)
        names = {name: id_key(category["id"]) for name, category in categories.items()}
    except PatchwordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PatchwordError(f"{path} is not a COCO annotation file: {error!r}") from None
    wanted = class_list("coco_object").names
    if set(names) != set(wanted):
        other = sorted(set(names) ^ set(wanted))[0]
        raise PatchwordError(
            f"{path} has {len(names)} categories; they must be COCO's {len(wanted)} ({other!r} differs)"
        )
    values = {names[name]: value for value, name in enumerate(wanted, start=1)}
    return DrawnMasks(
        path, images, objects, lambda pair: pair.photo.name, "id", lambda each: values[id_key(each)], _from_below
    )


def read_detail(path: Path) -> tuple[DrawnMasks, dict[str, int]]:
    """The validation photographs of `trainval_merged.json`, by name without ending, and its categories' ids by name.

    Segmentations are drawn in the file's order: where two overlap the later wins, as in the Detail API.
    """
    record = read_json(path, needs=("images", "annos_segmentation", "categories"))
    try:
        chosen = [each for each in record["images"] if each["phase"] == "val"]
        images = unique(chosen, lambda each: Path(each["file_name"]).stem, what="photograph", path=path)
        by_id = unique(chosen, lambda each: id_key(each["image_id"]), what="image_id", path=path)
        objects = _by_image(record["annos_segmentation"], by_id)
        unique(record["categories"], lambda each: str(each["name"]), what="category", path=path)
        categories = {str(each["name"]): label_id(each["category_id"]) for each in record["categories"]}
    except PatchwordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PatchwordError(f"{path} is not an annotation file of PASCAL in Detail: {error!r}") from None
    if not images:
        raise PatchwordError(f"{path} has no photographs of the phase val")
    sorted_images = dict(sorted(images.items()))
    return DrawnMasks(path, sorted_images, objects, lambda pair: pair.photo.stem, "image_id", label_id), categories


def unique(records: Iterable[Object], key: Callable[[Object], str], *, what: str, path: Path) -> dict[str, Object]:
    found: dict[str, Object] = {}
    for record in records:
        if found.setdefault(key(record), record) is not record:
            raise PatchwordError(f"{path} has the {what} {key(record)!r} twice; nothing says which of the two is meant")
    return found


def _by_image(objects: Iterable[Object], images: Iterable[str]) -> dict[str, list[Object]]:
    """The objects of these images, by the images' ids."""
    found: dict[str, list[Object]] = {number: [] for number in images}
    for each in objects:
        found.get(id_key(each["image_id"]), []).append(each)
    return found


def _from_below(annotation: Object) -> tuple[bool, float]:
    """Sorts crowds before single objects, and the large before the small."""
    area = float(annotation["area"])
    if not math.isfinite(area):
        raise ValueError(f"area {area} is not a number of pixels")
    return not annotation.get("iscrowd", 0), -area


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
            f"{_FIELD} in {pair.mask} is {labels.dtype} of shape {labels.shape}; it must be integers of shape "
            "(height, width)"
        )
    return labels


def read_label_file(path: Path) -> dict[str, int]:
    """Read lines such as `2: aeroplane`."""
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        value, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not value.strip().isdecimal() or not name.strip():
            raise PatchwordError(f"{path}:{number}: cannot read {line!r}; write a line such as '2: aeroplane'")
        try:
            if labels.setdefault(name.strip(), label_id(int(value))) != int(value):
                raise ValueError(f"{name.strip()!r} is {labels[name.strip()]} in an earlier line")
        except ValueError as error:
            raise PatchwordError(f"{path}:{number}: {error}") from None
    return labels


def label_id(value: Any) -> int:
    """The id of a label, 0 to 65535, which is what masks can hold."""
    number = int(value)
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"label id {number} is outside 0 to {_LARGEST}")
    return number


def read_json(path: Path, *, needs: Sequence[str]) -> dict[str, Any]:
    """Read an annotation file with the lists that it needs."""
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PatchwordError(f"{path} is not JSON: {error}") from None
    missing = [name for name in needs if not isinstance(record, dict) or not isinstance(record.get(name), list)]
    if missing:
        raise PatchwordError(f"{path} has no list {missing[0]!r}; it needs {', '.join(needs)}")
    return dict(record)
