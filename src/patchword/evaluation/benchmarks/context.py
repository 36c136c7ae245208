"""PASCAL Context: 59 classes and what is none of them, from converted masks or from the published annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.coco_masks import id_key
from patchword.errors import PatchwordError, first_line
from patchword.evaluation.benchmarks.coco import painted, unique
from patchword.evaluation.benchmarks.layout import (
    Content,
    Found,
    Layout,
    Part,
    listed_pairs,
    pairs_of,
    pairs_with_masks,
    photographs_in,
)
from patchword.evaluation.benchmarks.lists import class_list, read_json
from patchword.evaluation.benchmarks.truth import BACKGROUND, mask_values
from patchword.evaluation.benchmarks.voc import counted_from_one, devkit_content
from patchword.evaluation.masks import IGNORE, Pair

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
            f"{_FIELD} in {pair.mask} is {labels.dtype} of shape {labels.shape}; it must be integers of shape "
            "(height, width)"
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


# Ids of the 59 classes among the 459 labels, in the order of the class list, which is alphabetical in both.
# Source: PASCAL Context (Mottaghi et al., CVPR 2014), as the Detail API and mmsegmentation's converter have them.
_PUBLISHED = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
_LARGEST = 65535
_OTHER_NAMES = {"diningtable": "table", "tv/monitor": "tvmonitor"}


def class_ids(labels: Mapping[str, int]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Ids of the 59 classes: by name where the labels say a name's id, else the published one.

    Args:
        labels: name -> id, as the annotations' own list has them; may be empty.

    Returns:
        the classes in the benchmark's order, and name -> id.
    """
    names = class_list("context").names
    said = _by_class(labels)
    return names, {name: said.get(name, published) for name, published in zip(names, _PUBLISHED, strict=True)}


