"""Label Studio: tasks with what patchword found as predictions, which a person accepts and corrects; and the way back.

Read are the brush, polygon and ellipse regions of what it exports as JSON or JSON-MIN.

References: labelstud.io/guide/predictions (brush and polygon regions), labelstud.io/tags.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from patchword.config.exchange import ImportSettings
from patchword.data.coco_masks import filled_safely, polygon_points
from patchword.data.folders import write_bytes
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, SizeError, UnusableError
from patchword.export.brush import decode_brush, encode_brush
from patchword.export.files import text_bytes, write_json_array
from patchword.export.instances import Piece
from patchword.export.job import Job, Picture
from patchword.export.rasterize import Correction, Findings, Painted, Photographs, Region, check_size, read_json

BRUSH, POLYGON, IMAGE = "brush", "polygon", "image"


def write_label_studio(job: Job, out: Path) -> None:
    """Write `tasks.json` and `label_config.xml`, the labelling interface that the tasks are for.

    A task's `image` is the settings' prefix and the photograph's name, quoted as in an address; `name` is the name as
    it is, by which corrections find their photograph again.
    """
    if job.settings.shapes == "polygons":
        job.notes.append("holes are reached over bridges of no width, which stay visible as a line in the editor")
    job.notes.append("pixels without a class are those that no region covers")
    write_bytes(out / "label_config.xml", text_bytes(_interface(job)))
    write_json_array(out / "tasks.json", _tasks(job))


def _tasks(job: Job) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        regions = [_region(job, picture, piece, number) for number, piece in enumerate(job.objects(picture), start=1)]
        job.segments += len(regions)
        address = job.settings.image_prefix + quote(text_bytes(picture.name))
        yield {
            "data": {"image": address, "name": picture.name},
            "predictions": [{"model_version": "patchword", "result": regions}],
        }


def _region(job: Job, picture: Picture, piece: Piece, number: int) -> dict[str, Any]:
    name = job.categories[piece.class_index].name
    if job.settings.shapes == "masks":
        tag, shape = BRUSH, brush_value(piece.mask())
    else:
        points = job.loss.polygon(piece, name=picture.name, tolerance=job.settings.tolerance)
        tag, shape = POLYGON, polygon_value(points, size=picture.size)
    return region_of(
        shape, label=name, key=f"{picture.number}-{number}", tags=(tag, IMAGE), size=picture.size, score=piece.score
    )


def brush_value(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """What a brush region holds beside its label: a mask (h, w)."""
    return {"format": "rle", "rle": encode_brush(mask)}


def polygon_value(points: NDArray[np.float64], *, size: tuple[int, int]) -> dict[str, Any]:
    """What a polygon region holds beside its label: points (n, 2) x, y in pixels, which it has in percent."""
    return {"points": (points * (100 / size[1], 100 / size[0])).tolist(), "closed": True}


def region_of(
    shape: Mapping[str, Any],
    *,
    label: str,
    key: str,
    tags: tuple[str, str],
    size: tuple[int, int],
    score: float | None,
) -> dict[str, Any]:
    """A region as Label Studio has it in predictions.

    Args:
        shape: `brush_value` or `polygon_value`.
        key: its id among those of its picture.
        tags: names of the control and of the picture in the labelling interface.
        size: (height, width) of the picture in pixels.
    """
    kind = "brushlabels" if "rle" in shape else "polygonlabels"
    region = {
        "id": key,
        "type": kind,
        "from_name": tags[0],
        "to_name": tags[1],
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {**shape, kind: [label]},
    }
    return region if score is None else region | {"score": score}


def _interface(job: Job) -> str:
    labels = [
        f"    <Label value={quoteattr(category.name)} background={quoteattr(category.hexadecimal)}/>"
        for category in job.categories
    ]
    lines = ["<View>", f'  <Image name="{IMAGE}" value="$image" zoom="true"/>']
    for tag, name in (("BrushLabels", BRUSH), ("PolygonLabels", POLYGON)):
        lines += [f'  <{tag} name="{name}" toName="{IMAGE}">', *labels, f"  </{tag}>"]
    return "\n".join([*lines, "</View>"]) + "\n"


_LABELS = "labels"  # ends the type of a region that carries them, such as brushlabels
_BARE = frozenset({"brush", "polygon", "ellipse", "rectangle", "keypoint", "vector", "bitmask"})
_UNLABELLED, _SEVERAL = "object without a label", "object with several labels"
_DAMAGED, _OPEN = "object whose outline is damaged", "object whose outline is not closed"
_TURNED = "object drawn on a picture that was turned in Label Studio"
_HOST = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_LOCAL_FILE = re.compile(r"[?&]d=")  # before the path of a file that Label Studio serves from its own disk


@dataclass(frozen=True)
class _Shape:
    """A region: the parts of a result that have one id, which together hold its outline and its labels."""

    kind: str
    result: Mapping[str, Any]
    classes: frozenset[int]


def read_label_studio(
    source: Path, *, photographs: Photographs, vocabulary: Vocabulary, settings: ImportSettings
) -> Findings:
    """The tasks of a file that were annotated, or that have predictions which nobody has corrected.

    Of several annotations the one that was changed last counts; cancelled ones do not. Where regions overlap, the later
    is on top. A photograph is found by the field of the setting `image_field`; without it by the task's `name`, else by
    the path in its `image`, else by the only field that names a photograph.
    """
    source = source / "tasks.json" if source.is_dir() else source
    tasks = read_json(source)
    if not isinstance(tasks, list):
        raise PatchwordError(f"{source} holds no list of tasks; export them from Label Studio as JSON")
    findings = Findings()
    for number, task in _latest(tasks):
        place = f"{source}: task {number}"
        try:
            result = _result(task)
            if result is None:
                continue
            shapes = _shapes(result, vocabulary)
            name, missing = _photograph(task.get("data", task), photographs, settings, place)
        except PatchwordError as error:
            raise PatchwordError(f"{place}: {error}") from None
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            reason = f"{place} is not what Label Studio exports: {type(error).__name__} {error}"
            findings.failed[f"task {number}"] = reason
            continue
        if missing is not None:
            findings.failed[name] = missing
        else:
            findings.corrections.append(Correction(name, partial(_painted, shapes, place)))
    return findings


def _latest(tasks: Sequence[Any]) -> list[tuple[int, Any]]:
    """Tasks and their numbers. JSON-MIN has an item for each annotation: of a task's the one that was changed last."""
    chosen: dict[Any, tuple[int, Any]] = {}
    for number, task in enumerate(tasks, start=1):
        flat = isinstance(task, Mapping) and "data" not in task and "annotation_id" in task
        key = ("task", str(task.get("id"))) if flat else number
        if key not in chosen or _changed(task) >= _changed(chosen[key][1]):
            chosen[key] = number, task
    return list(chosen.values())


