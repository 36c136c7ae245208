"""The folder of a large image that is not done yet: what its tiles gave so far, so that a stopped run goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from patchword.data.folders import write_json
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap
from patchword.segmentation.large.tiles import Box, Tile

_WHAT, _CLASSES, _DONE = "what.json", "classes.json", "done.jsonl"
_INDICES, _CONFIDENCE = "indices.raw", "confidence.raw"


class Shown(NamedTuple):
    """The classes of a label map: their names, and the colours (n, 3) uint8 that they are shown in."""

    names: tuple[str, ...]
    colours: NDArray[np.uint8]


class Unfinished:
    """Classes, and on request confidences, of the tiles that are done, with a journal of them.

    A tile is in the journal only after its pixels are on disk. A folder of another image, other settings or another
    model is emptied first.

    Args:
        folder: made when missing.
        what: all that the result depends on, as JSON can hold it.
        size: (height, width) in pixels of the image.
        classes: how many there may be at most; decides the type that their indices are kept in.
        confidence_bits: of the confidences that are kept, as 0 to 255 (8) or 65535 (16); 0 keeps none.
    """

    def __init__(
        self, folder: Path, *, what: Mapping[str, Any], size: tuple[int, int], classes: int, confidence_bits: int
    ) -> None:
        self.folder = folder
        if _read_json(folder / _WHAT) != json.loads(json.dumps(what)):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _WHAT, what)
        dtype: type[np.uint8 | np.uint16] = np.uint8 if classes < 255 else np.uint16
        self.indices = PixelStore(folder / _INDICES, size=size, dtype=dtype)
        self.ignore = self.indices.full
        self.confidence = _confidence_store(folder / _CONFIDENCE, size=size, bits=confidence_bits)
        self._journal = Manifest(folder / _DONE)
        self._done = self._journal.read()

    def has(self, tile: Tile) -> bool:
        """Whether a tile is done."""
        return _key(tile) in self._done

    @property
    def shown(self) -> Shown | None:
        """The classes that the tiles so far were given; None while nothing was segmented."""
        known = _read_json(self.folder / _CLASSES)
        if known is None:
            return None
        return Shown(tuple(known["names"]), np.array(known["colours"], dtype=np.uint8).reshape(-1, 3))

    def show(self, label_map: LabelMap) -> None:
        """Keep the classes of a tile's label map; they are the same in all tiles."""
        colours = label_map.class_colours().tolist()
        write_json(self.folder / _CLASSES, {"names": list(label_map.names), "colours": colours})

    def add(
        self,
        tile: Tile,
        *,
        indices: NDArray[np.int64],
        confidence: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> None:
        """Keep what is known of a tile's kept part, each (h, w): classes, ignored ones as `ignore`, and confidences.

        Pixels that are not valid count as ignored, and in no mean.
        """
        known = np.where(valid, indices, self.ignore)
        self.indices.write(tile.kept, known)
        self.indices.flush()
        if self.confidence is not None:
            self.confidence.write(tile.kept, np.where(valid, np.rint(confidence * np.float32(self.confidence.full)), 0))
            self.confidence.flush()
        found, pixels = np.unique(known, return_counts=True)
        name = _key(tile)
        record = {
            "name": name,
            "pixels": {str(index): int(count) for index, count in zip(found, pixels, strict=True)},
            "valid": int(valid.sum()),
            "confidence": float(confidence[valid].sum(dtype=np.float64)),
        }
        self._journal.append(record)
        self._done[name] = record

    def pixels(self, count: int) -> list[int]:
        """Pixels of each of the `count` classes."""
        totals = [0] * count
        for record in self._done.values():
            for index, pixels in record["pixels"].items():
                if int(index) != self.ignore:
                    totals[int(index)] += pixels
        return totals

    def mean_confidence(self) -> float | None:
        """Over all valid pixels; None when there are none."""
        records = [self._done[name] for name in sorted(self._done)]  # one order, so that sums come out the same
        valid = sum(record["valid"] for record in records)
        return sum(record["confidence"] for record in records) / valid if valid else None

    def remove(self, *, below: Path) -> None:
        """Delete the folder, and empty ones around it up to and with `below`."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # one that still holds another image stays
            for parent in self.folder.parents:
                parent.rmdir()
                if parent == below:
                    return

    def close(self) -> None:
        """Close all files."""
        self._journal.close()
        self.indices.close()
        if self.confidence is not None:
            self.confidence.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def nothing(box: Box) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Indices, confidences and validity (h, w) of a part of an image where there is nothing."""
    shape = (box.height, box.width)
    return np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)


def _confidence_store(path: Path, *, size: tuple[int, int], bits: int) -> PixelStore | None:
    return PixelStore(path, size=size, dtype=np.uint8 if bits == 8 else np.uint16) if bits else None


def _key(tile: Tile) -> str:
    return f"{tile.row:06d}-{tile.column:06d}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


class PixelStore:
    """One value a pixel in a plain file, row by row, written and read in parts; no part of it stays in memory.

    Args:
        path: of the file; what it holds is kept.
        size: (height, width) in pixels.
        dtype: of a value.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], dtype: type[np.unsignedinteger[Any]]) -> None:
        self.size = size
        self.dtype = np.dtype(dtype)
        self._path = path
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(size[0] * size[1] * self.dtype.itemsize)

    @property
    def full(self) -> int:
        """The greatest value that a pixel can have."""
        return int(np.iinfo(self.dtype).max)

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Write the values (h, w) of a part."""
        rows = np.ascontiguousarray(values, dtype=self.dtype)
        for number, row in enumerate(rows, start=box.top):
            self._file.seek((number * self.size[1] + box.left) * self.dtype.itemsize)
            left = memoryview(row.data).cast("B")
            while left:  # a disk that fills up takes a part of it; the rest then raises
                left = left[self._file.write(left) :]

    def flush(self) -> None:
        """Have on disk what was written."""
        os.fsync(self._file.fileno())

    @property
    def values(self) -> NDArray[Any]:
        """All values (height, width); mapped, so that no part of them has to stay in memory."""
        return np.memmap(self._path, dtype=self.dtype, mode="r", shape=self.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
