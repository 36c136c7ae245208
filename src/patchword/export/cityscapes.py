"""Masks in the manner of Cityscapes: greyscale train ids, 255 where there is none.

Reference: github.com/mcordts/cityscapesScripts, `helpers/labels.py` and the layout of `gtFine`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from patchword.data.folders import write_bytes, write_json
from patchword.export.categories import check_8_bit
from patchword.export.files import png
from patchword.export.job import Job


def write_cityscapes(job: Job, out: Path) -> None:
    """Write `gtFine/<split>/<stem>_gtFine_labelTrainIds.png` and `labels.json`, the table of ids, names and colours.

    Photographs go to `leftImg8bit/<split>/<stem>_leftImg8bit<suffix>` when they are to be copied or linked.
    """
    check_8_bit(job.categories, format_name="cityscapes")
    split = job.settings.split
    chosen = job.stems()
    job.note_renamed(chosen)
    rows = [{"name": each.name, "id": each.id, "trainId": each.index, "color": each.colour} for each in job.categories]
    write_json(out / "labels.json", rows)
    for picture in job.pictures():
        stem = chosen[picture.name]
        data = png(picture.label_map.indices)
        write_bytes(out / "gtFine" / split / f"{stem}_gtFine_labelTrainIds.png", data)
        suffix = PurePosixPath(picture.name).suffix
        job.place(picture, target=out / "leftImg8bit" / split / f"{stem}_leftImg8bit{suffix}")
