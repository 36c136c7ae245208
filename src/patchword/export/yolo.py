"""YOLO segmentation: for each photograph a text file with one polygon a line, in shares of the width and height.

Reference: docs.ultralytics.com, "Instance Segmentation Datasets Overview".
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from patchword.data.folders import write_bytes
from patchword.export.files import text_bytes
from patchword.export.job import Job, Picture


def write_yolo(job: Job, out: Path) -> None:
    """Write `labels/<split>/<stem>.txt` and `data.yaml`.

    Polygons run a hair inside their objects: the format's reader cuts coordinates to whole pixels and draws, which
    gives exactly the object. Classes are numbered from 0, as everywhere in this format. Photographs belong to
    `images/<split>` under the same stems; they go there when they are to be copied or linked.
    """
    split = job.settings.split
    chosen = job.stems()
    job.note_renamed(chosen)
    job.notes.append("pixels without a class count as background, for the format has no ignore")
    job.notes.append("holes are reached over bridges of no width")
    if job.settings.photographs == "leave":
        job.notes.append(f"photographs are left where they are; the reader looks for them in images/{split}")
    write_bytes(out / "data.yaml", text_bytes(_data_file(job)))
    for picture in job.pictures():
        stem = chosen[picture.name]
        write_bytes(out / "labels" / split / f"{stem}.txt", _label_file(job, picture).encode("ascii"))
        job.place(picture, target=out / "images" / split / f"{stem}{PurePosixPath(picture.name).suffix}")


def _label_file(job: Job, picture: Picture) -> str:
    height, width = picture.size
    lines = []
    for piece in job.objects(picture):
        points = job.loss.polygon(piece, name=picture.name, tolerance=job.settings.tolerance, drawn=True)
        shares = (points / (width, height)).ravel().tolist()
        lines.append(f"{piece.class_index} {' '.join(f'{share:.7g}' for share in shares)}\n")
    job.segments += len(lines)
    return "".join(lines)


def _data_file(job: Job) -> str:
    """YAML, in which a JSON string is a string; without `path`, paths are relative to the file."""
    split = job.settings.split
    lines = [f"train: images/{split}", f"val: images/{split}", "names:"]
    lines += [f"  {category.index}: {json.dumps(category.name, ensure_ascii=False)}" for category in job.categories]
    return "\n".join(lines) + "\n"
