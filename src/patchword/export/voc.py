"""PASCAL VOC segmentation, and the CVAT format that is made of it.

Both have a mask of classes and a mask of objects for each photograph, a list of photographs, and `labelmap.txt` with a
line `name:red,green,blue::` for each id from 0. In VOC a last line names the colour of 255, without which readers that
go by colours refuse the masks.

References: the VOC2012 development kit; docs.cvat.ai, "Segmentation mask".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from patchword.data.colours import IGNORE_COLOUR
from patchword.errors import PatchwordError
from patchword.export.coco import object_numbers
from patchword.export.files import FolderSink, Sink, png, text_bytes, zip_sink
from patchword.export.instances import Piece
from patchword.export.job import UNLABELLED_COLOUR, Category, Job, Picture, check_8_bit, check_line, free_name

VOID = 255
_MOST_OBJECTS = 254


def write_voc(job: Job, out: Path) -> None:
    """Write a folder like VOC2012.

    `SegmentationClass/<stem>.png` is indexed: id of the class, 255 where there is none, with the palette of patchword
    and not that of VOC, so that colours are the same in all formats. `SegmentationObject` has the objects' numbers, 255
    where there is no class, 0 under slivers. Photographs stay where they are unless they are to be copied or linked to
    `JPEGImages`.
    """
    check_8_bit(job.categories, format_name="voc")
    sink = FolderSink(out)
    chosen = _begin(job, sink, format_name="voc", list_name=job.settings.split, void=True)
    colours, shades = _class_colours(job.categories), _object_colours()
    for picture in job.pictures():
        stem = chosen[picture.name]
        unlabelled = picture.label_map.indices == picture.label_map.ignore
        classes = picture.ids().astype(np.uint8)
        objects = _object_map(job, picture)
        classes[unlabelled] = objects[unlabelled] = VOID
        sink.write(f"SegmentationClass/{stem}.png", png(classes, colours=colours))
        sink.write(f"SegmentationObject/{stem}.png", png(objects, colours=shades))
        job.place(picture, target=out / "JPEGImages" / f"{stem}{PurePosixPath(picture.name).suffix}")


def write_cvat(job: Job, out: Path) -> None:
    """Write CVAT's Segmentation mask 1.1, as a folder or, to a name that ends in .zip, as the archive that CVAT reads.

    Masks are coloured pictures. Pixels without a class are black, which CVAT takes as not annotated; slivers are black
    in the mask of objects alone, so that CVAT makes no shapes of them.
    """
    check_8_bit(job.categories, format_name="cvat")
    if job.settings.photographs in ("copy", "link"):
        raise PatchwordError("format cvat has no place for photographs; leave them, and add them to the task in CVAT")
    if out.suffix.casefold() == ".zip":
        with zip_sink(out) as sink:
            _write_cvat(job, sink)
    else:
        _write_cvat(job, FolderSink(out))


def _write_cvat(job: Job, sink: Sink) -> None:
    chosen = _begin(job, sink, format_name="cvat", list_name="default", void=False)
    colours, shades = _class_colours(job.categories), _object_colours()
    for picture in job.pictures():
        stem = chosen[picture.name]
        sink.write(f"SegmentationClass/{stem}.png", png(colours[picture.ids()]))
        sink.write(f"SegmentationObject/{stem}.png", png(shades[_object_map(job, picture)]))


def _begin(job: Job, sink: Sink, *, format_name: str, list_name: str, void: bool) -> dict[str, str]:
    """Write the table and the list.

    Returns:
        the name without suffix of each photograph.
    """
    chosen = job.stems()
    job.note_renamed(chosen)
    lines = [check_line(stem, format_name=format_name) for stem in chosen.values()]
    sink.write("labelmap.txt", text_bytes(_label_map(job.categories, format_name=format_name, void=void)))
    sink.write(f"ImageSets/Segmentation/{list_name}.txt", text_bytes("".join(f"{line}\n" for line in lines)))
    return chosen


def _label_map(categories: tuple[Category, ...], *, format_name: str, void: bool) -> str:
    for category in categories:
        if ":" in category.name:
            raise PatchwordError(
                f"class name {category.name!r} has ':', which labelmap.txt of format {format_name} cannot hold"
            )
    rows = [(free_name("background", "unlabelled", categories), UNLABELLED_COLOUR)]
    rows += [(category.name, category.colour) for category in categories]
    if void:
        rows.append((free_name("ignored", "void", categories), IGNORE_COLOUR))
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{','.join(map(str, colour))}::" for name, colour in rows)]
    return "\n".join(lines) + "\n"


def _object_map(job: Job, picture: Picture) -> NDArray[np.uint8]:
    """(h, w), numbers of objects; the format counts to 254, so the smallest join the largest of their class."""
    pieces = job.objects(picture)
    numbers = _joined(pieces)
    job.segments += len(set(numbers))
    if len(pieces) > _MOST_OBJECTS:
        job.notes.append(
            f"{picture.name} has {len(pieces)} objects, of which the format tells {_MOST_OBJECTS} apart; "
            "the smallest share a number with the largest of their class"
        )
    table = np.array([0, *numbers], dtype=np.uint8)
    shown: NDArray[np.uint8] = table[object_numbers(picture.size, pieces)]
    return shown


def _joined(pieces: tuple[Piece, ...]) -> list[int]:
    """A number from 1 to 254 for each object."""
    by_area = sorted(range(len(pieces)), key=lambda each: -pieces[each].area)
    largest: dict[int, int] = {}
    for position in by_area:
        largest.setdefault(pieces[position].class_index, position)
    heads = [*largest.values(), *(position for position in by_area if position not in set(largest.values()))]
    own = sorted(heads[:_MOST_OBJECTS])
    number = {position: count for count, position in enumerate(own, start=1)}
    return [
        number[position] if position in number else number[largest[piece.class_index]]
        for position, piece in enumerate(pieces)
    ]


def _class_colours(categories: Iterable[Category]) -> NDArray[np.uint8]:
    """(256, 3) by id."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for category in categories:
        colours[category.id] = category.colour
    colours[VOID] = IGNORE_COLOUR
    return colours


def _object_colours() -> NDArray[np.uint8]:
    """(256, 3) by number: VOC's own colours, by which CVAT tells objects apart."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours
