"""A shard of features computed from its photographs, here or by a worker of an executor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from patchword.alignment import photographs as decoding
from patchword.alignment.photographs import encode_together, in_batches
from patchword.alignment.shards import FEATURE_TYPES, CachedFeatures, write_shard
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.protocols import PatchEncoder
from patchword.runs.pipeline import Chunk, Photograph, Written
from patchword.runs.records import LineRecord

Failures = dict[str, str]
"""Content hash -> reason, of photographs that cannot be used."""


@torch.no_grad()
def encode_shard(
    photographs: Iterable[decoding.Photograph], *, encoder: PatchEncoder, settings: AlignSettings, batches: Batches
) -> dict[str, CachedFeatures]:
    """Encode photographs in the batches of the settings."""
    shard: dict[str, CachedFeatures] = {}
    for batch in in_batches(photographs, size=settings.feature_batch):
        encoded = encode_together(encoder, torch.cat([each.pixels for each in batch]), batches=batches)  # (b, D, h, w)
        features = encoded.to(FEATURE_TYPES[settings.feature_dtype]).cpu()
        if not torch.isfinite(features).all():
            raise PatchwordError(
                f"features of {encoder.record.name} do not fit {settings.feature_dtype} or are not finite; set "
                "feature_dtype to bfloat16 or float32, which have more room"
            )
        for photograph, each in zip(batch, features, strict=True):
            shard[photograph.key] = CachedFeatures(each, photograph.size)
    return shard


@dataclass(frozen=True)
class FeatureWork:
    """What is done with the photographs of a shard, each named by its content; the `Work` of an executor.

    Its result is how many photographs those were, and those that cannot be used.
    """

    folder: Path
    encoder: PatchEncoder
    settings: AlignSettings
    side: int
    batches: Batches = field(default_factory=Batches)

    def read(self, path: Path) -> Any:
        """A photograph as the encoder takes it, without its key."""
        return decoding.decode("", path, side=self.side)

    def process(
        self, photographs: list[Photograph], *, chunk: Chunk
    ) -> Iterator[tuple[list[str], dict[str, CachedFeatures], Failures]]:
        failed: Failures = {}
        usable = []
        for each in photographs:
            if isinstance(each.pixels, PatchwordError):
                failed[each.name] = str(each.pixels)
            elif each.content != each.name:
                failed[each.name] = decoding.changed(each.path)
            else:
                usable.append(replace(cast(decoding.Photograph, each.pixels), key=each.name))
        shard = encode_shard(usable, encoder=self.encoder, settings=self.settings, batches=self.batches)
        yield [each.name for each in photographs], shard, failed

    def write(self, made: tuple[list[str], dict[str, CachedFeatures], Failures]) -> Written:
        names, shard, failed = made
        if shard:
            write_shard(self.folder, shard)
        return Written(LineRecord(name=names[0], status="ok"), result=(len(names), failed))
