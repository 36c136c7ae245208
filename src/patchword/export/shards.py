"""Tar shards in the layout of WebDataset: of each photograph its file, its label map and its segments, under one key.

Reference: github.com/webdataset/webdataset, "The WebDataset Format": files of a sample stand together, and its key is
their common path up to the first dot of the name.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from patchword.data.folders import json_text, write_json
from patchword.errors import PatchwordError
from patchword.export.files import opened_photograph, png, whole_file
from patchword.export.job import Job, Picture, stems

_BLOCK = 512  # bytes; a file in a tar file has a head of as many and is filled up to a multiple


def write_webdataset(job: Job, out: Path) -> None:
    """Write `<split>-000000.tar` and so on, and `id2label.json`.

    A sample is `<key>.jpg`, the file of the photograph with its own suffix, `<key>.mask.png`, grey, patchword's own
    values, and `<key>.json` with the photograph's name, its classes and its segments.
    """
    if job.settings.photographs != "copy":
        raise PatchwordError("format webdataset needs the photographs in its shards; use photographs copy")
    write_json(out / "id2label.json", {str(category.index): category.name for category in job.categories})
    keys = sample_keys(item.record.name for item in job.labels.items)
    most = job.settings.shard_megabytes * 1e6
    count, images, size = 0, 0, 0
    with ExitStack() as shard:
        for picture in job.pictures():
            sample = list(_sample(picture, key=keys[picture.name]))
            needed = sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for _, data in sample)
            if not count or images == job.settings.shard_images or size + needed > most:
                shard.close()
                file = shard.enter_context(whole_file(out / f"{job.settings.split}-{count:06}.tar"))
                tar = shard.enter_context(tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT))
                count, images, size = count + 1, 0, 0
            for name, data in sample:
                member = tarfile.TarInfo(name)  # without a time or an owner: the same bytes every time
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            images, size = images + 1, size + needed
    if count:
        last = f"{{000000..{count - 1:06}}}" if count > 1 else "000000"
        job.notes.append(f"webdataset reads it, in this folder, as {job.settings.split}-{last}.tar")


def _sample(picture: Picture, *, key: str) -> Iterator[tuple[str, bytes]]:
    record = picture.item.record
    with opened_photograph(picture.item.image) as photograph:
        yield f"{key}{picture.suffix.lower() or '.img'}", photograph.read()
    yield f"{key}.mask.png", png(picture.label_map.indices)
    told = {
        "name": record.name,
        "size": list(picture.size),
        "classes": list(record.classes),
        "segments": [segment.to_json() for segment in picture.item.segments()],
    }
    yield f"{key}.json", json_text(told).encode()


def sample_keys(names: Iterable[str]) -> dict[str, str]:
    """For each photograph the key of its sample, in which no dot may be: its name without suffix, dots as underscores.

    Where two would be the same, the suffix stays, and then a number comes behind.
    """
    chosen = stems(names)
    taken: set[str] = set()
    for name, stem in chosen.items():
        folder, slash, last = stem.rpartition("/")
        key = plain = f"{folder}{slash}{last.replace('.', '_')}"
        number = 1
        while key.casefold() in taken:
            number += 1
            key = f"{plain}_{number}"
        taken.add(key.casefold())
        chosen[name] = key
    return chosen
