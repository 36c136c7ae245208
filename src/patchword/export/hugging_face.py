"""A folder that the library `datasets` loads as "imagefolder": photographs, masks, and a line for each pair.

Reference: the documentation of datasets, "Create an image dataset": `metadata.jsonl` with columns that end in
`_file_name`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchword.data.folders import write_json
from patchword.errors import PatchwordError
from patchword.export.files import write_json_lines
from patchword.export.job import Job


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
