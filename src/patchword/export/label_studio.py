"""Label Studio: tasks with what patchword found as predictions, which a person accepts and corrects.

References: labelstud.io/guide/predictions (brush and polygon regions), labelstud.io/tags.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from patchword.data.folders import write_bytes
from patchword.export.files import text_bytes, write_json_array
from patchword.export.instances import Piece
from patchword.export.job import Job, Picture
from patchword.export.label_studio_rle import brush_value

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
    height, width = picture.size
    name = job.categories[piece.class_index].name
    if job.settings.shapes == "masks":
        tag, kind, value = BRUSH, "brushlabels", brush_value(piece.mask(), name=name)
    else:
        points = job.loss.polygon(piece, name=picture.name, tolerance=job.settings.tolerance)
        percent = (points * (100 / width, 100 / height)).tolist()
        tag, kind, value = POLYGON, "polygonlabels", {"points": percent, "closed": True, "polygonlabels": [name]}
    region = {
        "id": f"{picture.number}-{number}",
        "type": kind,
        "from_name": tag,
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return region if piece.score is None else region | {"score": piece.score}


def _interface(job: Job) -> str:
    labels = [
        f"    <Label value={quoteattr(category.name)} background={quoteattr(category.hexadecimal)}/>"
        for category in job.categories
    ]
    lines = ["<View>", f'  <Image name="{IMAGE}" value="$image" zoom="true"/>']
    for tag, name in (("BrushLabels", BRUSH), ("PolygonLabels", POLYGON)):
        lines += [f'  <{tag} name="{name}" toName="{IMAGE}">', *labels, f"  </{tag}>"]
    return "\n".join([*lines, "</View>"]) + "\n"
