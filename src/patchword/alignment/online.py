"""Frozen features computed anew whenever they are read, for data sets whose features do not fit on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.photographs import (
    Photograph,
    Unreadable,
    encode_together,
    in_batches,
    read_photograph,
)
from patchword.alignment.shards import ImageSize
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import nearest_multiple
from patchword.models.protocols import PatchEncoder
from patchword.runs.pipeline import read_ahead
from patchword.runs.progress import Progress


class OnlineFeatures:
    """The features of one encoder at one image size, each computed when it is asked for.

    Args:
        encoder: computes them.
        settings: image size, batch of the encoder, threads that decode.
    """

    def __init__(self, *, encoder: PatchEncoder, settings: AlignSettings) -> None:
        self.side = nearest_multiple(settings.image_size, of=encoder.record.patch_size)
        self.grid = (self.side // encoder.record.patch_size,) * 2
        self._encoder = encoder
        self._settings = settings
        self._batches = Batches()
        self._paths: dict[str, Path] = {}
        self._sizes: dict[str, ImageSize] = {}

    def size_of(self, key: str) -> ImageSize:
        """The size of a photograph that `check` has seen, as it was before resizing."""
        return self._sizes[key]

    def check(
        self,
        photographs: Iterable[tuple[str, Path]],
        *,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> dict[str, str]:
        """Decode every photograph once, so that one that cannot be read is found before the training and not in it.

        Args:
            photographs: (content hash, path) of each.
            progress: advanced by one for every photograph.
            processes: that share the work.

        Returns:
            content hash -> reason, of photographs that cannot be read.
        """
        wanted = list(photographs)
        share = processes.shares(len(wanted))[processes.index]
        found: list[tuple[str, ImageSize | str]] = []
        for decoded in self._decode(wanted[share.start : share.stop]):
            found.append((decoded.key, decoded.reason if isinstance(decoded, Unreadable) else decoded.size))
            if progress is not None:
                progress.advance()
        if progress is not None:
            progress.advance(len(wanted) - len(share))
        everywhere = processes.collect(found)
        self._sizes |= {key: size for key, size in everywhere if isinstance(size, ImageSize)}
        self._paths |= {key: path for key, path in wanted if key in self._sizes}
        return {key: reason for key, reason in everywhere if isinstance(reason, str)}

    @torch.no_grad()
    def read(self, keys: Sequence[str]) -> Tensor:
        """Compute the features of photographs.

        Args:
            keys: content hashes, all seen by `check`.

        Returns:
            (b, D, h, w) float32, on the encoder's device.
        """
        parts = []
        decoded = self._decode([(key, self._paths[key]) for key in keys])
        for batch in in_batches(decoded, size=self._settings.feature_batch):
            broken = [photograph.reason for photograph in batch if isinstance(photograph, Unreadable)]
            if broken:
                raise PatchwordError(f"features cannot be computed: {broken[0]}")
            pixels = torch.cat([photograph.pixels for photograph in batch if isinstance(photograph, Photograph)])
            parts.append(encode_together(self._encoder, pixels, batches=self._batches))  # (b, D, h, w)
        return torch.cat(parts)

    def _decode(self, photographs: Sequence[tuple[str, Path]]) -> Iterable[Photograph | Unreadable]:
        tasks = (partial(read_photograph, key, path, side=self.side) for key, path in photographs)
        threads = self._settings.decode_threads
        return read_ahead(tasks, ahead=threads, threads=threads)
