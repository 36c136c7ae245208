"""PASCAL VOC segmentation, and the CVAT format that is made of it.

Both have a mask of classes and a mask of objects for each photograph, a list of photographs, and `labelmap.txt` with a
line `name:red,green,blue::` for each id from 0. In VOC a last line names the colour of 255, without which readers that
go by colours refuse the masks.

References: the VOC2012 development kit; docs.cvat.ai, "Segmentation mask".
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.config.exchange import ImportSettings
from patchword.data.colours import IGNORE_COLOUR
from patchword.data.components import NOTHING, connected_components
from patchword.data.image_extras import SILENCE
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.files import Sink, folder_sink, png, text_bytes, zip_sink
from patchword.export.instances import Piece, object_numbers
from patchword.export.job import UNLABELLED_COLOUR, Category, Job, Picture, check_8_bit, check_line, free_name
from patchword.export.rasterize import Correction, Findings, Painted, Photographs, Region, check_size

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
    sink = folder_sink(out)
    chosen = _begin(job, sink, format_name="voc", list_name=job.settings.split, void=True)
    colours, shades = _class_colours(job.categories), _object_colours()
    for picture in job.pictures():
        stem = chosen[picture.name]
        unlabelled = picture.label_map.indices == picture.label_map.ignore
        classes = picture.ids().astype(np.uint8)
        objects = _object_map(job, picture)
        classes[unlabelled] = objects[unlabelled] = VOID
        sink(f"SegmentationClass/{stem}.png", png(classes, colours=colours))
        sink(f"SegmentationObject/{stem}.png", png(objects, colours=shades))
        job.place(picture, target=out / "JPEGImages" / f"{stem}{picture.suffix}")


def write_cvat(job: Job, out: Path) -> None:
    """Write CVAT's Segmentation mask 1.1, as a folder or, to a name that ends in .zip, as the archive that CVAT reads.

    Masks are coloured pictures. Pixels without a class are black, which CVAT takes as not annotated; slivers are black
    in the mask of objects alone, so that CVAT makes no shapes of them.
    """
    check_8_bit(job.categories, format_name="cvat")
    if job.settings.photographs in ("copy", "link"):
        raise PatchwordError("format cvat has no place for photographs; leave them, and add them to the task in CVAT")
    with zip_sink(out) if out.suffix.casefold() == ".zip" else nullcontext(folder_sink(out)) as sink:
        chosen = _begin(job, sink, format_name="cvat", list_name="default", void=False)
        colours, shades = _class_colours(job.categories), _object_colours()
        for picture in job.pictures():
            stem = chosen[picture.name]
            sink(f"SegmentationClass/{stem}.png", png(colours[picture.ids()]))
            sink(f"SegmentationObject/{stem}.png", png(shades[_object_map(job, picture)]))


def _begin(job: Job, sink: Sink, *, format_name: str, list_name: str, void: bool) -> dict[str, str]:
    """Write the table and the list."""
    chosen = job.stems()
    lines = [check_line(stem, format_name=format_name) for stem in chosen.values()]
    sink("labelmap.txt", text_bytes(_label_map(job.categories, format_name=format_name, void=void)))
    sink(f"ImageSets/Segmentation/{list_name}.txt", text_bytes("".join(f"{line}\n" for line in lines)))
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


_CLASSES, _OBJECTS = "SegmentationClass/", "SegmentationObject/"
_LISTS, _TABLE = "ImageSets/Segmentation/", "labelmap.txt"
_NOT_LISTED = "mask that no list in ImageSets/Segmentation names"
_BLACK = (0, 0, 0)
_MOST_BYTES = 1 << 30  # of one file in an archive
_Files = Mapping[str, Callable[[], bytes]]  # path in the folder or archive -> reads it


@dataclass(frozen=True)
class _Table:
    """What values and colours of a mask mean; `NOTHING` for no class."""

    by_value: Mapping[int, int]
    by_colour: Mapping[tuple[int, int, int], int]


def read_voc(source: Path, *, photographs: Photographs, vocabulary: Vocabulary, settings: ImportSettings) -> Findings:
    """The photographs of a folder, or a .zip of one, with `SegmentationClass`, `labelmap.txt` and perhaps lists.

    Classes are matched by name. Black that the table calls background is no class, unless the vocabulary has a class of
    that name and no other row of the table is it. 255 is no class. With the setting `values=positions` there is no
    table, and value v is the v-th class of the vocabulary.
    """
    files = _files_of(source)
    pictures = [name for name in sorted(files) if name.startswith(_CLASSES) and name.casefold().endswith(".png")]
    masks = {name[len(_CLASSES) : -len(".png")]: name for name in pictures}
    if len(masks) < len(pictures):
        twice = next(name for name in pictures if name not in masks.values())
        raise PatchwordError(f"{source} has {twice} twice, with other letter case in its ending; remove one")
    if not masks:
        raise PatchwordError(f"{source} is not a VOC folder: it has no folder {_CLASSES[:-1]} with masks *.png")
    table = _table(files, vocabulary, settings, source)
    listed = _listed(files, source)
    findings = Findings(left_out=+Counter({_NOT_LISTED: len(masks.keys() - listed.keys()) if listed else 0}))
    for stem in listed or masks:
        try:
            name = photographs.without_suffix(stem, place=str(source))
            if stem not in masks:
                raise PatchwordError(f"{source} lists {stem!r} and has no mask {_CLASSES}{stem}.png")
        except PatchwordError as error:
            findings.failed[stem] = str(error)
            continue
        paint = partial(_painted, files, masks[stem], str(source), table)
        findings.corrections.append(Correction(name, paint))
    return findings


def _files_of(source: Path) -> _Files:
    """The files of a folder or a .zip that matter here, hidden ones left out."""
    if not source.is_dir():
        return _files_in_archive(source)
    found = (path for part in (_CLASSES, _OBJECTS, _LISTS) for path in (source / part).rglob("*"))
    paths = [*found, source / _TABLE]
    return {
        path.relative_to(source).as_posix(): path.read_bytes
        for path in paths
        if not path.name.startswith(".") and path.is_file()
    }


def _files_in_archive(source: Path) -> _Files:
    """Nothing is unpacked: a file's path is a name to look it up by, and never one to write to."""
    try:
        archive = zipfile.ZipFile(source)
    except OSError as error:
        raise PatchwordError(f"cannot read {source}: {error.strerror}") from None
    except zipfile.BadZipFile:
        raise PatchwordError(f"{source} is not a VOC folder, nor a .zip of one") from None
    members = {f"/{each.filename}": each for each in archive.infolist() if not each.is_dir()}
    tops = {name.partition(f"/{_CLASSES}")[0] for name in members if f"/{_CLASSES}" in name}
    tops = {top for top in tops if not top.startswith("/__MACOSX")}
    if len(tops) > 1:
        raise PatchwordError(f"{source} has more than one folder {_CLASSES[:-1]}; unpack it and name the one you mean")
    top = next(iter(tops), "") + "/"

    def read(member: zipfile.ZipInfo) -> bytes:
        if member.file_size > _MOST_BYTES:
            raise PatchwordError(f"{source}: {member.filename} has more than {_MOST_BYTES:,} bytes")
        try:
            return archive.read(member)
        except (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise PatchwordError(f"{source}: {member.filename} is damaged or locked: {error}") from None

    return {
        name.removeprefix(top): partial(read, each)
        for name, each in members.items()
        if name.startswith(top) and not PurePosixPath(name).name.startswith(".")
    }


def _listed(files: _Files, source: Path) -> dict[str, None]:
    """The names of all lists, each once."""
    lists = sorted(name for name in files if name.startswith(_LISTS) and name.endswith(".txt"))
    lines = [line.strip() for name in lists for line in _text(files, name, source).splitlines()]
    return dict.fromkeys(line for line in lines if line)


def _text(files: _Files, name: str, source: Path) -> str:
    try:
        return files[name]().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise PatchwordError(f"cannot read {source / name}: {error.strerror}") from None


def _table(files: _Files, vocabulary: Vocabulary, settings: ImportSettings, source: Path) -> _Table:
    if settings.values == "positions":
        if _TABLE in files:
            raise PatchwordError(f"values is 'positions', but {source} has a {_TABLE}, which says what they are")
        return _Table({0: NOTHING, VOID: NOTHING} | {each + 1: each for each in range(len(vocabulary))}, {})
    if _TABLE not in files:
        raise PatchwordError(
            f"{source} has no {_TABLE}, so nothing says which class a value is; add one with a line "
            "name:red,green,blue:: for each value from 0, or, if 0 is no class and value v is the v-th class of the "
            "list, say --set values=positions"
        )
    return _read_table(_text(files, _TABLE, source), vocabulary, source / _TABLE)


def _read_table(text: str, vocabulary: Vocabulary, path: Path) -> _Table:
    lines = [line.strip() for line in text.splitlines()]
    parts = [line.partition(":") for line in lines if line and not line.startswith("#")]
    rows = [(name, _colour(rest.partition(":")[0], place=f"{path}: {name}")) for name, _, rest in parts]
    elsewhere = {name.casefold() for name, colour in rows if colour != _BLACK}
    by_value: dict[int, int] = {}
    by_colour: dict[tuple[int, int, int], int] = {}
    owners: dict[tuple[int, int, int], str] = {}
    for value, (name, colour) in enumerate(rows):
        added = colour == _BLACK and name.casefold() in elsewhere  # CVAT's own row, beside that of a label
        by_value[value] = NOTHING if added else _class_of(name, colour, vocabulary, path)
        if by_colour.setdefault(colour, by_value[value]) != by_value[value]:
            shown = ",".join(map(str, colour))
            raise PatchwordError(
                f"{path}: {owners[colour]!r} and {name!r} both have the colour {shown}; give each its own, here and in "
                "the masks"
            )
        owners[colour] = name
    return _Table({VOID: NOTHING} | by_value, {IGNORE_COLOUR: NOTHING} | by_colour)


def _colour(text: str, *, place: str) -> tuple[int, int, int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 4 and int(part) < 256 for part in parts):
        raise PatchwordError(f"{place} has the colour {text!r}; write red,green,blue, each 0 to 255")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _class_of(name: str, colour: tuple[int, int, int], vocabulary: Vocabulary, path: Path) -> int:
    try:
        return vocabulary.index(name)
    except PatchwordError as error:
        if colour == _BLACK or name.casefold() in ("background", "unlabelled", "ignored", "void"):
            return NOTHING
        raise PatchwordError(f"{path}: {error}") from None


def _painted(files: _Files, name: str, source: str, table: _Table, size: tuple[int, int]) -> Painted:
    path = f"{source}/{name}"
    indices = _indices(_opened(files[name], path), table, path)
    check_size((indices.shape[0], indices.shape[1]), needed=size, place=path)
    objects = name.replace(_CLASSES, _OBJECTS, 1)
    numbers = _numbers(files, objects, source, size) if objects in files else connected_components(indices).labels
    keys = np.where(indices == NOTHING, NOTHING, indices * (int(numbers.max()) + 1) + numbers)
    regions = [
        Region(int(indices[mask][0]), mask) for mask in (keys == key for key in np.unique(keys) if key != NOTHING)
    ]
    return Painted(indices, tuple(regions))


def _indices(image: Image.Image, table: _Table, path: str) -> NDArray[np.int64]:
    """(h, w) classes, by colour where all colours are known, by value otherwise."""
    by_value = _looked_up(np.array(image), table.by_value) if image.mode in ("P", "L") else None
    packed = _packed(image)
    known = {red << 16 | green << 8 | blue: index for (red, green, blue), index in table.by_colour.items()}
    by_colour = _looked_up(packed, known)
    if image.mode == "L" and by_value is not None and by_colour is not None and (by_value != by_colour).any():
        raise PatchwordError(f"{path} is grey, and its values may be colours of {_TABLE} or numbers of its rows")
    for found in (by_colour, by_value):
        if found is not None:
            return found
    if image.mode in ("P", "L"):
        value = next(value for value in np.unique(np.array(image)).tolist() if value not in table.by_value)
        raise PatchwordError(f"{path} has the value {value}, which is no class")
    unknown = next(value for value in np.unique(packed).tolist() if value not in known)
    raise PatchwordError(f"{path} has the colour #{unknown:06x}, which no row of {_TABLE} has")


def _looked_up(values: NDArray[np.integer], table: Mapping[int, int]) -> NDArray[np.int64] | None:
    """What a table says of values (h, w); none when one is not in it."""
    found, inverse = np.unique(values, return_inverse=True)
    if not all(value in table for value in found.tolist()):
        return None
    return np.array([table[value] for value in found.tolist()])[inverse].reshape(values.shape)


def _numbers(files: _Files, name: str, source: str, size: tuple[int, int]) -> NDArray[np.int64]:
    """(h, w) a number for each object, whatever the picture calls it."""
    path = f"{source}/{name}"
    packed = _packed(_opened(files[name], path))
    check_size((packed.shape[0], packed.shape[1]), needed=size, place=path)
    return np.unique(packed, return_inverse=True)[1].reshape(packed.shape)


def _packed(image: Image.Image) -> NDArray[np.int64]:
    colours = np.array(image.convert("RGB")).astype(np.int64)
    packed: NDArray[np.int64] = colours @ np.array([65536, 256, 1])
    return packed


def _opened(read: Callable[[], bytes], path: str) -> Image.Image:
    try:
        with SILENCE, Image.open(io.BytesIO(read())) as image:
            image.load()
            if image.mode not in ("P", "L", "RGB", "RGBA"):
                raise PatchwordError(f"{path} is a picture of mode {image.mode}; a mask is indexed, grey or coloured")
            return image.copy()
    except PatchwordError:
        raise
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        raise PatchwordError(f"cannot read {path}: {' '.join(str(error).split())}") from None
