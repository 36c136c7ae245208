"""What is known of a large image so far: values of all pixels on disk, and which tiles are in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.segmentation.large.tiles import Box


class PixelStore:
    """One value a pixel in a plain file, row by row, written and read in parts; no part of it stays in memory.

    Args:
        path: of the file; what it holds is kept.
        size: (height, width) in pixels.
        dtype: of a value.

    Raises:
        OSError: when the file cannot be made or is on a full disk.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], dtype: type[np.unsignedinteger[Any]]) -> None:
        self.size = size
        self.dtype = np.dtype(dtype)
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

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """The values (stop - start, width) of some rows."""
        self._file.seek(start * self.size[1] * self.dtype.itemsize)
        values = np.empty((stop - start, self.size[1]), dtype=self.dtype)
        left = memoryview(values.data).cast("B")
        while left:
            left = left[self._file.readinto(left) :]
        return values

    def strips(self, height: int) -> Iterator[NDArray[Any]]:
        """All values from top to bottom, (height, width) at a time, the last perhaps fewer."""
        for top in range(0, self.size[0], height):
            yield self.rows(top, min(top + height, self.size[0]))

    def sample(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[Any]:
        """The values (len(rows), len(columns)) at some rows and columns."""
        return np.stack([self.rows(int(row), int(row) + 1)[0, columns] for row in rows])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
