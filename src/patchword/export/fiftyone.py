"""FiftyOne: an `ImageSegmentationDirectory`, masks of ids beside photographs or a list of where they are.

Reference: docs.voxel51.com, "Importing data", ImageSegmentationDirectory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from patchword.data.folders import write_bytes, write_json
from patchword.export.files import png, text_bytes, write_json_object
from patchword.export.job import Job
from patchword.runs.records import relative_root

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
    job.note_renamed(chosen)
    write_json(out / "mask_targets.json", {str(category.id): category.name for category in job.categories})
    write_bytes(out / "open_in_fiftyone.py", text_bytes(_IMPORT))
    if job.settings.photographs == "leave":
        write_json_object(out / "data.json", _paths(job, chosen, out))
    for picture in job.pictures():
        stem = chosen[picture.name]
        write_bytes(out / "labels" / f"{stem}.png", png(picture.ids()))
        job.place(picture, target=out / "data" / f"{stem}{PurePosixPath(picture.name).suffix}")


def _paths(job: Job, chosen: dict[str, str], out: Path) -> Iterator[tuple[str, object]]:
    """For each photograph, under the mask's name with its suffix, the path from the folder."""
    for item in job.labels.items:
        name = item.record.name
        key = f"{chosen[name]}{PurePosixPath(name).suffix}"
        yield key, relative_root(item.image, folder=out)
