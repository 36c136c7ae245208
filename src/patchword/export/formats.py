"""The small folder formats: YOLO, FiftyOne, Cityscapes and Hugging Face datasets.

References: docs.ultralytics.com, "Instance Segmentation Datasets Overview"; docs.voxel51.com,
"ImageSegmentationDirectory"; github.com/mcordts/cityscapesScripts, `helpers/labels.py` and the layout of `gtFine`; the
documentation of datasets, "Create an image dataset": `metadata.jsonl` with columns that end in `_file_name`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from patchword.data.folders import write_bytes, write_json
from patchword.errors import PatchwordError
from patchword.export.files import png, text_bytes, write_json_lines, write_json_object
from patchword.export.job import Job, Picture, check_8_bit
from patchword.runs.records import relative_root


def write_yolo(job: Job, out: Path) -> None:
    """Write `labels/<split>/<stem>.txt` and `data.yaml`.

    Polygons run a hair inside their objects: the format's reader cuts coordinates to whole pixels and draws, which
    gives exactly the object. Classes are numbered from 0, as everywhere in this format. Photographs belong to
    `images/<split>` under the same stems; they go there when they are to be copied or linked.
    """
    split = job.settings.split
    chosen = job.stems()
    job.notes.append("pixels without a class count as background, for the format has no ignore")
    job.notes.append("holes are reached over bridges of no width")
    if job.settings.photographs == "leave":
        job.notes.append(f"photographs are left where they are; the reader looks for them in images/{split}")
    write_bytes(out / "data.yaml", text_bytes(_data_file(job)))
    for picture in job.pictures():
        stem = chosen[picture.name]
        write_bytes(out / "labels" / split / f"{stem}.txt", _label_file(job, picture).encode("ascii"))
        job.place(picture, target=out / "images" / split / f"{stem}{picture.suffix}")


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


_IMPORT = '''"""Opens this folder in FiftyOne, with the names of the classes."""

import json
from pathlib import Path

import fiftyone

folder = Path(__file__).resolve().parent
dataset = fiftyone.Dataset.from_dir(
    dataset_dir=str(folder),
    data_path="data.json" if (folder / "data.json").is_file() else "data",
    dataset_type=fiftyone.types.ImageSegmentationDirectory,
    label_field="patchword",
)
targets = json.loads((folder / "mask_targets.json").read_text(encoding="utf-8"))
dataset.mask_targets = {"patchword": {int(value): name for value, name in targets.items()}}
dataset.save()
fiftyone.launch_app(dataset).wait()
'''


def write_fiftyone(job: Job, out: Path) -> None:
    """Write `labels/<stem>.png`, `mask_targets.json`, and `data/` with the photographs or `data.json` with their paths.

    Masks are greyscale, for FiftyOne reads an indexed picture as a coloured one: the id of the class, 0 where there is
    none, 16-bit from 255 classes on. `open_in_fiftyone.py` opens the folder with the names of the classes, and tells of
    `data.json`, which FiftyOne would not look for.
    """
    chosen = job.stems()
    write_json(out / "mask_targets.json", {str(category.id): category.name for category in job.categories})
    write_bytes(out / "open_in_fiftyone.py", text_bytes(_IMPORT))
    if job.settings.photographs == "leave":
        write_json_object(out / "data.json", _paths(job, chosen, out))
    for picture in job.pictures():
        stem = chosen[picture.name]
        write_bytes(out / "labels" / f"{stem}.png", png(picture.ids()))
        job.place(picture, target=out / "data" / f"{stem}{picture.suffix}")


def _paths(job: Job, chosen: dict[str, str], out: Path) -> Iterator[tuple[str, object]]:
    """For each photograph, under the mask's name with its suffix, the path from the folder."""
    for item in job.labels.items:
        name = item.record.name
        key = f"{chosen[name]}{PurePosixPath(name).suffix}"
        yield key, relative_root(item.image, folder=out)


def write_cityscapes(job: Job, out: Path) -> None:
    """Write `gtFine/<split>/<stem>_gtFine_labelTrainIds.png` and `labels.json`, the table of ids, names and colours.

    Photographs go to `leftImg8bit/<split>/<stem>_leftImg8bit<suffix>` when they are to be copied or linked.
    """
    check_8_bit(job.categories, format_name="cityscapes")
    split = job.settings.split
    chosen = job.stems()
    rows = [{"name": each.name, "id": each.id, "trainId": each.index, "color": each.colour} for each in job.categories]
    write_json(out / "labels.json", rows)
    for picture in job.pictures():
        stem = chosen[picture.name]
        data = png(picture.label_map.indices)
        write_bytes(out / "gtFine" / split / f"{stem}_gtFine_labelTrainIds.png", data)
        suffix = picture.suffix
        job.place(picture, target=out / "leftImg8bit" / split / f"{stem}_leftImg8bit{suffix}")


def write_hugging_face(job: Job, out: Path) -> None:
    """Write `<split>/images/<name>`, `<split>/masks/<name>.png`, `<split>/metadata.jsonl` and `id2label.json`.

    Masks are patchword's own: the index of the class, from 0, and 255 (65535 from 255 classes on) where there is none.
    """
    if job.settings.photographs == "leave":
        raise PatchwordError("format hf needs the photographs in its folder; use photographs copy or link")
    write_json(out / "id2label.json", {str(category.index): category.name for category in job.categories})
    write_json_lines(out / job.settings.split / "metadata.jsonl", _lines(job, out / job.settings.split))


def _lines(job: Job, folder: Path) -> Iterator[dict[str, Any]]:
    for picture in job.pictures():
        file_name, mask_name = f"images/{picture.name}", f"masks/{picture.name}.png"
        job.place(picture, target=folder / file_name)
        picture.label_map.save(folder / mask_name)
        yield {"file_name": file_name, "mask_file_name": mask_name, "classes": list(picture.item.record.classes)}
