"""Reads what Label Studio exports as JSON: tasks with brush and polygon regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from patchword.errors import PatchwordError
from patchword.export.brush import decode_brush
from patchword.export.label_studio import IMAGE
from patchword.export.painting import Correction, Painted, Photographs, Region, check_size
from patchword.export.polygons import filled
from patchword.export.read_coco import read_json
from patchword.vocabulary import Vocabulary

_KINDS = ("brushlabels", "polygonlabels")


def read_label_studio(source: Path, *, photographs: Photographs, vocabulary: Vocabulary) -> list[Correction]:
    """The tasks of a file that were annotated, or that have predictions which nobody has corrected.

    Of several annotations the one that was changed last counts; cancelled ones do not. Where regions overlap, the later
    is on top. A photograph is found by the task's `name`, else by the path in its `image`.

    Args:
        source: the file, or the folder of an export, whose `tasks.json` it is.

    Raises:
        PatchwordError: when the file holds no tasks, a region is of a kind that has no mask, a label is no class of the
            vocabulary, or a photograph is not there.
    """
    source = source / "tasks.json" if source.is_dir() else source
    tasks = read_json(source)
    if not isinstance(tasks, list):
        raise PatchwordError(f"{source} holds no list of tasks; export them from Label Studio as JSON")
    corrections = []
    for number, task in enumerate(tasks, start=1):
        place = f"{source}: task {number}"
        try:
            result = _result(task)
            if result is not None:
                regions = [region for region in result if _is_region(region, place)]
                classes = [_class_of(region, vocabulary) for region in regions]
                name = photographs.named(_photograph(task["data"]), place=place)
                corrections.append(Correction(name, partial(_painted, regions, classes, place)))
        except PatchwordError as error:
            raise error if str(error).startswith(place) else PatchwordError(f"{place}: {error}") from None
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise PatchwordError(f"{place} is not what Label Studio exports: {type(error).__name__} {error}") from None
    return corrections


def _result(task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The regions that count; none when nobody and nothing has said anything."""
    annotations = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    if annotations:
        latest = max(range(len(annotations)), key=lambda each: (str(annotations[each].get("updated_at") or ""), each))
        chosen: Sequence[Mapping[str, Any]] = annotations[latest]["result"]
        return chosen
    predictions = task.get("predictions") or ()
    return predictions[-1]["result"] if predictions else None


def _is_region(region: Mapping[str, Any], place: str) -> bool:
    kind = str(region["type"])
    if kind in _KINDS:
        return True
    if kind.endswith("labels"):
        raise PatchwordError(f"{place} has a region of type {kind!r}; allowed are {', '.join(_KINDS)}")
    return False  # a choice or a remark about the whole photograph


def _class_of(region: Mapping[str, Any], vocabulary: Vocabulary) -> int:
    return vocabulary.index(str(region["value"][region["type"]][0]))


def _photograph(data: Mapping[str, Any]) -> str:
    if "name" in data:
        return str(data["name"])
    address = urlsplit(str(data[IMAGE]))
    local = parse_qs(address.query).get("d")
    return (local[0] if local else unquote(address.path)).lstrip("/")


def _painted(
    regions: Sequence[Mapping[str, Any]], classes: Sequence[int], place: str, size: tuple[int, int]
) -> Painted:
    pairs = zip(regions, classes, strict=True)
    return Painted.of((Region(index, _mask(region, size, place)) for region, index in pairs), size=size)


def _mask(region: Mapping[str, Any], size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    try:
        if region.get("image_rotation"):
            raise PatchwordError(f"{place} is turned by {region['image_rotation']} degrees; turn it back")
        found = int(region["original_height"]), int(region["original_width"])
        check_size(found, needed=size, place=place)
        value = region["value"]
        if region["type"] == "brushlabels":
            return decode_brush(value["rle"], size=size, place=place)
        points = np.array(value["points"], dtype=np.float64).reshape(-1, 2) * (size[1] / 100, size[0] / 100)
    except PatchwordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PatchwordError(f"{place} has a damaged region: {type(error).__name__} {error}") from None
    if len(points) < 3:
        raise PatchwordError(f"{place} has a polygon of {len(points)} points; allowed are 3 or more")
    return filled(points, size=size)
