"""Files of an export: pictures, lists and tables, written whole or not at all, the same bytes every time."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.folders import json_text, replacing, write_bytes
from patchword.data.storage import is_stored
from patchword.errors import PatchwordError

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the format wants a time, and the time of writing would differ from run to run


Sink = Callable[[str, bytes], None]
"""Adds a file to a folder or an archive: its path within it, with forward slashes, and its bytes."""


def folder_sink(folder: Path) -> Sink:
    return lambda name, data: write_bytes(folder / name, data)


@contextmanager
def zip_sink(path: Path) -> Iterator[Sink]:
    """A zip archive as a place for files, whole or absent."""
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:

        def write(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            try:
                archive.writestr(entry, data)
            except UnicodeEncodeError:
                raise PatchwordError(f"a zip archive cannot hold the name {name!r}; export to a folder") from None

        yield write


def refuse_inside(out: Path, *inputs: Path) -> None:
    """Refuse an output folder that holds what is read, for overwriting it would remove that."""
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise PatchwordError(f"{path} is inside the output folder {out}; choose another output folder")


def check_file_target(out: Path, *, suffix: str, overwrite: bool) -> None:
    """Refuse the path of a new file before minutes of work."""
    if out.suffix != suffix:
        raise PatchwordError(f"output file {out} must end in {suffix}")
    if out.is_dir():
        raise PatchwordError(f"output file {out} is a folder; it must be a file")
    if out.exists() and not overwrite:
        raise PatchwordError(f"output file {out} is there already; choose another, or --overwrite it")


def write_json_object(path: Path, members: Iterable[tuple[str, object]]) -> None:
    """Write a JSON object piece by piece: an iterator among the values becomes an array, one item a line."""
    with whole_file(path) as file:
        file.write(b"{")
        for number, (key, value) in enumerate(members):
            file.write((",\n" if number else "\n").encode() + json_text(key).encode() + b": ")
            if isinstance(value, Iterator):
                _write_array(file, value)
            else:
                file.write(json_text(value).encode())
        file.write(b"\n}\n")


def write_json_array(path: Path, items: Iterable[object]) -> None:
    """Write a JSON array piece by piece, one item a line."""
    with whole_file(path) as file:
        _write_array(file, items)
        file.write(b"\n")


def write_json_lines(path: Path, items: Iterable[object]) -> None:
    """Write JSON lines piece by piece."""
    with whole_file(path) as file:
        for item in items:
            file.write(json_text(item).encode() + b"\n")


def text_bytes(text: str) -> bytes:
    """UTF-8; names of files that are not Unicode get their own bytes back."""
    return text.encode("utf-8", "surrogateescape")


def png(values: NDArray[np.integer[Any]], *, colours: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG file of (h, w) 8- or 16-bit values, indexed by colours (256, 3), or of (h, w, 3) colours."""
    image = Image.fromarray(values)
    if colours is not None:
        image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def place_photograph(photo: Path, *, target: Path, how: str) -> None:
    """Copy or link a photograph."""
    if how == "copy":
        with whole_file(target) as file, opened_photograph(photo) as source:
            shutil.copyfileobj(source, file)
        return
    if is_stored(photo):
        raise PatchwordError(f"{photo} cannot be linked to, for it is not on this machine; use photographs copy")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(photo.resolve(), target.parent.resolve()))
    except (OSError, ValueError) as error:
        raise PatchwordError(f"cannot link {photo} to {target}: {error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes its name when the block ends well and vanishes when it does not."""
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise PatchwordError(f"cannot write {path}: {error.strerror or error}") from None


def opened_photograph(path: Path) -> IO[bytes]:
    """A photograph's file."""
    try:
        return path.open("rb")
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None


def _write_array(file: IO[bytes], items: Iterable[object]) -> None:
    file.write(b"[")
    for number, item in enumerate(items):
        file.write((b",\n" if number else b"\n") + json_text(item).encode())
    file.write(b"\n]")