def ids_by_name(labels: Mapping[str, int], *, source: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Ids of the 59 classes by name alone."""
    names = class_list("context").names
    said = _by_class(labels)
    missing = [name for name in names if name not in said]
    if missing:
        raise PatchwordError(f"{source} lacks {len(missing)} of the {len(names)} classes, such as {missing[0]!r}")
    return names, {name: said[name] for name in names}


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
    """The id of a label, 0 to 65535, which is what masks can hold.

    Raises:
        ValueError: when it is none.
    """
    number = int(value)
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"label id {number} is outside 0 to {_LARGEST}")
    return number


def _by_class(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels by the names that the benchmark has for them: without spaces, in small letters."""
    plain = {name.replace(" ", "").casefold(): value for name, value in labels.items()}
    return {_OTHER_NAMES.get(name, name): value for name, value in plain.items()}


_CLASSES = 59
_LABELS = 459  # of the published annotations, counted from 1; 0 is unlabelled
_CONTEXT_LIST = "ImageSets/SegmentationContext/val.txt"
_MAIN_LIST = "ImageSets/Main/val.txt"
_OTHER_LIST = "pascalcontext_val.txt"


def label_meaning(ids: dict[str, int], names: tuple[str, ...]) -> dict[int, int]:
    """What the 459 labels are: the 59 classes by their ids, and background all the others, unlabelled included."""
    return dict.fromkeys(range(_LABELS + 1), BACKGROUND) | {ids[name]: k for k, name in enumerate(names)}


def _converted(found: Found) -> Content:
    return devkit_content(found, list_name=_CONTEXT_LIST, meaning=counted_from_one(_CLASSES))


def _label_maps(found: Found) -> Content:
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.mat"

    names, ids = class_ids(read_label_file(found["labels"]) if "labels" in found else {})
    meaning = label_meaning(ids, names)
    if "list" in found:
        shown = "/".join(found["list"].parts[-3:])
        return Content(listed_pairs(found["list"], photos=photos, mask_of=mask_of), label_map_values, meaning, shown)
    raise PatchwordError(
        f"{masks} holds training and validation photographs together; needed beside {photos} is {_CONTEXT_LIST} or "
        f"{_MAIN_LIST}, which say which are which"
    )


def _detail(found: Found) -> Content:
    photos, annotations = found["photographs"], found["annotations"]
    masks = DetailMasks.read(annotations)
    there = photographs_in(photos)
    absent = [name for name in masks.names if name not in there]
    if absent:
        raise PatchwordError(
            f"{annotations} has {len(masks.names)} photographs for validation, {len(absent)} of them are not in "
            f"{photos}, such as {absent[0]}"
        )
    pairs = pairs_of({name: there[name] for name in masks.names}, photos=photos, mask_of=lambda name: annotations)
    names, ids = class_ids(masks.categories)
    return Content(pairs, masks.values, label_meaning(ids, names), f"phase val of {annotations.name}")


def _fifty_nine(found: Found) -> Content:
    """The archive 59_context_labels, whose order of classes is that of 59_labels.txt."""
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.png"

    names, ids = ids_by_name(read_label_file(found["labels"]), source=found["labels"])
    meaning = {0: BACKGROUND, 255: IGNORE} | {ids[name]: k for k, name in enumerate(names)}
    if "list" in found:
        shown = "/".join(found["list"].parts[-3:])
        return Content(listed_pairs(found["list"], photos=photos, mask_of=mask_of), mask_values, meaning, shown)
    pairs = pairs_with_masks(photos, mask_of=mask_of)
    return Content(pairs, mask_values, meaning, f"no {_CONTEXT_LIST}: all photographs that have a mask")


def _only_classes(found: Found) -> Content:
    """Masks of the validation photographs alone: 0 to 58, and 255 for all that is none of the 59."""
    photos, masks = found["photographs"], found["masks"]

    def mask_of(name: str) -> Path:
        return masks / f"{name}.png"

    meaning = {255: BACKGROUND} | {position: position for position in range(_CLASSES)}
    pairs = pairs_with_masks(photos, mask_of=mask_of)
    return Content(pairs, mask_values, meaning, "all photographs with a mask in pc59_val")


_PHOTOGRAPHS = Part("photographs", ("JPEGImages",))
_LIST = Part("list", (_CONTEXT_LIST, _MAIN_LIST, _OTHER_LIST), needed=False)
_PLACES = ("", "VOC2010", "VOCdevkit/VOC2010", "VOCtrainval_03-May-2010/VOCdevkit/VOC2010", "pascal_context")

LAYOUTS = (
    Layout(
        "converted masks SegmentationClassContext",
        (
            _PHOTOGRAPHS,
            Part("masks", ("SegmentationClassContext",), holds="*.png"),
            Part("list", (_CONTEXT_LIST,), needed=False),
        ),
        _PLACES,
        _converted,
    ),
    Layout(
        "annotations_detectron2/pc59_val",
        (_PHOTOGRAPHS, Part("masks", ("annotations_detectron2/pc59_val",), holds="*.png")),
        _PLACES,
        _only_classes,
    ),
    Layout(
        "59_context_labels",
        (
            _PHOTOGRAPHS,
            Part("masks", ("59_context_labels",), holds="*.png"),
            Part("labels", ("59_labels.txt", "59_context_labels/59_labels.txt")),
            _LIST,
        ),
        _PLACES,
        _fifty_nine,
    ),
    Layout(
        "trainval_merged.json",
        (_PHOTOGRAPHS, Part("annotations", ("trainval_merged.json", "../trainval_merged.json"))),
        _PLACES,
        _detail,
    ),
    Layout(
        "label maps trainval/*.mat",
        (
            _PHOTOGRAPHS,
            Part("masks", ("trainval", "../trainval", "Context/trainval", "SegmentationContext"), holds="*.mat"),
            Part("labels", ("labels.txt", "../labels.txt", "trainval/labels.txt"), needed=False),
            _LIST,
        ),
        _PLACES,
        _label_maps,
    ),
)
