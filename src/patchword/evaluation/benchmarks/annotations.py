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
from patchword.evaluation.masks import Pair

_FIELD = "LabelMap"
_LARGEST = 65535


@dataclass(frozen=True)
class InstanceMasks:
    """The objects of COCO's photographs, as `instances_val2017.json` has them.

    Where objects overlap the smaller lies on top; crowds ("iscrowd") are drawn as their class, below all single
    objects; objects of one area lie in the file's order. What no object covers is background. [chosen: COCO's instances
    have no order of their own]
    """

    path: Path
    images: Mapping[str, Mapping[str, Any]]
    objects: Mapping[str, Sequence[Mapping[str, Any]]]
    values_of: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> InstanceMasks:
        record = read_json(path, needs=("images", "annotations", "categories"))
        try:
            images = unique(record["images"], lambda image: str(image["file_name"]), what="file_name", path=path)
            by_id = unique(record["images"], lambda image: id_key(image["id"]), what="image id", path=path)
            objects: dict[str, list[Mapping[str, Any]]] = {number: [] for number in by_id}
            for each in record["annotations"]:
                objects.setdefault(id_key(each["image_id"]), []).append(each)
            categories = unique(record["categories"], lambda each: str(each["name"]), what="category", path=path)
            unique(record["categories"], lambda each: id_key(each["id"]), what="category id", path=path)
            names = {name: id_key(category["id"]) for name, category in categories.items()}
        except PatchwordError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{path} is no COCO annotation file: {error!r}") from None
        wanted = class_list("coco_object").names
        if set(names) != set(wanted):
            other = sorted(set(names) ^ set(wanted))[0]
            raise PatchwordError(
                f"{path} has {len(names)} categories; they must be COCO's {len(wanted)} ({other!r} differs)"
            )
        return cls(path, images, objects, {names[name]: value for value, name in enumerate(wanted, start=1)})

    def check_has(self, pairs: Sequence[Pair]) -> None:
        """Refuse photographs that the annotation file does not know, and two files of one name in different folders."""
        unknown = [pair.name for pair in pairs if pair.photo.name not in self.images]
        if unknown:
            raise PatchwordError(
                f"{self.path} does not know {len(unknown)} of {len(pairs)} photographs, such as {unknown[0]}"
            )
        owners: dict[str, str] = {}
        for pair in pairs:
            if owners.setdefault(pair.photo.name, pair.name) != pair.name:
                raise PatchwordError(
                    f"{owners[pair.photo.name]} and {pair.name} have one name in {self.path}; remove one"
                )

    def values(self, pair: Pair) -> NDArray[np.integer]:
        """The map of a photograph, (h, w) uint16: 0 = background, 1 to 80 = the classes."""
        image = self.images[pair.photo.name]
        place = f"{self.path}: the annotation of {pair.name} is damaged"
        objects = self.objects[id_key(image["id"])]
        return rasterized(
            image,
            objects,
            value_of=lambda each: self.values_of[id_key(each["category_id"])],
            below=_from_below,
            place=place,
        )


def unique(
    records: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str], *, what: str, path: Path
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if found.setdefault(key(record), record) is not record:
            raise PatchwordError(f"{path} has the {what} {key(record)!r} twice; nothing says which of the two is meant")
    return found


def rasterized(
    image: Mapping[str, Any],
    objects: Iterable[Mapping[str, Any]],
    *,
    value_of: Callable[[Mapping[str, Any]], int],
    place: str,
    below: Callable[[Mapping[str, Any]], Any] | None = None,
) -> NDArray[np.uint16]:
    """Objects drawn over each other, (h, w), 0 where there is none; `below` sorts them from below to above."""
    try:
        size = int(image["height"]), int(image["width"])
        values = np.zeros(size, dtype=np.uint16)
        for each in objects if below is None else sorted(objects, key=below):
            try:
                mask, _ = decode_segmentation(
                    each.get("segmentation"), size=size
                )  # parts of 1 or 2 points enclose nothing
            except PatchwordError as error:
                raise PatchwordError(f"annotation {each.get('id', 'without an id')}: {error}") from None
            values[mask] = value_of(each)
    except PatchwordError as error:
        raise PatchwordError(f"{place}: {error}") from None
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise PatchwordError(f"{place}: {type(error).__name__} {first_line(error)}") from None
    return values


def _from_below(annotation: Mapping[str, Any]) -> tuple[bool, float]:
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


@dataclass(frozen=True)
class DetailMasks:
    """The segmentations of `trainval_merged.json`, drawn in the file's order: where two overlap the later wins, as in
    the Detail API. Photographs are those of validation, by name without ending.
    """

    path: Path
    images: Mapping[str, Mapping[str, Any]]
    segments: Mapping[str, Sequence[Mapping[str, Any]]]
    categories: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> DetailMasks:
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
        return tuple(self.images)

    def values(self, pair: Pair) -> NDArray[np.integer]:
        """The labels of a photograph, (h, w), 0 where there is none."""
        image = self.images[pair.photo.stem]
        place = f"{self.path}: the annotation of {pair.name} is damaged"
        segments = self.segments[id_key(image["image_id"])]
        return rasterized(image, segments, value_of=lambda each: label_id(each["category_id"]), place=place)


def read_label_file(path: Path) -> dict[str, int]:
    """Read lines such as `2: aeroplane`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchwordError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
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
        raise PatchwordError(f"{path} is no JSON: {error}") from None
    missing = [name for name in needs if not isinstance(record, dict) or not isinstance(record.get(name), list)]
    if missing:
        raise PatchwordError(f"{path} has no list {missing[0]!r}; it needs {', '.join(needs)}")
    return dict(record)