def _changed(annotation: Mapping[str, Any]) -> datetime:
    try:
        when = datetime.fromisoformat(str(annotation.get("updated_at")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _result(task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The regions that count; none when nobody and nothing has said anything."""
    if "data" not in task and "annotations" not in task:
        return _of_json_min(task)
    annotations = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    if annotations:
        latest = max(range(len(annotations)), key=lambda each: (_changed(annotations[each]), each))
        chosen: Sequence[Mapping[str, Any]] = annotations[latest]["result"]
        return chosen
    predictions = task.get("predictions") or ()
    return predictions[-1]["result"] if predictions else None


def _of_json_min(task: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The regions of a JSON-MIN item, in the form of JSON: their values lie in lists, each by its control's name."""
    values = (each for some in task.values() if isinstance(some, list) for each in some if isinstance(each, Mapping))
    regions: list[Mapping[str, Any]] = []
    for value in values:
        kind = next((key for key in value if key.endswith(_LABELS)), None) or _kind(value)
        if kind:
            regions.append({**value, "type": kind, "value": value, "id": None})
    return regions if regions or "annotation_id" in task else None


def _kind(value: Mapping[str, Any]) -> str:
    """What an outline is, by the fields that it has; "" for what is none."""
    signs = {"rle": "brush", "points": "polygon", "radiusX": "ellipse", "width": "rectangle", "vertices": "vector"}
    return next((kind for sign, kind in signs.items() if sign in value), "")


def _shapes(result: Iterable[Mapping[str, Any]], vocabulary: Vocabulary) -> list[_Shape]:
    """The regions in their order; choices and remarks are none."""
    by_id: dict[Any, list[Mapping[str, Any]]] = {}
    for position, part in enumerate(result):
        if str(part.get("type")).endswith(_LABELS) or part.get("type") in _BARE:
            by_id.setdefault(position if part.get("id") is None else str(part["id"]), []).append(part)
    return [_shape(parts, vocabulary) for parts in by_id.values()]


def _shape(parts: Sequence[Mapping[str, Any]], vocabulary: Vocabulary) -> _Shape:
    given = [_value(part).get(part["type"]) for part in parts if part["type"].endswith(_LABELS)]
    labels = [label for some in given for label in (some if isinstance(some, list) else [some])]
    outlined = next((part for part in parts if _kind(_value(part))), parts[0])
    kind = outlined["type"].removesuffix(_LABELS) or _kind(_value(outlined))
    known = [str(label) for label in labels if label is not None and str(label).strip()]
    return _Shape(kind, outlined, frozenset(map(vocabulary.index, known)))


def _value(part: Mapping[str, Any]) -> Mapping[str, Any]:
    value = part.get("value")
    return value if isinstance(value, Mapping) else {}


def _photograph(
    data: Mapping[str, Any], photographs: Photographs, settings: ImportSettings, place: str
) -> tuple[str, str | None]:
    """A task's photograph; where it is not known, what the task calls it and the reason."""
    texts = {field: value for field, value in data.items() if isinstance(value, str) and value}
    wanted = [settings.image_field] if settings.image_field else [each for each in ("name", IMAGE) if each in texts]
    fields = wanted or list(texts)
    found: dict[str, str] = {}
    told: tuple[str, str] | None = None
    for field in fields:
        if field not in texts:
            return place.rpartition(": ")[2], f"{place} has no field {field!r}; it has {', '.join(texts) or 'none'}"
        read = readings(texts[field])
        try:
            found[photographs.named(*read, place=place)] = field
        except PatchwordError as error:
            told = read[0], str(error)
        if found and wanted:
            break
    if len(found) == 1:
        return next(iter(found)), None
    if wanted and told:
        return told
    which = f"its fields {', '.join(found.values())} name one each" if found else "no field of it names one"
    reason = f"{place} does not say which photograph it is of: {which}; name the field by --set image_field=NAME"
    return place.rpartition(": ")[2], reason


def readings(address: str) -> list[str]:
    """What a path or address may name: as addresses are read, then with "+", "#" and "?" as parts of a name."""
    literal = _LOCAL_FILE.split(_HOST.sub("", address), maxsplit=1)[-1]
    try:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d")
        standard = local[0] if local else unquote(parts.path)
    except ValueError:  # a host in brackets that is none
        standard = ""
    found = [each.lstrip("/") for each in (standard, unquote(literal), literal)]
    return list(dict.fromkeys(each for each in found if each)) or [address]


def _painted(shapes: Sequence[_Shape], place: str, size: tuple[int, int]) -> Painted:
    left_out: Counter[str] = Counter()
    regions = []
    for shape in shapes:
        try:
            if len(shape.classes) != 1:
                raise UnusableError(_SEVERAL if shape.classes else _UNLABELLED)
            regions.append(Region(next(iter(shape.classes)), _mask(shape, size, place)))
        except UnusableError as error:
            left_out[str(error)] += 1
    return Painted.of(regions, size=size, left_out=left_out)


def _mask(shape: _Shape, size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    """The pixels of a region."""
    region, value = shape.result, _value(shape.result)
    try:
        if region.get("image_rotation"):
            raise UnusableError(_TURNED)
        if shape.kind not in ("brush", "polygon", "ellipse"):
            raise UnusableError(f"object drawn as {shape.kind}, which is not a mask")
        if region.get("original_height") is not None:
            found = int(region["original_height"]), int(region["original_width"])
            check_size(found, needed=size, place=place)
        if shape.kind == "ellipse":
            return _ellipse(value, size)
        if shape.kind == "polygon":
            if value.get("closed") is False:
                raise UnusableError(_OPEN)
            points = polygon_points(value["points"]) * (size[1] / 100, size[0] / 100)
            return filled_safely(points, size=size)
        return decode_brush(value["rle"], size=size, place=place)
    except (UnusableError, SizeError):
        raise
    except (KeyError, OverflowError, TypeError, ValueError):  # decode_brush's own among them
        raise UnusableError(_DAMAGED) from None


def _ellipse(value: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centre is inside; numbers in percent of the sides, turned clockwise about the centre."""
    height, width = size
    x, radius_x = (float(value[each]) * width / 100 for each in ("x", "radiusX"))
    y, radius_y = (float(value[each]) * height / 100 for each in ("y", "radiusY"))
    angle = np.deg2rad(float(value.get("rotation") or 0))
    if not np.isfinite([x, y, angle, radius_x, radius_y]).all() or min(radius_x, radius_y) <= 0:
        raise ValueError("an ellipse has a place and two radii above 0")
    right, down = np.arange(width) + 0.5 - x, (np.arange(height) + 0.5 - y)[:, None]
    along = (right * np.cos(angle) + down * np.sin(angle)) / radius_x
    across = (down * np.cos(angle) - right * np.sin(angle)) / radius_y
    inside: NDArray[np.bool_] = along**2 + across**2 <= 1
    return inside
