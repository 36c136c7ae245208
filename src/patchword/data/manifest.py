"""Manifests: files of JSON lines, one a photograph, that survive being cut off anywhere."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Self

from patchword.data.folders import json_text, write_text
from patchword.data.storage import StoredPath, as_path, is_stored
from patchword.errors import PatchwordError, WriteError

_BLOCK = 1 << 16  # bytes


class Manifest:
    """A file of JSON lines that grows by one line an item and survives being cut off anywhere.

    Every record has a "name"; of several with one name the last counts. One on a store grows in a file of this machine,
    and is stored whole by `save`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path)
        self._file: FileIO | None = None
        self._local: Path | None = None  # where a stored one grows
        self._saved = 0  # its bytes that are stored

    def read(self) -> dict[str, dict[str, Any]]:
        """The records by name. A last line that was cut off is left out, a missing file is empty."""
        records = {}
        for number, line in enumerate(self._whole_lines(), start=1):
            record = _parse_record(line)
            if record is None:
                raise PatchwordError(f"{self.path}:{number}: not a JSON object with a name; delete the line to go on")
            records[record["name"]] = record
        return records

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; it survives the end of the process from then on."""
        if not isinstance(record.get("name"), str):
            raise ValueError("a manifest record needs a name")
        line = (json_text(record) + "\n").encode("utf-8")
        try:
            if self._file is None:
                self._file = self._open_for_append()
            while line:  # a disk that fills up takes a part of it; the rest then raises
                line = line[self._file.write(line) :]
        except OSError as error:
            self.close()  # the next line opens the file anew, which cuts off what was half written
            raise WriteError(f"cannot write {self.path}: {error.strerror}") from None

    def finish(self) -> dict[str, dict[str, Any]]:
        """Close the file and write it anew, one record a name, sorted by name."""
        self.close()
        records = dict(sorted(self.read().items()))
        write_text(self.path, "".join(json_text(record) + "\n" for record in records.values()))
        return records

    def close(self) -> None:
        """Close the file; it may be appended to again."""
        if self._file is not None:
            self.save()
            self._file.close()
            self._file = None
            if self._local is not None:
                self._local.unlink(missing_ok=True)
                self._local = None

    def save(self) -> None:
        """Store what was appended; of a file on a disk there is nothing to do."""
        if isinstance(self.path, StoredPath) and self._local is not None:
            data = self._local.read_bytes()
            if len(data) != self._saved:
                self.path.put(data)
                self._saved = len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _whole_lines(self) -> list[bytes]:
        try:
            data = (self._local or self.path).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PatchwordError(f"cannot read {self.path}: {error.strerror}") from None
        return data.split(b"\n")[:-1]

    def _open_for_append(self) -> FileIO:
        path = self.path
        if is_stored(path):
            earlier = path.read_bytes() if path.is_file() else b""
            handle, name = tempfile.mkstemp(prefix="patchword-", suffix=".jsonl")
            with open(handle, "wb") as begun:  # noqa: PTH123
                begun.write(earlier)
            self._local = path = Path(name)
            self._saved = len(earlier)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "ab+")  # unbuffered: nothing is left to write when it is closed
        file.truncate(_end_of_lines(file))  # a line cut off by the end of an earlier run would swallow the next one
        return file


def _end_of_lines(file: FileIO) -> int:
    """Where the last whole line of a file ends, in bytes; found from the end, since the file may be large."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _parse_record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        return None
    return record
